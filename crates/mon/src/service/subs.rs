//! Subscriptions: what a session wants to hear of, and sending it when there is news.
//!
//! Invariant: a one-time subscription is answered once and forgotten; any other is answered for
//! every version from its start on. One for the next OSD map stays for some seconds if OSDs came or went
//! in it: a client asks once when it loses a connection, and where several OSDs go at the same time, the
//! map that follows tells of one of them; it would ask for more only after its own tick, 15 s later.

use std::time::Duration;

use spirula_maps::{Incremental, OsdMap};
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mgr::{MgrDigest, MgrMapMsg, ServiceMapMsg};
use spirula_wire::msg::mon::{Config, Log, MonGetOsdMap, MonMapMsg, MonSubscribe};
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode as _, DecodeError, Message, RawMessage};
use tracing::debug;

use super::{F, Handled, Service, Session, SessionId};
use crate::Now;
use crate::command::level_of;
use crate::limits::SUBSCRIPTIONS_MAX;

/// How long a client that was told of OSDs that came or went is told of more.
const LINGERS: Duration = Duration::from_secs(10);
/// Maps that are looked at for such OSDs.
const LINGER_MAPS: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The first version that was not sent yet.
    next: u64,
    onetime: bool,
    /// It was answered, but ends then.
    until: Option<Duration>,
}

impl Service {
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = MonSubscribe::from_raw(raw)?;
        for (what, item) in request.what {
            let Some(session) = self.sessions.get_mut(&id) else {
                break;
            };
            if session.subs.len() >= SUBSCRIPTIONS_MAX && !session.subs.contains_key(&what) {
                debug!(what, "too many subscriptions");
                continue;
            }
            if !session.may_subscribe(&what) {
                debug!(what, name = %session.name(), "subscription not allowed");
                continue;
            }
            let next = match what.as_str() {
                // Whoever asks for the log wants what comes from now on.
                w if w.starts_with("log-") && item.start == 0 => self.state.log.version + 1,
                _ => item.start,
            };
            let onetime = item.onetime();
            session.subs.insert(what.clone(), Subscription { next, onetime, until: None });
            self.serve(now, id, &what);
        }
        Ok(Handled::Done)
    }

    /// Sends what is new to every session.
    pub(super) fn publish(&mut self, now: Now) {
        let due: Vec<(SessionId, String)> = self
            .sessions
            .iter()
            .flat_map(|(id, s)| s.subs.keys().map(|what| (*id, what.clone())))
            .filter(|(_, what)| what != "mgrdigest")
            .collect();
        for (id, what) in due {
            self.serve(now, id, &what);
        }
    }

    /// Sends every manager that subscribed its digest.
    pub(super) fn publish_digest(&mut self, now: Now) {
        let wants = |s: &Session| s.subs.contains_key("mgrdigest");
        let due: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| wants(s)).map(|(id, _)| *id).collect();
        for id in due {
            self.serve(now, id, "mgrdigest");
        }
    }

    /// Sends session `id` what it is owed of `what`.
    fn serve(&mut self, now: Now, id: SessionId, what: &str) {
        let Some(sub) = self.sessions.get(&id).and_then(|s| s.subs.get(what)).copied() else {
            return;
        };
        let over = sub.until.is_some_and(|until| until < now.mono);
        let next = if over { None } else { self.send_news(now, id, what, sub.next) };
        let lingers =
            sub.onetime && next.is_some() && what == "osdmap" && self.osds_moved(sub.next);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let until = if lingers { Some(now.mono + LINGERS) } else { sub.until };
        match next {
            None if over => drop(session.subs.remove(what)),
            None => {}
            Some(_) if sub.onetime && until.is_none() => drop(session.subs.remove(what)),
            Some(next) => {
                session.subs.insert(what.to_owned(), Subscription { next, until, ..sub });
            }
        }
    }

    /// Whether OSDs came or went in map `from` or a later one.
    fn osds_moved(&self, from: u64) -> bool {
        if from == 0 {
            // Who asks for a whole map has not lost anything.
            return false;
        }
        let osd = &self.state.osd;
        let newest = osd.epoch();
        let from = u32::try_from(from).unwrap_or(u32::MAX).max(newest.saturating_sub(LINGER_MAPS));
        let incs = (from..=newest).filter_map(|epoch| osd.incremental(epoch));
        let moved = |inc: Incremental| !inc.new_state.is_empty() || !inc.new_up_client.is_empty();
        incs.filter_map(|raw| Incremental::from_bytes(&raw).ok()).any(moved)
    }

    /// Sends versions from `from` on, if there are any; returns the version to go on with.
    fn send_news(&mut self, now: Now, id: SessionId, what: &str, from: u64) -> Option<u64> {
        match what {
            "osdmap" => {
                let epoch = u64::from(self.state.osd.epoch());
                (from <= epoch).then(|| {
                    self.send_osdmaps(id, u32::try_from(from).unwrap_or(u32::MAX));
                    epoch + 1
                })
            }
            "monmap" => {
                let epoch = u64::from(self.state.monmap.epoch());
                (from <= epoch).then(|| {
                    let message = MonMapMsg { monmap: self.state.monmap.encoded() };
                    self.send(id, message.to_raw(0, F));
                    epoch + 1
                })
            }
            "mgrmap" => {
                let epoch = u64::from(self.state.mgr.epoch());
                (from <= epoch).then(|| {
                    let message = MgrMapMsg { map: self.state.mgr.encoded() };
                    self.send(id, message.to_raw(0, F));
                    epoch + 1
                })
            }
            "config" => self.send_config(id, from),
            "mgrdigest" => {
                let message = MgrDigest {
                    mon_status_json: self.mon_status(now).compact().into_bytes().into(),
                    health_json: self.health_json(now).compact().into_bytes().into(),
                };
                self.send(id, message.to_raw(0, F));
                Some(from)
            }
            "servicemap" => (from <= 1).then(|| {
                let message = ServiceMapMsg { map: self.live.service_map.clone() };
                self.send(id, message.to_raw(0, F));
                2
            }),
            _ => self.send_log(id, what, from),
        }
    }

    /// `log-info`, `log-debug`, ...: entries of at least that level, of the cluster channel.
    fn send_log(&mut self, id: SessionId, what: &str, from: u64) -> Option<u64> {
        let level = level_of(what.strip_prefix("log-")?)?;
        let log = &self.state.log;
        let next = log.version + 1;
        if from >= next {
            return None;
        }
        let entries: Vec<_> = log
            .after(from.saturating_sub(1))
            .filter(|e| e.prio >= level && e.channel == "cluster")
            .cloned()
            .collect();
        if !entries.is_empty() {
            // A client takes only what is newer than the last version it saw.
            let paxos = Paxos::at(log.version);
            let message = Log { paxos, fsid: self.state.fsid, entries };
            self.send(id, message.to_raw(0, F));
        }
        Some(next)
    }

    /// The options for the session's entity; `from` counts changes of the whole configuration.
    fn send_config(&mut self, id: SessionId, from: u64) -> Option<u64> {
        let version = self.state.config.version;
        if from > version {
            return None;
        }
        let name = self.sessions.get(&id)?.name().clone();
        let config = self.config_of(&name);
        let session = self.sessions.get_mut(&id)?;
        // A change that does not concern this entity is no news to it.
        if from == 0 || session.config.as_ref() != Some(&config) {
            session.config = Some(config.clone());
            self.send(id, Config { config }.to_raw(0, F));
        }
        Some(version + 1)
    }

    pub(super) fn get_config(
        &mut self,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let request = spirula_wire::msg::mon::GetConfig::from_raw(raw)?;
        let config = self.config_of(&request.name);
        self.reply(id, raw, &Config { config });
        Ok(())
    }

    fn config_of(&self, name: &EntityNameStr) -> std::collections::BTreeMap<String, String> {
        let class = self.state.device_class_of(name);
        let location = self.state.location_of(name);
        let location: Vec<(&str, &str)> =
            location.iter().map(|(t, n)| (t.as_str(), n.as_str())).collect();
        self.state.config.effective(name, class.as_deref(), &location)
    }

    /// The full current map for `from` 0, else the increments from there, as many messages as
    /// it takes.
    pub(super) fn send_osdmaps(&mut self, id: SessionId, from: u32) {
        let per_message = self.settings.int("osd_map_message_max").clamp(1, 100) as u32;
        let osd = &self.state.osd;
        let (oldest, newest) = (osd.oldest(), osd.epoch());
        let blank = || OsdMapMsg {
            fsid: self.state.fsid,
            oldest_map: oldest,
            newest_map: newest,
            ..OsdMapMsg::default()
        };
        let mut messages = Vec::new();
        let mut next = from;
        if from == 0 {
            messages.push(OsdMapMsg { maps: [(newest, osd.full_encoded())].into(), ..blank() });
            next = newest + 1;
        } else if from <= oldest {
            let full = osd.full_at(oldest);
            messages.push(OsdMapMsg {
                maps: full.map(|m| (oldest, m)).into_iter().collect(),
                ..blank()
            });
            next = oldest + 1;
        }
        while next <= newest {
            let last = newest.min(next.saturating_add(per_message - 1));
            let incs = (next..=last).filter_map(|e| Some((e, osd.incremental(e)?)));
            messages.push(OsdMapMsg { incremental_maps: incs.collect(), ..blank() });
            next = last + 1;
        }
        for message in messages {
            self.send(id, message.to_raw(0, F));
        }
    }

    /// The maps of asked epochs, as far as they are kept and one message carries.
    pub(super) fn get_osdmap(
        &mut self,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let asked = MonGetOsdMap::from_raw(raw)?;
        if !self.sessions.get(&id).is_some_and(|session| session.may_subscribe("osdmap")) {
            return Ok(());
        }
        let per_message = self.settings.int("osd_map_message_max").clamp(1, 100) as usize;
        let osd = &self.state.osd;
        let (oldest, newest) = (osd.oldest(), osd.epoch());
        // What is not kept any more gives way to the oldest that is.
        let range = |first: u32, last: u32| {
            let epochs = first.max(oldest)..=last.max(oldest).min(newest);
            epochs.filter(move |_| first > 0).take(per_message)
        };
        let message = OsdMapMsg {
            fsid: self.state.fsid,
            maps: range(asked.full_first, asked.full_last)
                .filter_map(|e| Some((e, osd.full_at(e)?)))
                .collect(),
            incremental_maps: range(asked.inc_first, asked.inc_last)
                .filter_map(|e| Some((e, osd.incremental(e)?)))
                .collect(),
            oldest_map: oldest,
            newest_map: newest,
            ..OsdMapMsg::default()
        };
        self.send(id, message.to_raw(0, F));
        Ok(())
    }

    pub(super) fn osdmap(&self) -> &OsdMap {
        self.state.osd.map()
    }
}

impl Session {
    /// Who may hear of what, as in Ceph.
    fn may_subscribe(&self, what: &str) -> bool {
        let may_read = self.caps.may_read("mon");
        match what {
            "monmap" | "config" => true,
            "osdmap" => may_read && self.caps.may_read("osd"),
            "mgrdigest" => may_read && self.name().type_ == EntityType::MGR,
            _ => may_read,
        }
    }
}
