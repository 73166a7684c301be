//! Peering: how the copies of a PG agree on one history and one primary serves it.
//!
//! ```text
//! Reset -> GetInfo -> GetLog -> GetMissing -> WaitUpThru -> Activating -> Active -> Clean   primary
//!             |          +-> WaitActingChange, Incomplete
//!             +-> Down
//! Reset -> Stray -> ReplicaActivating -> ReplicaActive                                      others
//! Unknown: nobody has told this OSD of the PG yet
//! ```
//!
//! Methods are, in this order: A getters; B inputs ([`Peering::advance`] for each epoch, then
//! [`Peering::activate_map`]; [`Peering::handle`], [`Peering::committed`], [`Peering::tick`]);
//! C commands of the write path and of recovery (`io`, `recovery`, `backfill`); D outputs, after every
//! input or command: [`Peering::poll`] until it gives nothing.
//!
//! What the driver must keep: actions are carried out in order; a message leaves only when all that was
//! submitted to the store for this PG before it is durable, so that nobody is told of what a crash may
//! take back; no epoch is skipped.
//!
//! Invariants: a reset forgets all that was learned from peers; a message from before the last reset is
//! dropped; what is persisted is what was in memory at that action.

mod active;
mod getinfo;
mod io;
mod lost;
mod message;
mod repair;
mod replica;
mod reserving;
mod shown;
mod split;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use spirula_maps::OsdMap;
use spirula_wire::types::{
    EVersion, ObjectStatSum, PastIntervals, PgHistory, PgInfo, SnapId, SpgId, UTime,
};

use crate::history::{self, duration, span};
use crate::interval::{Mapping, PriorSet, add_interval, maybe_went_rw};
use crate::lease::Lease;
use crate::log::{LogLimits, PgLog};
use crate::merge::Rewind;
use crate::missing::Missing;
use crate::recovery::Recovery;
use crate::stamps::ClockDelta;

use io::Settling;
use reserving::Reserving;

pub use io::{Holdup, SendTo};
pub use message::PeerMessage;
pub use repair::Scrubbed;
pub use reserving::{ReserveKind, Slot};
pub use shown::{Probe, Shortage};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Unknown,
    Reset,
    GetInfo,
    GetLog,
    GetMissing,
    WaitUpThru,
    /// Asked the monitor for other acting OSDs.
    WaitActingChange,
    /// Somebody must come back who may know of writes.
    Down,
    /// Nobody has the whole history.
    Incomplete,
    Activating,
    /// Or peered, if too few copies act for writes.
    Active,
    Clean,
    Stray,
    ReplicaActivating,
    ReplicaActive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    Replica,
    Stray,
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Send {
        to: i32,
        message: PeerMessage,
    },
    /// An interval ended: requests in progress are dropped or begin anew.
    NewInterval,
    /// Divergent writes are undone, in the same transaction as the next [`Action::Persist`].
    Rewind(Rewind),
    /// Info, past intervals, and with `log` also log and missing set, are stored as they are.
    Persist {
        log: bool,
    },
    /// [`Peering::committed`] is called with this number when all so far is durable.
    AwaitCommit(u64),
    /// The monitor raises `up_thru` to this epoch (`osd_alive`).
    WantUpThru(u32),
    /// The monitor gives the PG other acting OSDs; none: those of CRUSH.
    WantPgTemp(Vec<i32>),
    /// The primary serves requests, when [`Peering::may_serve`] says so.
    Activated,
    /// All copies are whole.
    Clean,
    /// This copy is of no use any more.
    Remove,
    /// A slot of [`Slot::Local`] is wanted: [`Peering::reserved`] when it is given,
    /// [`Peering::preempted`] if it is then taken away. Asked again: the priority is another one.
    LocalReserve {
        kind: ReserveKind,
        priority: u32,
    },
    /// It is not wanted any more.
    CancelLocal,
    /// The same of [`Slot::Remote`], for what another OSD does with this copy.
    RemoteReserve {
        kind: ReserveKind,
        priority: u32,
    },
    CancelRemote,
}

/// What a primary knows of another copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) info: PgInfo,
    /// Once known.
    pub(crate) missing: Option<Missing>,
}

/// What is stored of a copy.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub info: PgInfo,
    pub past: PastIntervals,
    pub log: PgLog,
    pub missing: Missing,
}

/// Options of the OSD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// How long a primary may answer reads without hearing from its copies; zero: for ever.
    pub lease: Duration,
    pub log: LogLimits,
}

#[derive(Debug)]
pub struct Peering {
    me: i32,
    pgid: SpgId,
    map: Arc<OsdMap>,
    mapping: Mapping,
    now: Duration,
    info: PgInfo,
    past: PastIntervals,
    log: PgLog,
    missing: Missing,
    state: State,
    lease: Lease,
    /// Epoch of the last reset: what was sent before is void.
    last_reset: u32,
    /// A stray tells the primary of itself until it hears from it.
    send_notify: bool,
    prior: PriorSet,
    /// Peers whose answer the present phase waits for.
    requested: BTreeSet<i32>,
    pub(crate) peers: BTreeMap<i32, Peer>,
    /// Who has the authoritative log.
    best: i32,
    /// The others who get every write: acting and backfill targets.
    pub(crate) members: BTreeSet<i32>,
    pub(crate) backfill_targets: BTreeSet<i32>,
    want_acting: Option<Vec<i32>>,
    need_up_thru: bool,
    /// Members whose activation is durable, this one too.
    activated: BTreeSet<i32>,
    awaiting: Option<u64>,
    pub(crate) recovery: Recovery,
    reserving: Reserving,
    settling: Settling,
    /// Of the clocks of the acting OSDs.
    stamps: BTreeMap<i32, ClockDelta>,
    /// Messages from epochs that this OSD has not seen yet.
    later: Vec<(i32, PeerMessage)>,
    dirty_info: bool,
    dirty_log: bool,
    /// Of the map when it was persisted last.
    persisted: u32,
    out: VecDeque<Action>,
}

/// Messages that may wait for a map; more are from somebody who will ask again.
const LATER_MAX: usize = 1000;

/// Epochs after which the state is stored again, so that a restart needs no older maps
/// (`osd_pg_epoch_persisted_max_stale`).
const STALE_MAX: u32 = 40;

impl Peering {
    /// A PG that this OSD knows nothing of but the map: it learns the rest from another copy.
    pub fn unknown(me: i32, pgid: SpgId, map: Arc<OsdMap>, config: Config) -> Self {
        let mapping = Mapping::of(&map, pgid.pgid).unwrap_or_default();
        let last_reset = map.epoch;
        Self {
            me,
            pgid,
            map,
            mapping,
            last_reset,
            lease: Lease::new(config.lease),
            info: PgInfo::new(pgid),
            now: Duration::ZERO,
            past: PastIntervals::default(),
            log: PgLog::new(config.log),
            missing: Missing::default(),
            state: State::Unknown,
            send_notify: false,
            prior: PriorSet::default(),
            requested: BTreeSet::new(),
            peers: BTreeMap::new(),
            best: -1,
            members: BTreeSet::new(),
            backfill_targets: BTreeSet::new(),
            want_acting: None,
            need_up_thru: false,
            activated: BTreeSet::new(),
            awaiting: None,
            recovery: Recovery::default(),
            reserving: Reserving::default(),
            settling: Settling::default(),
            stamps: BTreeMap::new(),
            later: Vec::new(),
            dirty_info: false,
            dirty_log: false,
            persisted: last_reset,
            out: VecDeque::new(),
        }
    }

    /// A new PG, in the map in which its pool (or it) first appears. Later, the monitor tells what was
    /// in between: `history` and `past` of its `pg_create2`.
    pub fn create(me: i32, pgid: SpgId, map: Arc<OsdMap>, config: Config) -> Self {
        let epoch = map.epoch;
        let mut pg = Self::unknown(me, pgid, map, config);
        pg.info.history = history::young(epoch);
        pg.state = State::Reset;
        pg.dirty_info = true;
        pg
    }

    /// As [`Peering::create`], but those of `past` may have it after all: they are asked first.
    pub fn create_unless(
        me: i32,
        pgid: SpgId,
        map: Arc<OsdMap>,
        past: PastIntervals,
        config: Config,
    ) -> Self {
        let mut pg = Self::create(me, pgid, map, config);
        pg.past = past;
        pg
    }

    /// As it was stored; `map` is the map of the epoch in which it was stored last, and
    /// [`Peering::advance`] follows from there.
    pub fn load(me: i32, stored: Stored, map: Arc<OsdMap>, config: Config, now: Duration) -> Self {
        let pgid = stored.info.pgid;
        let mut pg = Self::unknown(me, pgid, map, config);
        let left = duration(stored.info.history.prior_readable_until_ub);
        // What this copy last heard as a member is not stored.
        pg.lease.learn_prior(left.max(config.lease + pg.lease.slack()), now);
        pg.now = now;
        pg.state = if stored.info.does_not_exist() { State::Unknown } else { State::Reset };
        (pg.info, pg.past, pg.log, pg.missing) =
            (stored.info, stored.past, stored.log, stored.missing);
        pg.log.set_limits(config.log);
        // What was stored since the info was is in the log; nothing of that is to be stored again.
        pg.refresh_info();
        pg.dirty_info = false;
        pg
    }

    // --- A getters

    pub fn state(&self) -> State {
        self.state
    }

    pub fn role(&self) -> Role {
        if self.mapping.acting_primary == self.me {
            Role::Primary
        } else if self.mapping.is_acting(self.me) {
            Role::Replica
        } else {
            Role::Stray
        }
    }

    pub fn is_primary(&self) -> bool {
        self.role() == Role::Primary
    }

    pub fn pgid(&self) -> SpgId {
        self.pgid
    }

    pub fn map(&self) -> &Arc<OsdMap> {
        &self.map
    }

    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub fn info(&self) -> &PgInfo {
        &self.info
    }

    pub fn past_intervals(&self) -> &PastIntervals {
        &self.past
    }

    pub fn log(&self) -> &PgLog {
        &self.log
    }

    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    pub(crate) fn missing_mut(&mut self) -> &mut Missing {
        &mut self.missing
    }

    /// What the PG's objects come to, whether that is no guess, and a time that goes along with every info; the
    /// driver keeps them, and tells them before inputs.
    pub fn set_counters(&mut self, sum: ObjectStatSum, counted: bool, fresh: UTime) {
        let before = std::mem::replace(&mut self.info.stats.stats.sum, sum);
        self.keep_scrub_errors(&before);
        self.info.stats.stats_invalid = !counted;
        self.info.stats.last_fresh = fresh;
    }

    /// The snapshots that are gone from all objects.
    pub fn set_purged_snaps(&mut self, purged: Vec<(SnapId, u64)>) {
        self.info.purged_snaps = purged;
    }

    /// Whether what was sent in `epoch` is of this interval: answers from before are dropped.
    pub fn is_current(&self, epoch: u32) -> bool {
        epoch >= self.last_reset
    }

    /// All that is to be stored.
    pub fn stored(&self) -> Stored {
        Stored {
            info: self.info.clone(),
            past: self.past.clone(),
            log: self.log.clone(),
            missing: self.missing.clone(),
        }
    }

    /// The other OSDs that get every write.
    pub fn members(&self) -> &BTreeSet<i32> {
        &self.members
    }

    pub fn backfill_targets(&self) -> &BTreeSet<i32> {
        &self.backfill_targets
    }

    /// Whether all copies agreed on the history in this interval.
    pub fn is_peered(&self) -> bool {
        matches!(self.state, State::Active | State::Clean)
    }

    /// About to be merged: it serves nobody until then.
    pub fn is_premerge(&self) -> bool {
        self.mapping.is_premerge(self.pgid.pgid)
    }

    /// Whether a client's request may run now: it is active, nobody of an earlier interval may still
    /// answer reads, and this OSD's own lease holds.
    pub fn may_serve(&self, now: Duration) -> bool {
        self.is_peered()
            && self.mapping.is_writeable()
            && !self.is_premerge()
            && (self.lease.interval.is_zero() || now + self.lease.slack() >= self.now)
            && !self.lease.waits_for_prior(now)
            && self.lease.is_readable(now)
    }

    /// What the monitor was asked for and has not done: said again when its session is a new one.
    pub fn wants(&self) -> Vec<Action> {
        let mut wants = Vec::new();
        if self.is_primary() && self.need_up_thru {
            wants.push(Action::WantUpThru(self.info.history.same_interval_since));
        }
        wants.extend(self.want_acting.as_ref().map(|want| self.pg_temp_for(want)));
        wants
    }

    /// The acting set of CRUSH is wanted by wanting no exception.
    fn pg_temp_for(&self, want: &[i32]) -> Action {
        let is_plain = want == self.mapping.up;
        Action::WantPgTemp(if is_plain { Vec::new() } else { want.to_vec() })
    }

    /// When [`Peering::tick`] has something to do, at the latest.
    pub fn next_tick(&self) -> Option<Duration> {
        let settles = self.settling.at.filter(|_| self.is_primary() && self.is_peered());
        let prior = self.lease.prior_until();
        let waits = (self.is_primary() && self.is_peered() && self.lease.waits_for_prior(self.now))
            .then_some(prior);
        let retry = self.reserving.retry_at();
        [self.next_renewal(), retry, settles, waits].into_iter().flatten().min()
    }

    fn next_renewal(&self) -> Option<Duration> {
        let leads = self.is_primary()
            && matches!(self.state, State::Activating | State::Active | State::Clean);
        (leads && !self.lease.interval.is_zero()).then(|| self.lease.next_renewal())
    }

    // --- B inputs

    /// Goes on to the next epoch. After the last of several, [`Peering::activate_map`].
    pub fn advance(&mut self, map: Arc<OsdMap>, now: Duration) {
        self.set_now(now);
        let Some(new) = Mapping::of(&map, self.pgid.pgid) else {
            self.map = map;
            self.out.push_back(Action::Remove);
            return;
        };
        let old_map = std::mem::replace(&mut self.map, map);
        let old = std::mem::replace(&mut self.mapping, new);
        let came_up = !old_map.is_up(self.me) && self.map.is_up(self.me);
        if old.is_new_interval(&self.mapping, self.pgid.pgid) || came_up {
            self.start_interval(&old_map, &old);
            return;
        }
        self.forget_down_peers();
        let map = self.map.clone();
        self.lease.drop_dead(|osd| is_dead(&map, osd));
        let same_since = self.info.history.same_interval_since;
        if self.need_up_thru && self.up_thru() >= same_since {
            self.need_up_thru = false;
        }
        if self.is_outdated() {
            self.reset();
        }
    }

    /// Whether the map takes away what peering waits for.
    fn is_outdated(&self) -> bool {
        let is_down = |osd: &i32| !self.map.is_up(*osd);
        match self.state {
            State::GetLog if is_down(&self.best) => true,
            State::WaitActingChange if self.want_acting.iter().flatten().any(is_down) => true,
            _ => self.is_peering() && self.prior.is_affected_by(&self.map),
        }
    }

    /// The map is as new as it gets for now: begins, or goes on with, what it asks for.
    pub fn activate_map(&mut self, now: Duration) {
        self.set_now(now);
        match self.state {
            State::Reset if self.is_primary() => self.enter_get_info(),
            State::Reset => {
                self.state = State::Stray;
                self.send_notify = true;
                self.persist_if_dirty();
                self.notify_primary();
            }
            State::Stray => self.notify_primary(),
            State::WaitUpThru => self.enter_wait_up_thru(),
            State::Active => {
                self.discover_unfound();
                self.check_recovered();
            }
            _ => {}
        }
        for (from, message) in std::mem::take(&mut self.later) {
            self.handle(from, message, now);
        }
        self.dirty_info |=
            self.state != State::Unknown && self.map.epoch - self.persisted >= STALE_MAX;
        self.persist_if_dirty();
    }

    /// A message of another OSD about this PG.
    pub fn handle(&mut self, from: i32, message: PeerMessage, now: Duration) {
        self.set_now(now);
        if message.epoch_sent() > self.map.epoch {
            if self.later.len() < LATER_MAX {
                self.later.push((from, message));
            }
            return;
        }
        let sender = self.map.osd(from);
        let alive = sender.is_some_and(|o| o.is_up() && o.info.up_from <= message.epoch_sent());
        if !alive || message.min_epoch() < self.last_reset {
            return;
        }
        if self.is_primary() {
            self.handle_as_primary(from, message);
        } else {
            self.handle_as_copy(from, message);
        }
        self.persist_if_dirty();
    }

    /// What [`Action::AwaitCommit`] asked for came about.
    pub fn committed(&mut self, activation: u64, now: Duration) {
        self.set_now(now);
        if self.awaiting != Some(activation) {
            return;
        }
        self.awaiting = None;
        match self.state {
            State::Activating => self.member_activated(self.me),
            State::ReplicaActivating => self.replica_activated(),
            _ => {}
        }
        self.persist_if_dirty();
    }

    /// Time went by: the lease is renewed when it is due.
    pub fn tick(&mut self, now: Duration) {
        self.set_now(now);
        if self.next_renewal().is_some_and(|due| due <= now) {
            self.renew_lease();
        }
        self.check_recovered();
        self.settle();
        self.persist_if_dirty();
    }

    /// How many nanoseconds at least and at most the clock of another OSD is ahead of this one's, by
    /// each heartbeat of it ([`crate::HeartbeatStamps`]). Whether a clock has jumped: only then is there
    /// something to do.
    pub fn hb_stamps(&mut self, osd: i32, lb: Option<i64>, ub: Option<i64>, now: Duration) -> bool {
        self.set_now(now);
        if !self.mapping.is_acting(osd) {
            return false;
        }
        let new = ClockDelta { lb, ub, at: now };
        let old = self.stamps.insert(osd, new);
        let Some(old) = old.filter(|old| old.contradicts(&new, self.lease.slack())) else {
            return false;
        };
        self.lease.clock_jumped(old.at, now);
        if self.next_renewal().is_some() {
            self.renew_lease();
        }
        true
    }

    /// How far the clock of `osd` is ahead at most; what was heard longer ago than a lease says nothing.
    fn clock_ahead(&self, osd: i32) -> Option<i64> {
        let fresh = |d: &&ClockDelta| self.now.saturating_sub(d.at) <= self.lease.interval;
        self.stamps.get(&osd).filter(fresh)?.ub
    }

    // --- D outputs

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    pub(crate) fn set_for_fuzzing(&mut self, mapping: Mapping, state: State) {
        (self.mapping, self.state, self.last_reset) = (mapping, state, 0);
        self.requested = BTreeSet::from([1, 2]);
        self.members = self.requested.clone();
        self.backfill_targets = BTreeSet::from([2]);
    }

    // --- intervals

    fn start_interval(&mut self, old_map: &OsdMap, old: &Mapping) {
        let epoch = self.map.epoch;
        self.lease.end_interval();
        let history = &mut self.info.history;
        if history.epoch_created != 0 {
            let (first, last) = (history.same_interval_since, epoch - 1);
            let rw = maybe_went_rw(old, old_map, first, last, history.last_epoch_clean);
            add_interval(&mut self.past, first, last, &old.acting, rw);
            if old.up != self.mapping.up || old.up_primary != self.mapping.up_primary {
                history.same_up_since = epoch;
            }
            if old.acting_primary != self.mapping.acting_primary {
                history.same_primary_since = epoch;
            }
            history.same_interval_since = epoch;
            self.dirty_info = true;
        }
        self.out.push_back(Action::NewInterval);
        self.reset();
    }

    fn reset(&mut self) {
        self.last_reset = self.map.epoch;
        if self.state != State::Unknown {
            self.state = State::Reset;
        }
        self.peers.clear();
        self.requested.clear();
        self.members.clear();
        self.backfill_targets.clear();
        self.activated.clear();
        self.prior = PriorSet::default();
        self.want_acting = None;
        self.awaiting = None;
        self.recovery = Recovery::default();
        self.drop_reservations();
        self.settling = Settling::default();
        let (map, mapping) = (&self.map, &self.mapping);
        self.stamps.retain(|&osd, _| map.is_up(osd) && mapping.is_acting(osd));
        self.send_notify = false;
    }

    /// A copy tells of a PG that this OSD knew nothing of.
    fn adopt_history(&mut self, history: &PgHistory, past: &PastIntervals) {
        self.info.history = history.clone();
        self.past = past.clone();
        self.lease.learn_prior(duration(history.prior_readable_until_ub), self.now);
        self.dirty_info = true;
    }

    fn is_peering(&self) -> bool {
        use State::{Down, GetInfo, GetLog, GetMissing, Incomplete, WaitActingChange, WaitUpThru};
        matches!(
            self.state,
            GetInfo | GetLog | GetMissing | WaitUpThru | WaitActingChange | Down | Incomplete
        )
    }

    fn forget_down_peers(&mut self) {
        let map = self.map.clone();
        self.peers.retain(|&osd, _| map.is_up(osd));
        self.requested.retain(|&osd| map.is_up(osd));
        self.stamps.retain(|&osd, _| map.is_up(osd));
        self.recovery.forget_sources(|osd| map.is_up(osd));
    }

    fn up_thru(&self) -> u32 {
        self.map.osd(self.me).map_or(0, |osd| osd.info.up_thru)
    }

    fn set_now(&mut self, now: Duration) {
        if now + self.lease.slack() < self.now {
            self.lease.clock_went_back(self.now, now);
            self.now = now;
        }
        self.now = now.max(self.now);
    }

    // --- what others know

    fn update_history(&mut self, other: &PgHistory) {
        // Once it is settled that nobody else serves, late words do not unsettle it.
        let active = matches!(self.state, State::Activating | State::Active | State::Clean);
        if !active || self.lease.waits_for_prior(self.now) {
            self.lease.learn_prior(duration(other.prior_readable_until_ub), self.now);
        }
        if !history::merge(&mut self.info.history, other) {
            return;
        }
        self.dirty_info = true;
        if self.info.history.last_epoch_clean >= self.info.history.same_interval_since {
            self.past = PastIntervals::default();
        }
    }

    /// The history with what is left of earlier leases.
    fn history_now(&self) -> PgHistory {
        let left = span(self.lease.prior_left(self.now));
        PgHistory { prior_readable_until_ub: left, ..self.info.history.clone() }
    }

    fn info_now(&self) -> PgInfo {
        PgInfo { history: self.history_now(), ..self.info.clone() }
    }

    fn send(&mut self, to: i32, message: PeerMessage) {
        self.out.push_back(Action::Send { to, message });
    }

    fn persist_if_dirty(&mut self) {
        if self.dirty_info || self.dirty_log {
            self.persist();
        }
    }

    fn persist(&mut self) {
        self.info.history = self.history_now();
        self.out.push_back(Action::Persist { log: self.dirty_log });
        (self.dirty_info, self.dirty_log) = (false, false);
        self.persisted = self.map.epoch;
    }

    /// What the log and the missing set say is said in the info.
    pub(crate) fn refresh_info(&mut self) {
        self.info.last_update = self.log.head();
        self.info.log_tail = self.log.tail();
        self.info.last_complete = match self.missing.oldest_need() {
            None => self.info.last_update,
            // It may be older than the log.
            Some(need) if need <= self.log.tail() => EVersion::default(),
            Some(need) => self.log.version_before(need),
        };
        self.dirty_info = true;
    }

    fn rewound(&mut self, rewind: Rewind) {
        self.dirty_log = true;
        if !rewind.entries.is_empty() {
            self.out.push_back(Action::Rewind(rewind));
        }
    }
}

/// The monitor saw it refuse a connection since it last came up. One that was removed may not know yet.
fn is_dead(map: &OsdMap, osd: i32) -> bool {
    let known = map.osd(osd).filter(|o| o.exists());
    known.is_some_and(|o| o.xinfo.dead_epoch > o.info.up_from)
}

#[cfg(test)]
mod tests {
    use spirula_maps::{Osd, OsdInfo, OsdXInfo, osd_state};

    use super::*;

    #[test]
    fn only_who_refused_a_connection_is_dead() {
        let osd = |state, dead_epoch| Osd {
            state,
            info: OsdInfo { up_from: 5, ..OsdInfo::default() },
            xinfo: OsdXInfo { dead_epoch, ..OsdXInfo::default() },
            ..Osd::default()
        };
        let osds = vec![osd(osd_state::EXISTS, 6), osd(osd_state::EXISTS, 4), osd(0, 6)];
        let map = OsdMap { osds, ..OsdMap::default() };
        assert_eq!([0, 1, 2, 3].map(|id| is_dead(&map, id)), [true, false, false, false]);
    }
}
