//! The way of one write: `Admitted -> Loaded -> Plan -> Committed`, each stage consuming the token
//! of the one before.
//!
//! Invariant: no await between `plan` and `submit`; so version order, log order and the store's
//! order are one order in a PG. Before `submit` nothing has been applied, after it nothing can be
//! cancelled.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join;
use spirula_pg::State;
use spirula_store::StoreError;
use spirula_vos::{ReadError, StageError, Tx, Vos};
use spirula_wire::msg::ops::OpCode;
use spirula_wire::msg::osd_op::flag;
use spirula_wire::types::{HObject, SnapId, UTime};
use spirula_xstream::wall_now;

use crate::admit::Admitted;
use crate::apply::DataCrcs;
use crate::copies::stored_version;
use crate::copy::Sources;
use crate::errno::*;
use crate::front::{OpRequest, Reply, Versions, returns_of};
use crate::full::may_try;
use crate::load::{LoadedData, Need, StoreView};
use crate::manifest::forward;
use crate::pg::Pg;
use crate::pg::locks::Held;
use crate::pg::log::{DupRecord, EntryKind, LogEntry};
use crate::pg::publish::Unpublished;
use crate::plan::{Caller, Change, Errand, Executed, Reached, Request, execute};
use crate::scrub::run::replace;
use crate::shard::recover;
use crate::shard::submit::{NotSubmitted, Submitted, submit};
use crate::snap::{Clones, ObjectChange, Place, apply_object, refuses_context};
use crate::target::{Target, TargetError};
use crate::view::{Fault, ObjectView};
use crate::watch::table;
use crate::watch::{WatchEffect, WatchKey, WatchState};

/// Serves a request that may write. `None`: dropped without an answer, as Ceph does.
pub async fn write(target: &Target, admitted: Admitted) -> Served {
    let mut loaded = Loaded::lock(target, admitted).await?;
    if let Some(reply) = loaded.repeated() {
        return loaded.observed(Some(reply)).await;
    }
    let mut last_try = false;
    let committed = loop {
        let need = match loaded.plan(target) {
            Ok(Planned::Answer(reply)) => return loaded.observed(reply).await,
            Ok(Planned::AfterScrub) => {
                crate::scrub::wait_for(loaded.pg(), &loaded.admitted.oid.0).await;
                continue;
            }
            Ok(Planned::AfterRecovery(object)) => {
                recover::wait(target, loaded.pg(), &object).await;
                continue;
            }
            Ok(Planned::Elsewhere(Errand::Forward(object))) => {
                return forward(target, loaded, object).await;
            }
            Ok(Planned::Elsewhere(errand)) => {
                loaded.run_errand(target, errand).await;
                continue;
            }
            Ok(Planned::Write(plan)) => match plan.submit(target, &loaded) {
                Ok(committed) => break committed,
                Err(Unstaged::Need(need)) => need,
                Err(Unstaged::Refused(reply)) => return loaded.observed(Some(reply)).await,
                Err(Unstaged::Stopped(why)) => return Err(why.into()),
                Err(Unstaged::NoSpace) => {
                    if last_try || !target.fullness().make_room(target).await? {
                        let reply = loaded.no_space(target);
                        return loaded.observed(reply).await;
                    }
                    last_try = true;
                    continue;
                }
            },
            Err(need) => need,
        };
        loaded.fill(target, need).await?;
    };
    let (reply, watching, released) = committed.published().await?;
    loaded.apply_watching(target, watching, reply.versions.user);
    loaded.release(target, released);
    Ok(loaded.done(Some(reply)))
}

/// The request, for its answer, and the answer if there is one.
pub type Served = Result<(OpRequest, Option<Reply>), TargetError>;

/// Holds the object's lock; has whatever planning asked for so far.
pub struct Loaded {
    pub(crate) admitted: Admitted,
    pub(crate) held: Held,
    pub(crate) sources: Sources,
    pub(crate) reached: Vec<Reached>,
    data: LoadedData,
    /// What the object needs cannot be read: its requests fail, the target goes on.
    unreadable: bool,
    /// It was fetched from another copy for this request.
    fetched: bool,
    /// The request is about a clone, as far as is known.
    of_clone: Cell<bool>,
}

impl Loaded {
    /// Waits for the object and for room in the store.
    pub async fn lock(target: &Target, admitted: Admitted) -> Result<Self, TargetError> {
        let (key, mode) = (admitted.oid.0.clone(), admitted.mode);
        let mut sources = Sources::of(target, &admitted);
        let lock = admitted.pg.locks.acquire(key, mode);
        let held = if sources.is_empty() { lock.await } else { join(lock, sources.lock()).await.0 };
        sources.fetch(target, &admitted.pg).await?;
        if admitted.request.class.writes {
            target.store().admit().await;
        }
        Ok(Self {
            admitted,
            held,
            sources,
            reached: Vec::new(),
            data: LoadedData::default(),
            unreadable: false,
            fetched: false,
            of_clone: Cell::new(false),
        })
    }

    /// The recorded answer, if another copy of the request was executed while this one waited.
    fn repeated(&self) -> Option<Reply> {
        let (dup, _) = self.pg().recorded(&self.request().reqid)?;
        Some(Reply::recorded(self.request(), &dup))
    }

    pub async fn fill(&mut self, target: &Target, need: Need) -> Result<(), TargetError> {
        use StoreError::{Damaged, PoolTooSmall, Read};
        let is_data = matches!(need, Need::Data { .. });
        match self.data.fill(target.store(), need).await {
            Err(e @ (Damaged(_) | Read { .. } | PoolTooSmall)) => {
                let object = self.request().msg.object();
                tracing::error!(%object, "cannot be read: {e}");
                self.unreadable = !(is_data && self.fetch_anew(target));
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The data of the object is damaged here: it counts as missing, if another copy has it, and the request
    /// waits until it was recovered. Once: what is damaged then is something else.
    fn fetch_anew(&mut self, target: &Target) -> bool {
        let Admitted { pg, oid, .. } = &self.admitted;
        let version = target.store().try_read(|vos| stored_version(vos, pg.cid, oid));
        let Ok(Some(need)) = version else {
            return false;
        };
        let object = HObject { snap: SnapId::HEAD, ..self.request().msg.object() };
        let bad = [target.config().osd_id].into();
        if self.fetched || !pg.active.get() || !replace(target, &pg.shard, &object, need, &bad) {
            return false;
        }
        let text = format!("{} missing primary copy of {object}, will try others", pg.pgid.pgid);
        target.clog().error(target, text);
        self.fetched = true;
        self.data = LoadedData::default();
        true
    }

    /// Runs the interpreter on the object as it is now.
    pub fn execute(&self, target: &Target) -> Result<Executed, Need> {
        let Admitted { request, pg, oid, .. } = &self.admitted;
        let connected = self.connected(target);
        let asked = Request {
            ops: &request.msg.ops,
            may_write: request.class.writes,
            return_vec: request.msg.has_flag(flag::RETURNVEC),
            mtime: request.msg.mtime,
            limits: target.limits(),
            caller: caller_of(target, request),
            sources: &[],
            reached: &self.reached,
            filled: self.sources.filled(),
            ignores_redirects: request.msg.has_flag(flag::IGNORE_REDIRECT),
            ordered: request.msg.has_flag(flag::RWORDERED),
            snaps: Some(&self.admitted.snaps),
            watch: self.watch_state(target, &connected),
        };
        if self.unreadable {
            return Ok(Executed::failed(&asked, -EIO));
        }
        let store = target.store();
        let run = |vos: &Vos| {
            let sources = match self.sources.gather(pg, store, vos) {
                Ok(sources) => sources,
                Err(need) => return Ok(Err(need)),
            };
            let asked = Request { sources: &sources, ..asked };
            let head = StoreView::new(store, vos, pg.cid, oid, &self.data);
            Ok(match Place::find(&self.admitted.snaps, &head) {
                Ok(Place::Head) => execute(&asked, &head),
                Ok(Place::Past(epoch)) => {
                    self.of_clone.set(true);
                    execute(&asked, &head.at(epoch))
                }
                Err(Fault::Missing(need)) => Err(need),
                Err(Fault::Errno(errno)) => {
                    Ok(Executed { exists: errno != -ENOENT, ..Executed::failed(&asked, errno) })
                }
            })
        };
        let executed = match store.try_read(run) {
            Ok(executed) => executed,
            Err(ReadError::Missing(pages)) => Err(Need::Pages(pages)),
            Err(e) => {
                tracing::error!("{e}");
                Ok(Executed::failed(&asked, -EIO))
            }
        };
        if let Some(info) = self.data.info()
            && !info.watchers.is_empty()
            && pg.active.get()
        {
            target.watching().met(target, &self.place(), info);
        }
        executed
    }

    /// What the request does to watches happens now: it is published, or only reads.
    pub fn apply_watching(&self, target: &Target, effects: Vec<WatchEffect>, user_version: u64) {
        if !effects.is_empty() && self.pg().active.get() {
            let (place, request) = (self.place(), self.request());
            target.watching().apply(target, &place, request, effects, user_version);
        }
    }

    /// Nobody watches clones: they share a place where nothing ever is.
    fn place(&self) -> table::Place {
        let Admitted { pg, oid, .. } = &self.admitted;
        let object = if self.of_clone.get() { Bytes::new() } else { oid.0.clone() };
        table::Place { pgid: pg.pgid.pgid, object }
    }

    fn connected(&self, target: &Target) -> Vec<WatchKey> {
        if !self.request().class.watches {
            return Vec::new();
        }
        target.watching().with(|table| table.connected(&self.place()))
    }

    fn watch_state<'a>(&self, target: &Target, connected: &'a [WatchKey]) -> WatchState<'a> {
        let request = self.request();
        let mut state = WatchState { connected, notify_id: 0 };
        if request.class.notifies {
            let count = request.msg.ops.iter().filter(|op| op.code == OpCode::NOTIFY).count();
            state.notify_id = target.watching().take_notify_ids(target.epoch(), count);
        }
        state
    }

    /// An answer without a transaction of its own waits for what it has seen.
    async fn observed(self, reply: Option<Reply>) -> Served {
        let publisher = &self.pg().publisher;
        publisher.published(publisher.last()).await?;
        Ok(self.done(reply))
    }

    /// Lets the next request of the object in.
    pub fn done(self, reply: Option<Reply>) -> (OpRequest, Option<Reply>) {
        (self.admitted.request, reply)
    }

    /// The object, if it is to be recovered first.
    pub fn held_up(&self, by_write: bool) -> Option<HObject> {
        let shard = &self.pg().shard;
        let machine = shard.machine.borrow();
        if machine.state() == State::Clean && !shard.gives_up_any() {
            return None;
        }
        let object = HObject { snap: SnapId::HEAD, ..self.request().msg.object() };
        if shard.gives_up(&object) {
            return Some(object);
        }
        let held_up = match by_write {
            true => machine.holds_up_write(&object),
            false => machine.holds_up_read(&object),
        };
        held_up.map(|_| object)
    }

    pub fn request(&self) -> &OpRequest {
        &self.admitted.request
    }

    pub fn pg(&self) -> &Rc<Pg> {
        &self.admitted.pg
    }

    fn plan(&self, target: &Target) -> Result<Planned, Need> {
        if !self.pg().active.get() {
            // A new map took the PG from us: the client asks its new primary.
            return Ok(Planned::Answer(None));
        }
        if let Some(object) = self.held_up(true) {
            return Ok(Planned::AfterRecovery(object));
        }
        if self.pg().shard.scrub.holds_up(&self.admitted.oid.0) {
            return Ok(Planned::AfterScrub);
        }
        if target.fullness().drops_late(&self.request().msg) {
            return Ok(Planned::Answer(None));
        }
        if self.admitted.snaps.ordered && self.is_context_old(target)? {
            return Ok(Planned::Answer(Some(Reply::refusal(self.request(), -EOLDSNAPC))));
        }
        let mut executed = self.execute(target)?;
        if let Some(errand) = executed.errand.take() {
            return Ok(Planned::Elsewhere(errand));
        }
        let request = self.request();
        if executed.change.is_some() && executed.delta.grows() && self.admitted.pool_full != 0 {
            return Ok(Planned::Answer(self.full(executed)));
        }
        Ok(Planned::Write(Plan::new(target, self, request, executed)))
    }

    /// Whether the object was written with a newer snapshot context, and the client minds.
    fn is_context_old(&self, target: &Target) -> Result<bool, Need> {
        let Admitted { pg, oid, snaps, .. } = &self.admitted;
        let store = target.store();
        let set = store.try_read(|vos| {
            Ok(StoreView::new(store, vos, pg.cid, oid, &self.data).snapset(Clones::Newest))
        });
        match set {
            Ok(Ok(set)) => Ok(refuses_context(snaps, &set)),
            Ok(Err(Fault::Missing(need))) => Err(need),
            // What cannot be read fails the operations.
            Ok(Err(Fault::Errno(_))) | Err(_) => Ok(false),
        }
    }

    /// A full pool: clients that asked to try are told, others resend when it is full no more.
    fn full(&self, executed: Executed) -> Option<Reply> {
        let request = self.request();
        request.msg.has_flag(flag::FULL_TRY).then(|| Reply {
            result: -self.admitted.pool_full,
            outputs: executed.outputs,
            versions: Versions::default(),
            data_offset: 0,
            data_crc: None,
            executed: true,
        })
    }

    /// The store is full: the same, but those who insist would not send it again.
    fn no_space(&self, target: &Target) -> Option<Reply> {
        target.fullness().refuse(target);
        let request = self.request();
        may_try(&request.msg).then(|| Reply::refusal(request, -ENOSPC))
    }
}

enum Planned {
    Answer(Option<Reply>),
    /// A copy lacks the object.
    AfterRecovery(HObject),
    /// The object's copies are being compared.
    AfterScrub,
    /// Something is to be done at another object first, or instead.
    Elsewhere(Errand),
    Write(Plan),
}

/// A transaction with its log entry and reply, decided and not yet in force.
struct Plan {
    tx: Tx,
    entry: LogEntry,
    reply: Reply,
    watching: Vec<WatchEffect>,
    released: Vec<HObject>,
}

enum Unstaged {
    Need(Need),
    Refused(Reply),
    NoSpace,
    Stopped(StoreError),
}

impl Plan {
    fn new(target: &Target, loaded: &Loaded, request: &OpRequest, done: Executed) -> Self {
        let Admitted { pg, oid, .. } = &loaded.admitted;
        let state = pg.state.borrow();
        let version = pg.shard.machine.borrow().next_version();
        let (last_update, last_user_version) = pg.last_versions();
        let epoch = state.next_epoch(target.wall_nanos()).max(loaded.sources.epoch());
        let before =
            done.change.as_ref().and_then(|c| c.copied_version).unwrap_or(done.user_version);
        let user = match &done.change {
            Some(change) if change.user_modify => {
                (last_user_version.max(before) + 1).max(version.version)
            }
            _ => before,
        };
        let mut stats = state.stats;
        stats.add(&done.delta);
        let modified = done.change.is_some();
        let mut entry = LogEntry {
            kind: kind_of(done.change.as_ref()),
            version,
            prior: prior_of(done.change.as_ref()),
            mtime: if modified { request.msg.mtime } else { UTime::default() },
            epoch,
            object: oid.0.clone(),
            dup: dup_of(request, &done, modified, user),
            stats,
            last_user_version: last_user_version.max(if modified { user } else { 0 }),
        };
        entry.dup.version = version;
        let mut versions = Versions::of(version, user);
        if done.result == -ENOENT {
            versions = versions.absent(last_update, last_user_version);
        }
        let mut released = Vec::new();
        let mut tx = Tx::new(epoch);
        if done.delta.shrinks() {
            tx.use_reserve();
        }
        if let Some(mut change) = done.change {
            if let Some(info) = &mut change.info {
                info.version = version;
                info.user_version = user;
            }
            let crcs = DataCrcs { chunks: request.data_crcs(), input: request.whole_data() };
            if let Some(snaps) = &mut change.snaps {
                snaps.settle(state.last_epoch);
            }
            released = change.released;
            let (info, snaps) = (change.info.as_ref(), change.snaps.as_ref());
            let effects = change.effects;
            let change = ObjectChange { effects, info, snaps, crcs, version };
            apply_object(&mut tx, pg.cid, oid, change);
        }
        let reply = Reply {
            result: done.result,
            outputs: done.outputs,
            versions,
            data_offset: done.data_offset.unwrap_or(0),
            data_crc: done.data_crc,
            executed: true,
        };
        Self { tx, entry, reply, watching: done.watching, released }
    }

    /// The submission half of the commit: from here on it happens.
    fn submit(mut self, target: &Target, loaded: &Loaded) -> Result<Committed, Unstaged> {
        let object = loaded.request().msg.object();
        let submitted = submit(target, loaded.pg(), &mut self.tx, self.entry, object);
        let submitted = match submitted {
            Ok(submitted) => submitted,
            Err(NotSubmitted::Stopped(why)) => return Err(Unstaged::Stopped(why)),
            Err(NotSubmitted::Refused(StageError::Missing(pages))) => {
                return Err(Unstaged::Need(Need::Pages(pages)));
            }
            Err(NotSubmitted::Refused(StageError::NoSpace)) => return Err(Unstaged::NoSpace),
            Err(NotSubmitted::Refused(refused)) => {
                let errno = refusal_errno(&refused);
                return Err(Unstaged::Refused(Reply::refusal(loaded.request(), -errno)));
            }
        };
        loaded.held.submitted();
        let (reply, watching, released) = (self.reply, self.watching, self.released);
        Ok(Committed { submitted, reply, watching, released })
    }
}

/// A write's transaction, with what follows it.
struct Committed {
    submitted: Submitted,
    reply: Reply,
    watching: Vec<WatchEffect>,
    released: Vec<HObject>,
}

impl Committed {
    async fn published(self) -> Result<(Reply, Vec<WatchEffect>, Vec<HObject>), TargetError> {
        self.submitted.published().await?;
        Ok((self.reply, self.watching, self.released))
    }
}

fn caller_of(target: &Target, request: &OpRequest) -> Caller {
    let (session, map) = (&request.session, target.map());
    Caller {
        name: session.entity,
        addr: session.addrs.front(),
        features: session.features,
        now: UTime::from(wall_now()),
        min_compat_client: map.require_min_compat_client.0,
        osd_release: map.require_osd_release.0,
    }
}

fn kind_of(change: Option<&Change>) -> EntryKind {
    match change {
        None => EntryKind::Error,
        Some(Change { info: Some(_), .. }) => EntryKind::Modify,
        Some(_) => EntryKind::Delete,
    }
}

fn prior_of(change: Option<&Change>) -> spirula_wire::types::EVersion {
    change.and_then(|c| c.old.as_ref()).map(|o| o.version).unwrap_or_default()
}

/// What a repetition is answered with. Success is 0 unless the client takes return vectors.
fn dup_of(request: &OpRequest, done: &Executed, modified: bool, user: u64) -> DupRecord {
    let return_vec = request.msg.has_flag(flag::RETURNVEC);
    DupRecord {
        reqid: request.reqid,
        user_version: if modified { user } else { 0 },
        result: if modified && !return_vec { 0 } else { done.result },
        returns: if return_vec { returns_of(&done.outputs) } else { Vec::new() },
        ..DupRecord::default()
    }
}

fn refusal_errno(e: &StageError) -> i32 {
    match e {
        StageError::TooLarge => EFBIG,
        StageError::KeyLength(_) => ENAMETOOLONG,
        _ => EIO,
    }
}

impl From<Unpublished> for TargetError {
    fn from(_: Unpublished) -> Self {
        Self::Stopped
    }
}
