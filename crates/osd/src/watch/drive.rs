//! Carries out what the [`WatchTable`] decides: messages to sessions, its timer, and the transactions
//! that take dead watches out of object infos.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::select;
use spirula_maps::OsdMap;
use spirula_vos::{ObjectKey, ReadError, StageError, Tx, Vos};
use spirula_wire::Message;
use spirula_wire::types::{EntityName, PgId, RequestId, UTime};
use spirula_xstream::sync::Notify;
use spirula_xstream::{Class, now, sleep_until, wall_now};

use super::table::{Action, LinkId, Notice, Place, WatchTable};
use super::{WatchEffect, WatchKey};
use crate::apply::{DataCrcs, apply_effects};
use crate::front::OpRequest;
use crate::load::{LoadedData, Need, StoreView};
use crate::object::ObjectInfo;
use crate::pg::Pg;
use crate::pg::locks::Mode;
use crate::pg::log::wire::entry_object;
use crate::pg::log::{DupRecord, EntryKind, LogEntry};
use crate::scrub::wait_for;
use crate::session::Session;
use crate::shard::recover;
use crate::shard::submit::{NotSubmitted, Submitted, submit};
use crate::target::{Target, TargetError};
use crate::view::{Fault, ObjectView};

/// A target's watches, and the sessions that they are on.
#[derive(Default)]
pub struct Watching {
    table: RefCell<WatchTable>,
    sessions: RefCell<BTreeMap<LinkId, Rc<Session>>>,
    notifies: Cell<u32>,
    /// The next deadline may have changed.
    rearmed: Notify,
}

impl Watching {
    pub fn opened(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().insert(session.link.id(), session.clone());
    }

    pub fn closed(&self, target: &Target, session: &Session) {
        let link = session.link.id();
        self.sessions.borrow_mut().remove(&link);
        self.change(target, |table| table.disconnected(now(), link));
    }

    /// The id of a notify; `count` of them are taken.
    pub fn take_notify_ids(&self, map_epoch: u32, count: usize) -> u64 {
        let first = self.notifies.get();
        self.notifies.set(first.wrapping_add(count as u32));
        u64::from(map_epoch) << 32 | u64::from(first)
    }

    pub fn with<R>(&self, f: impl FnOnce(&WatchTable) -> R) -> R {
        f(&self.table.borrow())
    }

    /// The PG is no longer ours.
    pub fn left(&self, target: &Target, pgid: PgId) {
        self.change(target, |table| table.discard(pgid));
    }

    /// Clients that a new map blocklists lose their watches.
    pub fn follow(&self, target: &Target, map: &OsdMap) {
        if map.has_bans() {
            let wall = UTime::from(wall_now());
            self.change(target, |table| table.expel(|addr| map.is_blocklisted(addr, wall)));
        }
    }

    /// A request has read this info.
    pub fn met(&self, target: &Target, place: &Place, info: &ObjectInfo) {
        if info.watchers.is_empty() || self.table.borrow().knows(place) {
            return;
        }
        self.change(target, |table| table.meet(now(), place, &info.watchers));
        self.follow(target, &target.map());
    }

    /// A request is published. `version`: the object's for users. What a write has to tell its own client
    /// follows its reply, what a read has to tell comes before.
    pub fn apply(
        &self,
        target: &Target,
        place: &Place,
        request: &OpRequest,
        effects: Vec<WatchEffect>,
        version: u64,
    ) {
        let (link, entity) = (request.session.link.id(), request.reqid.name);
        let is_open = self.sessions.borrow().contains_key(&link);
        let writer = request.class.writes.then_some(link);
        self.change_by(target, writer, |table| {
            for effect in effects {
                match effect {
                    WatchEffect::Remove { key, tell } => table.remove(place, &key, tell),
                    WatchEffect::Connect { key, info, pings } => {
                        table.connect(now(), place, (key, info), link, pings);
                    }
                    WatchEffect::Ping(key) => table.ping(now(), place, &key),
                    WatchEffect::Notify { id, cookie, timeout_seconds, payload } => {
                        let gid = entity.num as u64;
                        let notice =
                            Notice { id, link, gid, cookie, version, timeout_seconds, payload };
                        table.notify(now(), place, notice);
                    }
                    WatchEffect::Acknowledge { id, cookie, reply } => {
                        table.acknowledge(place, entity, id, cookie, &reply);
                    }
                }
            }
            if !is_open {
                // It ended before its request was done.
                table.disconnected(now(), link);
            }
        });
    }

    /// Tells the table of an event, and does what it asks for.
    fn change(&self, target: &Target, event: impl FnOnce(&mut WatchTable)) {
        self.change_by(target, None, event);
    }

    /// As [`Self::change`]; what is for `writer`, whose reply is about to be sent, goes after that.
    fn change_by(&self, target: &Target, writer: Option<u64>, event: impl FnOnce(&mut WatchTable)) {
        let mut table = self.table.borrow_mut();
        let before = table.next_deadline();
        event(&mut table);
        let (actions, after) = (table.take_actions(), table.next_deadline());
        drop(table);
        if before != after {
            self.rearmed.notify_one();
        }
        for action in actions {
            match action {
                Action::Send { link, message } => {
                    if let Some(session) = self.sessions.borrow().get(&link) {
                        let message = message.to_raw(0, session.features);
                        match writer == Some(link) {
                            true => session.after_reply.borrow_mut().push(message),
                            false => session.link.send(message),
                        }
                    }
                }
                Action::Bury { place, key } => {
                    target.spawn(Class::Client, |target| bury(target, place, key));
                }
            }
        }
    }
}

/// Lets time pass in the table, for ever.
pub async fn run_timer(target: Target) -> Result<(), TargetError> {
    let watching = target.watching();
    loop {
        let next = watching.with(WatchTable::next_deadline);
        let rearmed = pin!(watching.rearmed.notified());
        match next {
            Some(deadline) => {
                select(pin!(sleep_until(deadline)), rearmed).await;
            }
            None => rearmed.await,
        }
        watching.change(&target, |table| table.expire(now()));
    }
}

/// Takes a dead watch out of its object's info, unless its client comes back before that.
async fn bury(target: Target, place: Place, key: WatchKey) -> Result<(), TargetError> {
    let Some(pg) = target.pgs().get(place.pgid) else {
        return Ok(());
    };
    let _held = pg.locks.acquire(place.object.clone(), Mode::Exclusive).await;
    target.store().admit().await;
    let (oid, mut data) = (ObjectKey(place.object.clone()), LoadedData::default());
    let removed = loop {
        if !pg.active.get() || !target.watching().with(|table| table.is_dead(&place, &key)) {
            return Ok(());
        }
        let object = entry_object(pg.pgid.pgid, &oid.0);
        if pg.shard.machine.borrow().holds_up_write(&object).is_some() {
            recover::wait(&target, &pg, &object).await;
            continue;
        }
        if pg.shard.scrub.holds_up(&oid.0) {
            wait_for(&pg, &oid.0).await;
            continue;
        }
        match unwatch(&target, &pg, &oid, &data, &key) {
            Ok(removed) => break removed,
            Err(need) => data.fill(target.store(), need).await?,
        }
    };
    match removed {
        Removed::Refused => {
            target.watching().change(&target, |table| table.keep(now(), &place, &key));
            return Ok(());
        }
        Removed::Absent => {}
        Removed::Submitted(submitted) => submitted.published().await?,
    }
    tracing::info!(cookie = key.cookie, client = %key.entity, "a watch timed out");
    target.watching().change(&target, |table| table.remove(&place, &key, true));
    Ok(())
}

/// What became of a dead watch's record.
enum Removed {
    Submitted(Submitted),
    /// The object has no such record.
    Absent,
    /// The store takes no transactions, as when it is full.
    Refused,
}

/// Logs the change as one of the OSD itself: users see neither a new version nor a new time.
fn unwatch(
    target: &Target,
    pg: &Rc<Pg>,
    oid: &ObjectKey,
    data: &LoadedData,
    key: &WatchKey,
) -> Result<Removed, Need> {
    let store = target.store();
    let view = |vos: &Vos| Ok(StoreView::new(store, vos, pg.cid, oid, data).info());
    let mut info = match store.try_read(view) {
        Ok(Ok(Some(info))) => info,
        Err(ReadError::Missing(pages)) => return Err(Need::Pages(pages)),
        Ok(Err(Fault::Missing(need))) => return Err(need),
        Ok(Ok(None)) => return Ok(Removed::Absent),
        Ok(Err(Fault::Errno(_))) | Err(_) => return Ok(Removed::Refused),
    };
    if info.watchers.remove(key).is_none() {
        return Ok(Removed::Absent);
    }
    let state = pg.state.borrow();
    let version = pg.shard.machine.borrow().next_version();
    let epoch = state.next_epoch(target.wall_nanos());
    // Of its own for each, as every entry of the log can be found by its request.
    let name = EntityName::osd(target.config().osd_id.into());
    let reqid = RequestId { name, tid: version.version, inc: version.epoch as i32 };
    let entry = LogEntry {
        kind: EntryKind::Modify,
        version,
        prior: std::mem::replace(&mut info.version, version),
        mtime: UTime::default(),
        epoch,
        object: oid.0.clone(),
        dup: DupRecord { reqid, version, ..DupRecord::default() },
        stats: state.stats,
        last_user_version: pg.last_versions().1,
    };
    let mut tx = Tx::new(epoch);
    apply_effects(&mut tx, pg.cid, oid, Vec::new(), Some(&info), DataCrcs::default(), false);
    drop(state);
    let object = entry_object(pg.pgid.pgid, &oid.0);
    match submit(target, pg, &mut tx, entry, object) {
        Ok(submitted) => Ok(Removed::Submitted(submitted)),
        Err(NotSubmitted::Refused(StageError::Missing(pages))) => Err(Need::Pages(pages)),
        Err(refused) => {
            tracing::warn!(cookie = key.cookie, "a dead watch stays for now: {refused}");
            Ok(Removed::Refused)
        }
    }
}
