//! The watches that this target serves and the notifies under way, as a state machine: events and the
//! time come in, messages and time-outs go out.
//!
//! A watch that pings dies `timeout` after its last ping, connected or not; one that does not, `timeout`
//! after its session ended. A dead watch stays until a transaction has taken it out of the object's info.
//! A notify ends when each of its watches has acknowledged it or is gone, or at its own time-out.
//!
//! Invariant: an object is in the table with all its watches or not at all.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use spirula_wire::msg::osd::{WatchNotify, watch_event};
use spirula_wire::types::{EntityAddr, EntityName, PgId};
use spirula_wire::{Encode, Features};

use super::{WatchInfo, WatchKey, Watchers};
use crate::errno::ETIMEDOUT;

#[cfg(test)]
mod tests;

/// A client's session, by number.
pub type LinkId = u64;

/// An object: its PG and its key there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub pgid: PgId,
    pub object: Bytes,
}

/// What has to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send {
        link: LinkId,
        message: WatchNotify,
    },
    /// The watch is dead: take it out of the object's info, then [`WatchTable::remove`] it.
    Bury {
        place: Place,
        key: WatchKey,
    },
}

/// A notify as it begins.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Notice {
    pub id: u64,
    /// The notifier's session, global id and cookie.
    pub link: LinkId,
    pub gid: u64,
    pub cookie: u64,
    /// User version of the object.
    pub version: u64,
    pub timeout_seconds: u32,
    pub payload: Bytes,
}

/// All watches and notifies of a target.
#[derive(Debug, Default)]
pub struct WatchTable {
    objects: BTreeMap<Place, BTreeMap<WatchKey, Watch>>,
    notifies: BTreeMap<u64, Notify>,
    links: BTreeMap<LinkId, BTreeSet<(Place, WatchKey)>>,
    timers: BTreeSet<(Duration, Timer)>,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Watch {
    info: WatchInfo,
    link: Option<LinkId>,
    pings: bool,
    last_ping: Duration,
    deadline: Option<Duration>,
    dead: bool,
    /// Notifies that it has not acknowledged.
    notifies: BTreeSet<u64>,
}

#[derive(Debug)]
struct Notify {
    notice: Notice,
    place: Place,
    deadline: Duration,
    waiting: BTreeSet<WatchKey>,
    /// By global id and cookie of the watch.
    replies: BTreeMap<(u64, u64), Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Watch(Place, WatchKey),
    Notify(u64),
}

impl Watch {
    fn new(info: WatchInfo) -> Self {
        Self {
            info,
            link: None,
            pings: false,
            last_ping: Duration::ZERO,
            deadline: None,
            dead: false,
            notifies: BTreeSet::new(),
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.info.timeout_seconds.into())
    }
}

/// Questions.
impl WatchTable {
    pub fn knows(&self, place: &Place) -> bool {
        self.objects.contains_key(place)
    }

    /// Watches of an object that have a connection, in order.
    pub fn connected(&self, place: &Place) -> Vec<WatchKey> {
        let watches = self.objects.get(place).into_iter().flatten();
        watches.filter(|(_, watch)| watch.link.is_some()).map(|(key, _)| *key).collect()
    }

    /// Whether a watch is still to be buried: its client may have come back.
    pub fn is_dead(&self, place: &Place, key: &WatchKey) -> bool {
        self.objects.get(place).and_then(|watches| watches.get(key)).is_some_and(|w| w.dead)
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Every watch, by object.
    pub fn all(&self) -> impl Iterator<Item = (&Place, &WatchKey, &WatchInfo)> {
        self.objects.iter().flat_map(|(place, watches)| {
            watches.iter().map(move |(key, watch)| (place, key, &watch.info))
        })
    }

    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

/// Events.
impl WatchTable {
    /// A request met an object with these watches. The first time, their clients have to come back.
    pub fn meet(&mut self, now: Duration, place: &Place, watchers: &Watchers) {
        if watchers.is_empty() || self.knows(place) {
            return;
        }
        let unconnected = watchers.iter().map(|(key, info)| (*key, Watch::new(*info)));
        self.objects.insert(place.clone(), unconnected.collect());
        watchers.keys().for_each(|key| self.arm(now, place, key));
    }

    /// A watch is served by the session `link` from now on.
    pub fn connect(
        &mut self,
        now: Duration,
        place: &Place,
        (key, info): (WatchKey, WatchInfo),
        link: LinkId,
        pings: bool,
    ) {
        let watches = self.objects.entry(place.clone()).or_default();
        let watch = watches.entry(key).or_insert_with(|| Watch::new(info));
        if watch.link == Some(link) {
            return;
        }
        let before = watch.link.replace(link);
        watch.pings = pings;
        watch.last_ping = now;
        watch.dead = false;
        let unacknowledged: Vec<u64> = watch.notifies.iter().copied().collect();
        self.unlink(before, place, &key);
        self.links.entry(link).or_default().insert((place.clone(), key));
        for id in unacknowledged {
            self.send_notify(id, &key, link);
        }
        if pings { self.arm(now, place, &key) } else { self.disarm(place, &key) }
    }

    pub fn ping(&mut self, now: Duration, place: &Place, key: &WatchKey) {
        let Some(watch) = find(&mut self.objects, place, key) else {
            return;
        };
        watch.last_ping = now;
        if watch.link.is_some() {
            self.arm(now, place, key);
        }
    }

    /// A watch is no longer in the object's info. Notifies do not wait for it any more.
    pub fn remove(&mut self, place: &Place, key: &WatchKey, tell: bool) {
        self.disarm(place, key);
        let Entry::Occupied(mut watches) = self.objects.entry(place.clone()) else {
            return;
        };
        let Some(watch) = watches.get_mut().remove(key) else {
            return;
        };
        if watches.get().is_empty() {
            watches.remove();
        }
        self.unlink(watch.link, place, key);
        if let Some(link) = watch.link
            && tell
        {
            self.send(link, WatchNotify { cookie: key.cookie, ..event(watch_event::DISCONNECT) });
        }
        for id in watch.notifies {
            self.answered(id, key, None);
        }
    }

    /// A dead watch could not be buried: it is tried again after its time-out.
    pub fn keep(&mut self, now: Duration, place: &Place, key: &WatchKey) {
        self.arm(now, place, key);
    }

    /// Tells all watches of the object.
    pub fn notify(&mut self, now: Duration, place: &Place, notice: Notice) {
        let (id, mut waiting) = (notice.id, BTreeSet::new());
        let mut connected = Vec::new();
        for (key, watch) in self.objects.get_mut(place).into_iter().flatten() {
            // Dead for a while: waiting for it would only hold up the notifier.
            if watch.pings && watch.last_ping + watch.timeout() < now {
                let link = watch.link.take();
                unlink(&mut self.links, link, place, key);
                continue;
            }
            watch.notifies.insert(id);
            waiting.insert(*key);
            connected.extend(watch.link.map(|link| (*key, link)));
        }
        let deadline = now + Duration::from_secs(notice.timeout_seconds.into());
        let done = waiting.is_empty();
        let place = place.clone();
        let notify = Notify { notice, place, deadline, waiting, replies: BTreeMap::new() };
        self.notifies.insert(id, notify);
        for (key, link) in connected {
            self.send_notify(id, &key, link);
        }
        if done {
            self.complete(id, 0);
        } else {
            self.timers.insert((deadline, Timer::Notify(id)));
        }
    }

    /// `entity` has got a notify, by its watch with this cookie or by any.
    pub fn acknowledge(
        &mut self,
        place: &Place,
        entity: EntityName,
        id: u64,
        cookie: Option<u64>,
        reply: &Bytes,
    ) {
        let meant = |key: &WatchKey| key.entity == entity && cookie.is_none_or(|c| c == key.cookie);
        let mut got = Vec::new();
        for (key, watch) in self.objects.get_mut(place).into_iter().flatten() {
            if meant(key) && watch.notifies.remove(&id) {
                got.push(*key);
            }
        }
        got.iter().for_each(|key| self.answered(id, key, Some(reply)));
    }

    /// A session ended. Its watches wait for their client to come back.
    pub fn disconnected(&mut self, now: Duration, link: LinkId) {
        for (place, key) in self.links.remove(&link).unwrap_or_default() {
            let Some(watch) = find(&mut self.objects, &place, &key) else {
                continue;
            };
            watch.link = None;
            if !watch.pings {
                self.arm(now, &place, &key);
            }
        }
    }

    /// The PG is somebody else's: nobody is told, clients ask its new primary.
    pub fn discard(&mut self, pgid: PgId) {
        let first = Place { pgid, object: Bytes::new() };
        let here = self.objects.range(&first..).take_while(|(place, _)| place.pgid == pgid);
        let places: Vec<Place> = here.map(|(place, _)| place.clone()).collect();
        for place in places {
            let watches = self.objects.remove(&place).unwrap_or_default();
            for (key, watch) in watches {
                self.unlink(watch.link, &place, &key);
                let timer = Timer::Watch(place.clone(), key);
                watch.deadline.map(|deadline| self.timers.remove(&(deadline, timer)));
                for id in watch.notifies {
                    if let Some(notify) = self.notifies.remove(&id) {
                        self.timers.remove(&(notify.deadline, Timer::Notify(id)));
                    }
                }
            }
        }
    }

    /// Watches from addresses that may not be here any more die at once.
    pub fn expel(&mut self, is_blocklisted: impl Fn(&EntityAddr) -> bool) {
        let gone = self.all().filter(|(_, _, info)| is_blocklisted(&info.addr));
        let gone: Vec<_> = gone.map(|(place, key, _)| (place.clone(), *key)).collect();
        for (place, key) in gone {
            self.disarm(&place, &key);
            self.die(place, key);
        }
    }

    /// Everything whose time is over.
    pub fn expire(&mut self, now: Duration) {
        while let Some((deadline, _)) = self.timers.first()
            && *deadline <= now
        {
            match self.timers.pop_first() {
                Some((_, Timer::Watch(place, key))) => {
                    if let Some(watch) = find(&mut self.objects, &place, &key) {
                        watch.deadline = None;
                    }
                    self.die(place, key);
                }
                Some((_, Timer::Notify(id))) => self.complete(id, -ETIMEDOUT),
                None => {}
            }
        }
    }
}

impl WatchTable {
    fn die(&mut self, place: Place, key: WatchKey) {
        if let Some(watch) = find(&mut self.objects, &place, &key)
            && !watch.dead
        {
            watch.dead = true;
            self.actions.push(Action::Bury { place, key });
        }
    }

    /// The time-out of a watch begins anew.
    fn arm(&mut self, now: Duration, place: &Place, key: &WatchKey) {
        self.disarm(place, key);
        if let Some(watch) = find(&mut self.objects, place, key) {
            let deadline = now + watch.timeout();
            watch.deadline = Some(deadline);
            watch.dead = false;
            self.timers.insert((deadline, Timer::Watch(place.clone(), *key)));
        }
    }

    fn disarm(&mut self, place: &Place, key: &WatchKey) {
        let watch = find(&mut self.objects, place, key);
        if let Some(deadline) = watch.and_then(|watch| watch.deadline.take()) {
            self.timers.remove(&(deadline, Timer::Watch(place.clone(), *key)));
        }
    }

    fn unlink(&mut self, link: Option<LinkId>, place: &Place, key: &WatchKey) {
        unlink(&mut self.links, link, place, key);
    }

    fn send(&mut self, link: LinkId, message: WatchNotify) {
        self.actions.push(Action::Send { link, message });
    }

    fn send_notify(&mut self, id: u64, key: &WatchKey, link: LinkId) {
        let Some(Notify { notice, .. }) = self.notifies.get(&id) else {
            return;
        };
        let message = WatchNotify {
            cookie: key.cookie,
            ver: notice.version,
            notify_id: id,
            payload: notice.payload.clone(),
            notifier_gid: notice.gid,
            ..event(watch_event::NOTIFY)
        };
        self.send(link, message);
    }

    /// A notify does not wait for this watch any more.
    fn answered(&mut self, id: u64, key: &WatchKey, reply: Option<&Bytes>) {
        let Some(notify) = self.notifies.get_mut(&id) else {
            return;
        };
        notify.waiting.remove(key);
        if let Some(reply) = reply {
            notify.replies.insert(gid_and_cookie(key), reply.clone());
        }
        if notify.waiting.is_empty() {
            self.complete(id, 0);
        }
    }

    fn complete(&mut self, id: u64, return_code: i32) {
        let Some(Notify { notice, place, deadline, waiting, replies }) = self.notifies.remove(&id)
        else {
            return;
        };
        self.timers.remove(&(deadline, Timer::Notify(id)));
        for key in &waiting {
            if let Some(watch) = find(&mut self.objects, &place, key) {
                watch.notifies.remove(&id);
            }
        }
        let missed: Vec<_> = waiting.iter().map(gid_and_cookie).collect();
        let mut acks = replies.to_bytes(Features::PACIFIC);
        missed.encode(&mut acks, Features::PACIFIC);
        let message = WatchNotify {
            cookie: notice.cookie,
            ver: notice.version,
            notify_id: id,
            return_code,
            notifier_gid: notice.gid,
            acks: acks.into(),
            ..event(watch_event::NOTIFY_COMPLETE)
        };
        self.send(notice.link, message);
    }
}

fn event(opcode: u8) -> WatchNotify {
    WatchNotify { payload_version: 1, opcode, ..WatchNotify::default() }
}

fn gid_and_cookie(key: &WatchKey) -> (u64, u64) {
    (key.entity.num as u64, key.cookie)
}

fn find<'a>(
    objects: &'a mut BTreeMap<Place, BTreeMap<WatchKey, Watch>>,
    place: &Place,
    key: &WatchKey,
) -> Option<&'a mut Watch> {
    objects.get_mut(place)?.get_mut(key)
}

fn unlink(
    links: &mut BTreeMap<LinkId, BTreeSet<(Place, WatchKey)>>,
    link: Option<LinkId>,
    place: &Place,
    key: &WatchKey,
) {
    let Some(link) = link else {
        return;
    };
    if let Some(watches) = links.get_mut(&link) {
        watches.remove(&(place.clone(), *key));
        if watches.is_empty() {
            links.remove(&link);
        }
    }
}
