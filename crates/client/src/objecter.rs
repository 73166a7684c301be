//! The objecter: which OSD each request goes to, and sending it there until it is answered.
//!
//! Without I/O, so that every order of maps, resets and answers can be played in a test.
//!
//! Invariants: a request keeps its tid (and with it its identity for the OSDs) however often it is
//! sent; it is sent only on an open session of its present primary, in the order of submission per
//! session, and never into a backoff; it is completed exactly once, or cancelled.

mod maps;
mod op;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use spirula_maps::{OsdMap, OsdMapFollower, flags as map_flag, pool_flags};
use spirula_wire::msg::osd_op::flag;
use spirula_wire::types::{EntityAddr, ObjectLocator, PgId, ShardId, SpgId};
use spirula_wire::{DecodeError, RawMessage};

use crate::limits::{LAGGY_AFTER, TICK};
pub use op::{CommandTarget, Failure, OpReply, OpRequest, OpTarget, Reply, Work};
use op::{Op, Redirected};
use sessions::OsdSession;

/// Names one connection attempt to an OSD and the session it becomes.
pub type SessionId = u64;

/// What the driver has to do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Reports back with [`Objecter::handle_connected`] or [`Objecter::handle_closed`].
    Connect {
        session: SessionId,
        osd: i32,
        addr: EntityAddr,
    },
    Send {
        session: SessionId,
        message: RawMessage,
    },
    Close {
        session: SessionId,
    },
    /// Ask the monitors for maps from this epoch on.
    WantMap {
        start: u32,
    },
    /// Ask the monitors for the newest epoch; it comes back with [`Objecter::handle_newest`].
    AskNewest,
    /// A newer map is in force.
    MapChanged {
        epoch: u32,
    },
    Done {
        tid: u64,
        result: Result<Reply, Failure>,
    },
}

/// Where a request has to go by the present map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    At {
        osd: i32,
        pg: SpgId,
        hash: u32,
    },
    /// No primary, or the cluster is paused or full: wait for another map.
    Nowhere,
    NoPool,
    NoOsd,
}

/// * Getters: [`map`](Self::map), [`poll_timeout`](Self::poll_timeout).
/// * Inputs: [`handle_connected`](Self::handle_connected), [`handle_closed`](Self::handle_closed),
///   [`handle_message`](Self::handle_message), [`handle_map`](Self::handle_map),
///   [`handle_newest`](Self::handle_newest), [`handle_timeout`](Self::handle_timeout).
/// * Commands: [`submit`](Self::submit), [`cancel`](Self::cancel), [`want_newer`](Self::want_newer).
/// * Output: [`poll_action`](Self::poll_action).
#[derive(Default)]
pub struct Objecter {
    maps: OsdMapFollower,
    /// Primaries by PG under the present map.
    primaries: HashMap<PgId, Option<(i32, ShardId)>>,
    /// The monitors had this epoch when last asked.
    newest: u32,
    asking_newest: bool,
    last_tid: u64,
    ops: BTreeMap<u64, Op>,
    /// Requests without an OSD to go to.
    homeless: BTreeSet<u64>,
    /// Ends of waits, by time.
    deadlines: BTreeSet<(Duration, u64)>,
    tick_at: Duration,
    last_session: SessionId,
    sessions: BTreeMap<i32, OsdSession>,
    actions: VecDeque<Action>,
}

impl Objecter {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn map(&self) -> Option<&Arc<OsdMap>> {
        self.maps.map()
    }

    pub fn epoch(&self) -> u32 {
        self.maps.epoch()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let tick = (!self.ops.is_empty()).then_some(self.tick_at);
        let retry = self.sessions.values().filter_map(OsdSession::retry_at).min();
        [deadline, tick, retry].into_iter().flatten().min()
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes a request; its end is an [`Action::Done`] with the returned tid.
    pub fn submit(&mut self, now: Duration, work: Work, deadline: Option<Duration>) -> u64 {
        self.last_tid += 1;
        let tid = self.last_tid;
        if self.ops.is_empty() {
            self.tick_at = now + TICK;
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, tid));
        }
        self.ops.insert(tid, Op::new(work, deadline));
        self.homeless.insert(tid);
        self.place(now, tid);
        tid
    }

    /// Forgets a request; an OSD may still carry it out.
    pub fn cancel(&mut self, tid: u64) {
        self.take(tid);
    }

    /// The owner wants to see a newer map than the present one.
    pub fn want_newer(&mut self) {
        let start = self.maps.next();
        self.actions.push_back(Action::WantMap { start });
    }

    /// A message on a session with an OSD. After an error the session is closed and its requests
    /// go out again on the next.
    pub fn handle_message(&mut self, now: Duration, session: SessionId, raw: &RawMessage) {
        let Some(osd) = self.osd_of(session) else {
            return;
        };
        if let Err(error) = self.dispatch(now, osd, raw) {
            tracing::warn!(osd, "closing the session: {error}");
            self.actions.push_back(Action::Close { session });
            self.handle_closed(now, session);
        }
    }

    /// The monitors' newest epoch is `newest`.
    pub fn handle_newest(&mut self, now: Duration, newest: u32) {
        self.asking_newest = false;
        self.newest = self.newest.max(newest);
        if self.epoch() < self.newest {
            self.want_newer();
        }
        self.place_homeless(now);
    }

    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(at, tid)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.finish(tid, Err(Failure::TimedOut));
        }
        self.retry_sessions(now);
        if self.tick_at <= now && !self.ops.is_empty() {
            self.tick_at = now + TICK;
            let laggy = |op: &Op| op.sent_at.is_some_and(|at| at + LAGGY_AFTER <= now);
            if !self.homeless.is_empty() || self.ops.values().any(laggy) {
                self.want_newer();
            }
            self.ping_laggy(now);
        }
    }

    fn dispatch(&mut self, now: Duration, osd: i32, raw: &RawMessage) -> Result<(), DecodeError> {
        use spirula_wire::Message as _;
        use spirula_wire::msg::command::CommandReply;
        use spirula_wire::msg::osd::{OsdBackoff, OsdMapMsg};
        use spirula_wire::msg::osd_op::OsdOpReply;
        use spirula_wire::msg::types;
        match raw.header.type_ {
            types::OSD_OP_REPLY => {
                let reply = OsdOpReply::from_raw(raw)?;
                self.handle_op_reply(now, osd, raw.header.tid, reply);
            }
            types::COMMAND_REPLY => {
                let reply = CommandReply::from_raw(raw)?;
                self.handle_command_reply(osd, raw.header.tid, reply);
            }
            types::OSD_MAP => self.handle_map(now, &OsdMapMsg::from_raw(raw)?),
            types::OSD_BACKOFF => self.handle_backoff(now, osd, OsdBackoff::from_raw(raw)?),
            _ => tracing::debug!(osd, type_ = raw.header.type_, "message ignored"),
        }
        Ok(())
    }

    /// Finds the OSD of a request and brings the request there if that is another than before.
    fn place(&mut self, now: Duration, tid: u64) {
        let Some(op) = self.ops.get(&tid) else {
            return;
        };
        let Some(map) = self.map().cloned() else {
            return;
        };
        let primaries = &mut self.primaries;
        match place_of(&map, primaries, op) {
            Place::At { osd, pg, hash } => self.assign(now, tid, osd, pg, hash),
            Place::Nowhere => {
                self.unassign(tid);
                self.want_newer();
            }
            Place::NoOsd => self.finish(tid, Err(Failure::NoOsd)),
            Place::NoPool if self.newest != 0 && map.epoch >= self.newest => {
                self.finish(tid, Err(Failure::NoPool));
            }
            Place::NoPool => {
                self.unassign(tid);
                if !std::mem::replace(&mut self.asking_newest, true) {
                    self.actions.push_back(Action::AskNewest);
                }
            }
        }
    }

    fn place_homeless(&mut self, now: Duration) {
        for tid in self.homeless.clone() {
            self.place(now, tid);
        }
    }

    fn finish(&mut self, tid: u64, result: Result<Reply, Failure>) {
        if self.take(tid).is_some() {
            self.actions.push_back(Action::Done { tid, result });
        }
    }

    fn take(&mut self, tid: u64) -> Option<Op> {
        let op = self.ops.remove(&tid)?;
        self.homeless.remove(&tid);
        if let Some(at) = op.deadline {
            self.deadlines.remove(&(at, tid));
        }
        if let Some(osd) = op.osd
            && let Some(session) = self.sessions.get_mut(&osd)
        {
            session.ops.remove(&tid);
        }
        Some(op)
    }
}

fn place_of(map: &OsdMap, primaries: &mut HashMap<PgId, Option<(i32, ShardId)>>, op: &Op) -> Place {
    let raw = match &op.work {
        Work::Command { target, .. } => match *target {
            CommandTarget::Osd(osd) if !map.exists(osd) => return Place::NoOsd,
            CommandTarget::Osd(osd) if !map.is_up(osd) => return Place::Nowhere,
            CommandTarget::Osd(osd) => {
                return Place::At { osd, pg: SpgId::default(), hash: 0 };
            }
            CommandTarget::Pg(pg) => pg,
        },
        Work::Op(request) => match raw_pg(map, request, &op.redirected) {
            Some(raw) if is_paused(map, raw.pool, request.flags) => return Place::Nowhere,
            Some(raw) => raw,
            None => return Place::NoPool,
        },
    };
    let Some(folded) = map.raw_pg_to_pg(raw) else {
        return Place::NoPool;
    };
    let primary = primaries.entry(folded).or_insert_with(|| primary_of(map, folded));
    match *primary {
        Some((_, shard)) if op.is_for_any_copy() => {
            let acting = map.pg_to_up_acting(folded).acting;
            // By the object, so that whoever reads it again meets the same cache.
            let up: Vec<i32> = acting.into_iter().filter(|osd| map.is_up(*osd)).collect();
            match up.get(raw.seed as usize % up.len().max(1)) {
                Some(&osd) => Place::At { osd, pg: SpgId { pgid: folded, shard }, hash: raw.seed },
                None => Place::Nowhere,
            }
        }
        Some((osd, shard)) => Place::At { osd, pg: SpgId { pgid: folded, shard }, hash: raw.seed },
        None => Place::Nowhere,
    }
}

fn raw_pg(map: &OsdMap, request: &OpRequest, redirected: &Option<Redirected>) -> Option<PgId> {
    let object = |locator: &ObjectLocator, oid: &[u8]| map.object_to_pg(locator, oid);
    match (&request.target, redirected) {
        (OpTarget::Pg { pg, .. }, _) => map.pool(pg.pool).map(|_| *pg),
        (OpTarget::Object { .. }, Some(r)) => object(&r.locator, &r.oid),
        (OpTarget::Object { locator, oid }, None) => object(locator, oid),
    }
}

fn primary_of(map: &OsdMap, pg: PgId) -> Option<(i32, ShardId)> {
    let sets = map.pg_to_up_acting(pg);
    let osd = sets.acting_primary;
    if osd < 0 || !map.is_up(osd) {
        return None;
    }
    let shard = match map.pool(pg.pool)?.is_erasure() {
        true => ShardId(i8::try_from(sets.shard_of(osd)?).ok()?),
        false => ShardId::NONE,
    };
    Some((osd, shard))
}

/// Whether the map tells clients to hold such a request back.
fn is_paused(map: &OsdMap, pool: i64, flags: u32) -> bool {
    let full = map.has_flag(map_flag::FULL)
        || map.pool(pool).is_some_and(|p| p.has_flag(pool_flags::FULL));
    let may_fill = flags & (flag::FULL_TRY | flag::FULL_FORCE) != 0;
    let reads_paused = flags & flag::READ != 0 && map.has_flag(map_flag::PAUSERD);
    let writes_paused =
        flags & flag::WRITE != 0 && (map.has_flag(map_flag::PAUSEWR) || full && !may_fill);
    reads_paused || writes_paused
}
