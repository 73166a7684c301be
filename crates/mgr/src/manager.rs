//! The manager's core: sessions, reports and what goes to the monitor. Sans-I/O.
//!
//! Methods: inputs are `handle_*` and [`Manager::tick`]; outputs wait in [`Manager::poll_output`].
//! Drain the outputs after every input.
//!
//! Invariants: a daemon's report counts only when its session proved to be that daemon; a command is
//! answered only within the capabilities of the session's ticket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::AuthenticatedPeer;
use spirula_auth::caps::{CommandAccess, MgrCap};
use spirula_maps::OsdMap;
use spirula_wire::msg::command::{Command, CommandReply, Ping};
use spirula_wire::msg::mgr::{
    MgrBeacon, MgrClose, MgrCommand, MgrCommandReply, MgrConfigure, MgrOpen, MgrReport,
    MonMgrReport,
};
use spirula_wire::msg::osd::{PgStats, PgStatsAck};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddrVec, EntityNameStr, EntityType, Uuid};
use spirula_wire::{DecodeError, Encode as _, Features, Message, RawMessage};

use crate::admin::{self, Options, Status};
use crate::command;
use crate::daemons::Daemons;
use crate::digest;
use crate::health;
use crate::pgmap::PgMap;

/// How often daemons report (`mgr_stats_period`).
pub const STATS_PERIOD: Duration = Duration::from_secs(5);
/// How often the monitor hears from us (`mgr_tick_period`).
pub const TICK_PERIOD: Duration = Duration::from_secs(2);
/// Sessions at most; a client that finds the manager full is hung up on.
const SESSIONS_MAX: usize = 10_000;

/// Who this manager is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub fsid: Uuid,
    pub gid: u64,
    pub addrs: EntityAddrVec,
    pub metadata: BTreeMap<String, String>,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Output {
    /// To the session of this id.
    Send(u64, RawMessage),
    Close(u64),
    ToMon(RawMessage),
    /// A command for the monitor; its answer goes to [`Manager::handle_mon_reply`] with this number.
    AskMon(u64, String),
    /// Carry out this log command, then send the reply to the session.
    Log(String, u64, RawMessage),
    /// The log may have to follow other debug levels.
    OptionsChanged,
}

#[derive(Debug)]
struct SessionState {
    auth: Option<AuthenticatedPeer>,
    features: Features,
}

impl SessionState {
    fn may(&self, asked: &command::Asked<'_>) -> bool {
        let Some(peer) = &self.auth else {
            return false;
        };
        MgrCap::of_peer(peer).is_capable(&CommandAccess {
            name: &peer.name,
            service: asked.service,
            module: asked.module,
            command: asked.prefix,
            args: asked.args,
            need: asked.need,
            // A grant with a `network` is for nobody: Ceph's managers do not look where a session
            // comes from.
            addr: None,
        })
    }
}

#[derive(Debug)]
pub struct Manager {
    identity: Identity,
    pgmap: PgMap,
    osdmap: Option<Arc<OsdMap>>,
    mgrmap_epoch: u32,
    options: Options,
    /// What daemons say of their options; our own are among them.
    daemons: Daemons,
    sessions: BTreeMap<u64, SessionState>,
    /// States of all PGs at the last report: a change is reported at once.
    reported_states: BTreeMap<u64, i32>,
    /// Sessions that wait for the monitor's answer, with the numbers and kinds of their requests.
    waiting: BTreeMap<u64, Waiting>,
    next_question: u64,
    outputs: VecDeque<Output>,
}

/// Whom an answer of the monitor is for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    session: u64,
    tid: u64,
    /// A `tell`, which is answered by another message.
    is_tell: bool,
}

impl Manager {
    pub fn new(identity: Identity) -> Self {
        let mut manager = Self {
            identity,
            pgmap: PgMap::default(),
            osdmap: None,
            mgrmap_epoch: 0,
            options: Options::default(),
            daemons: Daemons::default(),
            sessions: BTreeMap::new(),
            reported_states: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_question: 0,
            outputs: VecDeque::new(),
        };
        manager.note_options();
        manager
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The monitor knows us by this number.
    pub fn set_gid(&mut self, gid: u64) {
        self.identity.gid = gid;
        self.beacon();
    }

    pub fn pgmap(&self) -> &PgMap {
        &self.pgmap
    }

    pub fn handle_ready(
        &mut self,
        session: u64,
        auth: Option<AuthenticatedPeer>,
        features: Features,
    ) {
        if self.sessions.len() >= SESSIONS_MAX {
            self.outputs.push_back(Output::Close(session));
            return;
        }
        self.sessions.insert(session, SessionState { auth, features });
    }

    pub fn handle_closed(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.waiting.retain(|_, waiting| waiting.session != session);
    }

    /// A newer OSDMap: PGs and OSDs come and go with it.
    pub fn handle_osdmap(&mut self, map: Arc<OsdMap>, now: Duration) {
        self.pgmap.handle_map(&map, now);
        self.daemons.keep_osds(|osd| map.exists(osd));
        let was_first = self.osdmap.replace(map).is_none();
        if was_first {
            self.beacon();
        }
        self.report_if_changed();
    }

    pub fn handle_mgrmap(&mut self, epoch: u32) {
        self.mgrmap_epoch = epoch;
    }

    /// Our options as the monitor has them.
    pub fn handle_config(&mut self, options: BTreeMap<String, String>) {
        self.options.set_mon(options);
        self.options_changed();
    }

    /// A command of the admin socket, from whoever may open the socket's file.
    pub fn handle_admin(&mut self, json: &str) -> CommandReply {
        let status = Status {
            gid: self.identity.gid,
            addr: self.identity.addrs.front(),
            mgrmap_epoch: self.mgrmap_epoch,
            osd_epoch: self.osdmap.as_ref().map_or(0, |map| map.epoch),
        };
        let before = self.options.report().config;
        let reply = admin::answer(&mut self.options, &status, json);
        if self.options.report().config != before {
            self.options_changed();
        }
        reply
    }

    fn options_changed(&mut self) {
        self.note_options();
        self.outputs.push_back(Output::OptionsChanged);
    }

    fn note_options(&mut self) {
        self.daemons.set(format!("mgr.{}", self.identity.name), self.options.report());
    }

    /// A message from a daemon or a client; an error means that the session should be closed.
    pub fn handle_message(
        &mut self,
        session: u64,
        raw: &RawMessage,
        now: Duration,
    ) -> Result<(), DecodeError> {
        match raw.header.type_ {
            types::MGR_OPEN => self.handle_open(session, raw),
            types::PG_STATS => self.handle_pg_stats(session, raw, now),
            types::MGR_REPORT => self.handle_report(session, raw),
            types::MGR_CLOSE => self.handle_close(session, raw),
            types::MGR_COMMAND => self.handle_command(session, raw),
            types::COMMAND => self.handle_tell(session, raw),
            types::PING => {
                self.send(session, &Ping::default(), raw.header.tid);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Call it every [`TICK_PERIOD`].
    pub fn tick(&mut self, now: Duration) {
        self.pgmap.sample(now);
        self.beacon();
        self.report();
    }

    fn handle_open(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let open = MgrOpen::from_raw(raw)?;
        if let Some(name) = self.daemon_of(session).cloned() {
            self.daemons.opened(&name, &open.config, &open.config_defaults)?;
        }
        let configure =
            MgrConfigure { stats_period: STATS_PERIOD.as_secs() as u32, ..MgrConfigure::default() };
        self.send(session, &configure, 0);
        Ok(())
    }

    fn handle_report(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let report = MgrReport::from_raw(raw)?;
        let Some(name) = self.daemon_of(session).cloned() else { return Ok(()) };
        self.daemons.reported(&name, &report.config)
    }

    fn handle_close(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let close = MgrClose::from_raw(raw)?;
        self.send(session, &close, 0);
        Ok(())
    }

    fn handle_pg_stats(
        &mut self,
        session: u64,
        raw: &RawMessage,
        now: Duration,
    ) -> Result<(), DecodeError> {
        let report = PgStats::from_raw(raw)?;
        let Some(osd) = self.osd_of(session) else { return Ok(()) };
        let acked = report.pg_stat.iter().map(|(pg, s)| (*pg, (s.reported_seq, s.reported_epoch)));
        let ack = PgStatsAck { pg_stat: acked.collect() };
        let is_in = self.osdmap.as_ref().is_none_or(|map| map.is_in(osd));
        self.pgmap.handle_report(osd, is_in, report, now);
        self.send(session, &ack, raw.header.tid);
        self.report_if_changed();
        Ok(())
    }

    /// The daemon that the session proved to be.
    fn daemon_of(&self, session: u64) -> Option<&EntityNameStr> {
        let name = &self.sessions.get(&session)?.auth.as_ref()?.name;
        (name.type_ != EntityType::CLIENT).then_some(name)
    }

    /// The OSD that the session proved to be.
    fn osd_of(&self, session: u64) -> Option<i32> {
        let name = &self.sessions.get(&session)?.auth.as_ref()?.name;
        (name.type_ == EntityType::OSD).then(|| name.id.parse().ok()).flatten()
    }

    fn handle_command(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let command = MgrCommand::from_raw(raw)?;
        let asker = Waiting { session, tid: raw.header.tid, is_tell: false };
        self.answer(asker, &command.cmd);
        Ok(())
    }

    /// `ceph tell mgr.x`: about this daemon. Without a cluster's id it is a command to the cluster,
    /// as clients before Ceph 15 send it.
    fn handle_tell(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let command = Command::from_raw(raw)?;
        let reply = if command.fsid == Uuid::default() {
            self.answer(Waiting { session, tid: raw.header.tid, is_tell: true }, &command.cmd);
            return Ok(());
        } else if !self.may_do_all(session) {
            command::access_denied()
        } else {
            let json = command.cmd.concat();
            let reply = self.handle_admin(&json);
            if let Some(prefix) = admin::log_command(&json) {
                let features = self.features_of(session);
                let reply = reply.to_raw(raw.header.tid, features);
                self.outputs.push_back(Output::Log(prefix, session, reply));
                return Ok(());
            }
            reply
        };
        self.send(session, &reply, raw.header.tid);
        Ok(())
    }

    fn may_do_all(&self, session: u64) -> bool {
        let auth = self.sessions.get(&session).and_then(|s| s.auth.as_ref());
        auth.is_some_and(|peer| MgrCap::of_peer(peer).is_allow_all())
    }

    fn features_of(&self, session: u64) -> Features {
        self.sessions.get(&session).map_or(Features::PACIFIC, |s| s.features)
    }

    /// Carries out a command, and answers it or has the monitor do so.
    fn answer(&mut self, asker: Waiting, cmd: &[String]) {
        let answered = self.carry_out(asker.session, cmd);
        for (osd, message) in answered.to_osds {
            let sessions: Vec<u64> = self.osd_sessions(osd).collect();
            let sends = sessions.into_iter().map(|id| Output::Send(id, message.clone()));
            self.outputs.extend(sends);
        }
        match answered.to_mon {
            None => self.reply(asker, answered.reply),
            Some(command) => {
                self.next_question += 1;
                self.waiting.insert(self.next_question, asker);
                self.outputs.push_back(Output::AskMon(self.next_question, command));
            }
        }
    }

    /// The monitor's answer to a question.
    pub fn handle_mon_reply(&mut self, question: u64, reply: MgrCommandReply) {
        if let Some(asker) = self.waiting.remove(&question) {
            self.reply(asker, reply);
        }
    }

    fn reply(&mut self, asker: Waiting, reply: MgrCommandReply) {
        if asker.is_tell {
            let MgrCommandReply { r, rs, outbl } = reply;
            self.send(asker.session, &CommandReply { r, rs, outbl }, asker.tid);
        } else {
            self.send(asker.session, &reply, asker.tid);
        }
    }

    fn osd_sessions(&self, osd: i32) -> impl Iterator<Item = u64> {
        self.sessions.keys().copied().filter(move |id| self.osd_of(*id) == Some(osd))
    }

    fn carry_out(&self, session: u64, cmd: &[String]) -> command::Answered {
        let connected: BTreeSet<i32> =
            self.sessions.keys().filter_map(|id| self.osd_of(*id)).collect();
        let session = self.sessions.get(&session);
        let empty = OsdMap::default();
        let osdmap = self.osdmap.as_deref().unwrap_or(&empty);
        let view = command::View {
            pgmap: &self.pgmap,
            osdmap,
            daemons: &self.daemons,
            stuck: self.options.thresholds().stuck,
            fsid: self.identity.fsid,
            connected: &connected,
        };
        command::answer(cmd, view, |asked| session.is_some_and(|session| session.may(asked)))
    }

    fn send(&mut self, session: u64, message: &impl Message, tid: u64) {
        if let Some(state) = self.sessions.get(&session) {
            self.outputs.push_back(Output::Send(session, message.to_raw(tid, state.features)));
        }
    }

    /// Says to the monitor that we live.
    fn beacon(&mut self) {
        if self.identity.gid == 0 {
            return;
        }
        let beacon = MgrBeacon {
            server_addrs: self.identity.addrs.clone(),
            gid: self.identity.gid,
            available: self.osdmap.is_some(),
            name: self.identity.name.clone(),
            fsid: self.identity.fsid,
            module_names: BTreeSet::new(),
            command_descs: command::descriptions(),
            metadata: self.identity.metadata.clone(),
            mgr_features: Features::PACIFIC.0,
            ..MgrBeacon::default()
        };
        self.outputs.push_back(Output::ToMon(beacon.to_raw(0, Features::PACIFIC)));
    }

    /// Users wait for "active+clean": a changed state does not wait for the tick.
    fn report_if_changed(&mut self) {
        if self.pgmap.states() != self.reported_states {
            self.report();
        }
    }

    fn report(&mut self) {
        let Some(osdmap) = &self.osdmap else { return };
        self.reported_states = self.pgmap.states();
        let digest = digest::of(&self.pgmap, osdmap);
        let report = MonMgrReport {
            health_checks: health::of(&self.pgmap, osdmap, self.options.thresholds()),
            service_map: empty_service_map(self.pgmap.stamp),
            gid: self.identity.gid,
            digest: Bytes::from(digest.to_bytes(Features::PACIFIC)),
            ..MonMgrReport::default()
        };
        self.outputs.push_back(Output::ToMon(report.to_raw(0, Features::PACIFIC)));
    }
}

/// A ServiceMap without services: epoch, time and an empty map (Ceph's `mgr/ServiceMap.cc`).
fn empty_service_map(now: Duration) -> Bytes {
    let f = Features::PACIFIC;
    let mut out = Vec::new();
    spirula_wire::denc::encode_versioned(&mut out, 2, 1, |out| {
        1u32.encode(out, f);
        spirula_wire::types::UTime::from(now).encode(out, f);
        0u32.encode(out, f);
    });
    out.into()
}

#[cfg(test)]
mod tests {
    use spirula_wire::Decode as _;
    use spirula_wire::msg::mgr::{DaemonConfig, config_level};

    use super::*;

    const F: Features = Features::PACIFIC;

    fn manager() -> Manager {
        Manager::new(Identity {
            name: "x".into(),
            fsid: Uuid([7; 16]),
            gid: 4100,
            addrs: EntityAddrVec::default(),
            metadata: BTreeMap::new(),
        })
    }

    /// A session of this name and these capabilities.
    fn open(manager: &mut Manager, id: u64, name: &str, caps: &str) {
        let auth = AuthenticatedPeer {
            name: name.parse().unwrap(),
            global_id: id,
            caps: caps.into(),
            allow_all: false,
            expires: Duration::MAX,
            server_challenge: 0,
        };
        manager.handle_ready(id, Some(auth), F);
    }

    fn tell(manager: &mut Manager, id: u64, fsid: Uuid, json: &str) -> Output {
        let command = Command { fsid, cmd: vec![json.into()], ..Command::default() };
        manager.handle_message(id, &command.to_raw(9, F), Duration::ZERO).unwrap();
        manager.poll_output().unwrap()
    }

    fn reply_of(output: Output) -> (i32, String) {
        let Output::Send(_, raw) = output else { panic!("{output:?}") };
        let reply = CommandReply::from_raw(&raw).unwrap();
        (reply.r, String::from_utf8_lossy(&reply.outbl).into_owned())
    }

    #[test]
    fn tell_is_about_the_manager_and_for_those_who_may_do_all() {
        let (mut manager, fsid) = (manager(), Uuid([7; 16]));
        open(&mut manager, 1, "client.admin", "allow *");
        open(&mut manager, 2, "client.weak", "allow rw");
        let status = r#"{"prefix":"mgr_status","format":"json"}"#;
        manager.handle_mgrmap(3);
        let want = r#"{"mgrmap_epoch":3,"initialized":true}"#;
        assert_eq!(reply_of(tell(&mut manager, 1, fsid, status)), (0, want.into()));
        assert_eq!(reply_of(tell(&mut manager, 2, fsid, status)).0, -13);
        let stat = r#"{"prefix":"pg stat"}"#;
        assert_eq!(reply_of(tell(&mut manager, 1, fsid, stat)).0, -22);
        assert_eq!(reply_of(tell(&mut manager, 2, Uuid::default(), stat)).0, 0);
    }

    /// As measured with 16.2.15.
    #[test]
    fn a_grant_with_a_network_is_for_nobody() {
        let mut manager = manager();
        let stat = r#"{"prefix":"pg stat"}"#;
        for (id, caps, code) in [
            (1, "allow r network 127.0.0.0/8", -13),
            (2, "allow * network 0.0.0.0/0", -13),
            (3, "allow r network ::/0", -13),
            (4, r#"allow command "pg stat" network 127.0.0.0/8"#, -13),
            (5, "allow r network 127.0.0.0/8, allow r", 0),
        ] {
            open(&mut manager, id, "client.n", caps);
            let got = reply_of(tell(&mut manager, id, Uuid::default(), stat)).0;
            assert_eq!(got, code, "{caps}");
        }
    }

    #[test]
    fn log_commands_are_answered_when_done() {
        let (mut manager, fsid) = (manager(), Uuid([7; 16]));
        open(&mut manager, 1, "client.admin", "allow *");
        open(&mut manager, 2, "client.weak", "allow rw");
        let flush = r#"{"prefix":"log flush"}"#;
        let output = tell(&mut manager, 1, fsid, flush);
        let Output::Log(prefix, 1, reply) = output else { panic!("{output:?}") };
        assert_eq!((prefix.as_str(), reply.header.tid), ("log flush", 9));
        assert_eq!(reply_of(tell(&mut manager, 2, fsid, flush)).0, -13);
    }

    #[test]
    fn the_log_is_told_of_other_options() {
        let mut manager = manager();
        manager.handle_config([("debug_mgr".to_owned(), "4/5".to_owned())].into());
        assert!(matches!(manager.poll_output(), Some(Output::OptionsChanged)));
        for (command, changes) in [
            (r#"{"prefix":"config get","var":"debug_mgr"}"#, false),
            (r#"{"prefix":"config set","var":"debug_mgr","val":["20"]}"#, true),
        ] {
            assert_eq!(manager.handle_admin(command).r, 0, "{command}");
            let told = matches!(manager.poll_output(), Some(Output::OptionsChanged));
            assert_eq!(told, changes, "{command}");
        }
    }

    #[test]
    fn options_are_those_of_the_daemon_s_last_report() {
        let mut manager = manager();
        open(&mut manager, 1, "osd.0", "allow *");
        open(&mut manager, 2, "client.liar", "allow *");
        let config = |value: &str| DaemonConfig {
            values: [("o".to_owned(), [(config_level::MON, value.to_owned())].into())].into(),
            ..DaemonConfig::default()
        };
        let defaults = BTreeMap::from([("o".to_owned(), "1".to_owned())]);
        let mut opened = |id, value: &str| {
            let open = MgrOpen {
                daemon_name: "0".into(),
                config: config(value).to_bytes(F).into(),
                config_defaults: defaults.to_bytes(F).into(),
                ..MgrOpen::default()
            };
            manager.handle_message(id, &open.to_raw(0, F), Duration::ZERO).unwrap();
        };
        opened(1, "2");
        opened(2, "3");
        let of_osd = |m: &Manager| m.daemons.get("osd.0").unwrap().config.clone();
        assert_eq!(of_osd(&manager), config("2"));
        let report = |config: Bytes| MgrReport { config, ..MgrReport::default() }.to_raw(0, F);
        let now = Duration::ZERO;
        manager.handle_message(1, &report(config("4").to_bytes(F).into()), now).unwrap();
        manager.handle_message(1, &report(Bytes::new()), now).unwrap();
        assert_eq!(of_osd(&manager), config("4"));
        assert!(manager.handle_message(1, &report("junk".into()), now).is_err());
        assert_eq!(of_osd(&manager), config("4"));
        assert_eq!(manager.daemons.get("osd.0").unwrap().defaults.len(), 1);
        assert!(manager.daemons.get("client.liar").is_none());
        assert!(BTreeMap::<String, String>::from_bytes(b"junk").is_err());
        manager.handle_osdmap(Arc::new(OsdMap::default()), now);
        assert!(manager.daemons.get("osd.0").is_none(), "a removed OSD is forgotten");
        assert!(manager.daemons.get("mgr.x").is_some());
    }
}
