//! One failure from beginning to end, by hand: two OSDs, a pool of size 2, the states that `ceph pg`
//! shows. Also an example of how a driver uses the crate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use spirula_maps::{NewCluster, OsdMap, PgPool, WEIGHT_IN, flags, osd_state};
use spirula_pg::{
    Action, Config, Holdup, PeerMessage, Peering, Recover, ReserveKind, SendTo, Slot, State,
};
use spirula_wire::types::{
    CompactInterval, EVersion, EntityName, HObject, PastIntervals, PgId, PgLogEntry, PgShard,
    RequestId, ShardId, SpgId, UTime, Uuid, log_op, pg_state,
};

const PGID: PgId = PgId { pool: 1, seed: 0 };
const CONFIG: Config = Config { lease: Duration::from_secs(16), ..NO_LEASE };
const NO_LEASE: Config = Config {
    lease: Duration::ZERO,
    log: spirula_pg::LogLimits { entries: 250, batch: 250, dups: 3000, undoes: true },
};
const NOW: Duration = Duration::from_secs(100);

/// Two OSDs whose stores and network take no time, and a monitor that does what it is asked.
struct Pair {
    map: OsdMap,
    osds: [Peering; 2],
    network: VecDeque<(i32, i32, PeerMessage)>,
    up_thru: Vec<(i32, u32)>,
    pg_temp: Option<Vec<i32>>,
    now: Duration,
    /// Entries, and where.
    undone: Vec<(usize, EVersion)>,
    /// Slots are given at once.
    grants: bool,
    asked: Vec<(usize, Action)>,
}

impl Pair {
    fn new(min_size: u8) -> Self {
        Self::with(min_size, Peering::create)
    }

    /// The other OSD begins with what `other` makes.
    fn with(min_size: u8, other: fn(i32, SpgId, Arc<OsdMap>, Config) -> Peering) -> Self {
        let mut new = NewCluster::new(Uuid([7; 16]), UTime { sec: 1, nsec: 0 });
        new.osds = (0..2).map(|i| (Uuid([i + 1; 16]), WEIGHT_IN)).collect();
        new.failure_domain = "osd".into();
        let mut map = new.osdmap().unwrap();
        for osd in &mut map.osds {
            osd.state |= osd_state::UP;
            osd.info.up_from = 1;
        }
        map.pools.insert(1, PgPool::replicated(2, min_size, 1, 0));
        let first = Arc::new(map.clone());
        let primary = map.pg_to_up_acting(PGID).acting_primary;
        let make = |me| {
            let make = if me == primary { Peering::create } else { other };
            make(me, SpgId::whole(PGID), first.clone(), CONFIG)
        };
        let osds = [make(0), make(1)];
        let mut pair = Self {
            map,
            osds,
            network: VecDeque::new(),
            up_thru: Vec::new(),
            pg_temp: None,
            now: NOW,
            undone: Vec::new(),
            grants: true,
            asked: Vec::new(),
        };
        for me in 0..2 {
            pair.osds[me].activate_map(NOW);
        }
        pair.run(&[0, 1]);
        pair
    }

    fn primary(&mut self) -> &mut Peering {
        let primary = self.map.pg_to_up_acting(PGID).acting_primary;
        &mut self.osds[primary as usize]
    }

    fn shows(&mut self) -> String {
        let now = self.now;
        pg_state::name(self.primary().state_bits(now))
    }

    /// The next map, at these OSDs.
    fn next_map(&mut self, change: impl FnOnce(&mut OsdMap), at: &[usize]) {
        self.map.epoch += 1;
        change(&mut self.map);
        let map = Arc::new(self.map.clone());
        for &me in at {
            self.osds[me].advance(map.clone(), self.now);
            self.osds[me].activate_map(self.now);
        }
    }

    /// Until nothing is left to do.
    fn run(&mut self, alive: &[usize]) {
        loop {
            alive.iter().for_each(|&me| self.drain(me));
            if let Some((from, to, message)) = self.network.pop_front() {
                if alive.contains(&(to as usize)) {
                    self.osds[to as usize].handle(from, message, self.now);
                }
            } else if let Some((osd, epoch)) = self.up_thru.pop() {
                self.next_map(|map| map.osds[osd as usize].info.up_thru = epoch, alive);
            } else if let Some(osds) = self.pg_temp.take() {
                let pgid = self.osds[0].pgid().pgid;
                self.next_map(|map| _ = map.pg_temp.insert(pgid, osds), alive);
            } else {
                return;
            }
        }
    }

    fn drain(&mut self, me: usize) {
        while let Some(action) = self.osds[me].poll() {
            match action {
                Action::Send { to, message } => self.network.push_back((me as i32, to, message)),
                Action::AwaitCommit(number) => self.osds[me].committed(number, self.now),
                Action::LocalReserve { .. } if self.grants => self.osds[me].reserved(Slot::Local),
                Action::RemoteReserve { .. } if self.grants => self.osds[me].reserved(Slot::Remote),
                Action::LocalReserve { .. }
                | Action::RemoteReserve { .. }
                | Action::CancelLocal
                | Action::CancelRemote => self.asked.push((me, action)),
                Action::WantUpThru(epoch) => self.up_thru.push((me as i32, epoch)),
                Action::Rewind(rewind) => {
                    self.undone.extend(rewind.entries.iter().map(|e| (me, e.version)));
                }
                Action::WantPgTemp(osds) => self.pg_temp = Some(osds),
                _ => {}
            }
        }
    }

    /// An OSD that missed the last map.
    fn comes_back(&mut self, osd: usize) {
        let missed = Arc::new(self.map.clone());
        self.osds[osd].advance(missed, self.now);
        let up = |map: &mut OsdMap| {
            map.osds[osd].state |= osd_state::UP;
            map.osds[osd].info.up_from = map.epoch;
        };
        self.next_map(up, &[0, 1]);
        self.run(&[0, 1]);
    }

    /// Time goes by, as one of them notices.
    fn later(&mut self, at: usize, by: Duration) {
        self.now += by;
        self.osds[at].tick(self.now);
        self.run(&[0, 1]);
    }

    /// A write, and at whom it is logged.
    fn write_at(&mut self, object: HObject, tid: u64, at: &[usize]) -> EVersion {
        let primary = self.map.pg_to_up_acting(PGID).acting_primary as usize;
        let pg = self.primary();
        let (version, horizon) = (pg.next_version(), pg.horizon());
        let reqid = RequestId { name: EntityName::client(1), tid, inc: 0 };
        let mut entry =
            PgLogEntry { op: log_op::MODIFY, object, version, reqid, ..Default::default() };
        entry.set_store_epoch(tid);
        pg.append(entry.clone());
        for &osd in at.iter().filter(|osd| **osd != primary) {
            let epoch = self.map.epoch;
            assert!(self.osds[osd].apply(primary as i32, epoch, entry.clone(), horizon));
        }
        version
    }

    /// The PG is split by the next map, upon which these OSDs act; the others look at it when they come
    /// back.
    fn split(mut self, change: impl FnOnce(&mut OsdMap), at: &[usize]) -> (Self, Self) {
        self.map.epoch += 1;
        let pool = self.map.pools.get_mut(&PGID.pool).unwrap();
        (pool.pg_num, pool.pg_num_pending) = (2, 2);
        change(&mut self.map);
        let map = Arc::new(self.map.clone());
        let children = [0, 1].map(|me| {
            self.osds[me].advance(map.clone(), NOW);
            self.osds[me].split_off(PgId { seed: 1, ..PGID })
        });
        let mut child = Self { map: self.map.clone(), osds: children, ..Self::new(1) };
        for pair in [&mut self, &mut child] {
            at.iter().for_each(|&me| pair.osds[me].activate_map(NOW));
            pair.run(at);
        }
        (self, child)
    }

    fn asked(&mut self) -> Vec<(usize, Action)> {
        std::mem::take(&mut self.asked)
    }

    fn write(&mut self, tid: u64) -> Vec<SendTo> {
        let pg = self.primary();
        let entry = PgLogEntry {
            op: log_op::MODIFY,
            object: object(),
            version: pg.next_version(),
            reqid: RequestId { name: EntityName::client(1), tid, inc: 0 },
            ..Default::default()
        };
        pg.append(entry)
    }
}

fn goes_down(map: &mut OsdMap, osd: usize) {
    map.osds[osd].state &= !osd_state::UP;
    map.osds[osd].xinfo.dead_epoch = map.epoch;
}

fn object() -> HObject {
    HObject { oid: "o".into(), pool: 1, ..HObject::min() }
}

#[test]
fn an_osd_goes_and_comes_back() {
    let mut pair = Pair::new(1);
    assert_eq!(pair.shows(), "active+clean");
    assert!(pair.primary().may_serve(NOW));
    assert!(!pair.primary().may_serve(NOW + CONFIG.lease), "the lease was not renewed");
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    let other = 1 - primary;

    pair.next_map(|map| goes_down(map, other), &[primary]);
    assert_eq!(pair.shows(), "peering");
    let since = pair.map.epoch;
    assert_eq!(pair.primary().wants(), [Action::WantUpThru(since)]);
    pair.run(&[primary]);
    assert_eq!(pair.primary().wants(), []);
    assert_eq!(pair.write(1), []);
    assert_eq!(pair.shows(), "active+undersized+degraded");
    assert!(pair.primary().may_serve(NOW), "the other is known to be dead");

    pair.comes_back(other);
    assert_eq!(pair.shows(), "active+recovering+degraded");
    assert_eq!(pair.primary().holds_up_write(&object()), Some(Holdup::Missing));
    assert_eq!(pair.primary().holds_up_read(&object()), None);

    let push = Recover::Push { object: object(), to: vec![other as i32] };
    assert_eq!(pair.primary().recover(5), [push]);
    pair.osds[other].got_push(&object());
    pair.primary().pushed(other as i32, &object());
    pair.primary().check_progress();
    pair.run(&[0, 1]);
    assert_eq!(pair.shows(), "active+clean");
    assert_eq!(pair.osds[other].state(), State::ReplicaActive);
    assert_eq!(pair.write(2), [SendTo::Whole(other as i32)]);
    assert!(pair.primary().past_intervals().is_empty());
    assert_eq!(pair.osds[other].info().last_update, EVersion::new(pair.map.epoch - 2, 1));
}

#[test]
fn below_min_size_nothing_is_served() {
    let mut pair = Pair::new(2);
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    pair.next_map(|map| map.osds[1 - primary].state &= !osd_state::UP, &[primary]);
    pair.run(&[primary]);
    assert_eq!(pair.shows(), "undersized+peered+wait");
    let long_after = NOW + CONFIG.lease * 2;
    assert!(!pair.primary().may_serve(long_after));
}

#[test]
fn a_copy_that_knows_nothing_is_told() {
    let mut pair = Pair::with(1, Peering::unknown);
    assert_eq!(pair.shows(), "active+clean");
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    let copy = &pair.osds[1 - primary];
    assert_eq!(copy.state(), State::ReplicaActive);
    assert_eq!(copy.info().history.epoch_created, pair.osds[primary].info().history.epoch_created);
}

/// A pair in which the copy lacks an object, and nobody has a slot yet.
fn degraded() -> (Pair, usize, usize) {
    let mut pair = Pair::new(1);
    pair.grants = false;
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    pair.next_map(|map| goes_down(map, 1 - primary), &[primary]);
    pair.run(&[primary]);
    pair.write(1);
    pair.comes_back(1 - primary);
    (pair, primary, 1 - primary)
}

#[test]
fn recovery_waits_for_slots_here_and_there() {
    let (mut pair, primary, other) = degraded();
    let (kind, waits) = (ReserveKind::Recovery, "active+recovery_wait+degraded");
    let local = (primary, Action::LocalReserve { kind, priority: 180 });
    let remote = (other, Action::RemoteReserve { kind, priority: 180 });
    assert_eq!((pair.shows().as_str(), pair.asked()), (waits, vec![local.clone()]));
    assert_eq!(pair.primary().recover(5), []);
    pair.osds[primary].reserved(Slot::Local);
    pair.run(&[0, 1]);
    assert_eq!((pair.shows().as_str(), pair.asked()), (waits, vec![remote]));
    pair.osds[other].reserved(Slot::Remote);
    pair.run(&[0, 1]);
    assert_eq!(pair.shows(), "active+recovering+degraded");

    pair.osds[other].preempted(Slot::Remote);
    pair.run(&[0, 1]);
    let asked = pair.asked();
    assert_eq!(asked, [(primary, Action::CancelLocal), local], "it waits again");
    assert_eq!((pair.shows().as_str(), pair.primary().recover(5)), (waits, vec![]));
    assert!(pair.primary().force(kind, true) && !pair.primary().force(kind, true));
    pair.run(&[0, 1]);
    assert_eq!(pair.asked(), [(primary, Action::LocalReserve { kind, priority: 255 })]);
    assert_eq!(pair.shows(), "active+recovery_wait+forced_recovery+degraded");

    pair.primary().recover_soon(&object());
    assert_eq!(pair.primary().recover(5).len(), 1, "a client does not wait for slots");
    pair.osds[other].got_push(&object());
    pair.primary().pushed(other as i32, &object());
    pair.primary().check_progress();
    pair.run(&[0, 1]);
    assert_eq!(pair.asked(), [(primary, Action::CancelLocal)]);
    assert_eq!(pair.shows(), "active+clean");
    assert!(!pair.primary().force(kind, true), "nothing is to be recovered");
}

#[test]
fn flags_and_full_osds_hold_recovery_up() {
    let (mut pair, primary, other) = degraded();
    pair.grants = true;
    pair.osds[primary].reserved(Slot::Local);
    pair.next_map(|map| map.flags |= flags::NORECOVER, &[0, 1]);
    pair.run(&[0, 1]);
    assert_eq!(pair.shows(), "active+recovering+degraded");
    assert_eq!(pair.primary().recover(5), []);
    pair.next_map(|map| map.flags &= !flags::NORECOVER, &[0, 1]);
    assert_eq!(pair.primary().recover(5).len(), 1);

    let (mut pair, ..) = degraded();
    pair.next_map(|map| map.osds[other].state |= osd_state::FULL, &[0, 1]);
    pair.osds[primary].preempted(Slot::Local);
    assert_eq!(pair.shows(), "active+recovery_toofull+degraded");
    pair.next_map(|map| map.osds[other].state &= !osd_state::FULL, &[0, 1]);
    assert_eq!(pair.shows(), "active+recovery_toofull+degraded");
    let retry = pair.primary().next_tick().unwrap();
    let retry = retry.max(NOW + Duration::from_secs(30));
    pair.osds[primary].tick(retry);
    assert_eq!(pair.shows(), "active+recovery_wait+degraded");
}

/// The log of the primary does not reach to what the copy has.
#[test]
fn a_full_target_is_asked_again() {
    let mut pair = Pair::with(1, Peering::create);
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    let other = 1 - primary;
    pair.next_map(|map| goes_down(map, other), &[primary]);
    pair.run(&[primary]);
    for tid in 1..=600 {
        pair.write(tid);
        let version = pair.primary().info().last_update;
        pair.primary().written_everywhere(version);
        pair.primary().trim_log();
    }
    pair.osds[other].set_too_full(true);
    pair.comes_back(other);
    assert_eq!(pair.shows(), "active+undersized+degraded+remapped+backfill_toofull");
    assert_eq!(pair.primary().backfill_scans(), []);
    pair.osds[other].set_too_full(false);
    pair.later(primary, Duration::from_secs(30));
    assert_eq!(pair.shows(), "active+undersized+degraded+remapped+backfilling");
    let all = flags::NOBACKFILL | flags::NORECOVER | flags::NOREBALANCE;
    for (flags, scans) in [(flags::NOBACKFILL, 0), (flags::NORECOVER, 0), (flags::NOREBALANCE, 1)] {
        pair.next_map(|map| map.flags = (map.flags & !all) | flags, &[0, 1]);
        assert_eq!(pair.primary().backfill_scans().len(), scans, "{flags:x}");
    }
    pair.osds[other].set_too_full(true);
    pair.run(&[0, 1]);
    assert_eq!(pair.shows(), "active+undersized+degraded+remapped+backfill_toofull");
}

#[test]
fn a_quiet_pg_has_a_short_log_and_all_know_what_all_hold() {
    let mut pair = Pair::new(1);
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    let other = 1 - primary;
    for tid in 1..=600 {
        pair.write(tid);
        let entry = pair.primary().log().entries().next_back().unwrap().clone();
        let (epoch, horizon, version) = (pair.map.epoch, pair.primary().horizon(), entry.version);
        assert!(pair.osds[other].apply(primary as i32, epoch, entry, horizon));
        pair.primary().written_everywhere(version);
    }
    let head = pair.primary().info().last_update;
    assert!(pair.osds[other].horizon() < head);
    let mut ticks = 0;
    while let Some(due) = pair.primary().next_tick().filter(|due| *due < NOW + CONFIG.lease / 4) {
        pair.primary().tick(due);
        pair.run(&[0, 1]);
        ticks += 1;
    }
    assert!(ticks <= 3, "then it is left alone");
    for osd in &pair.osds {
        assert_eq!((osd.horizon(), osd.log().len(), osd.info().last_complete), (head, 250, head));
    }
}

#[test]
fn what_accumulated_is_cut_when_the_pg_is_clean() {
    let (mut pair, primary, other) = degraded();
    for tid in 2..=600 {
        pair.write(tid);
    }
    pair.grants = true;
    pair.osds[primary].reserved(Slot::Local);
    pair.run(&[0, 1]);
    // The copy logs all, but lacks the object until it is pushed.
    let head = pair.primary().info().last_update;
    pair.primary().written_everywhere(head);
    let entries: Vec<_> = pair.primary().log().entries().skip(1).cloned().collect();
    for entry in entries {
        let (epoch, horizon) = (pair.map.epoch, EVersion::default());
        assert!(pair.osds[other].apply(primary as i32, epoch, entry, horizon));
    }
    assert_eq!(pair.primary().recover(5).len(), 1);
    pair.osds[other].got_push(&object());
    pair.primary().pushed(other as i32, &object());
    pair.primary().check_progress();
    pair.run(&[0, 1]);
    assert_eq!(pair.shows(), "active+clean");
    for osd in &pair.osds {
        assert_eq!((osd.log().len(), osd.horizon(), osd.trim_to()), (250, head, osd.log().tail()));
    }
}

#[test]
fn nobody_reads_by_a_clock_that_jumped() {
    let mut pair = Pair::new(2);
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    let (other, second) = (1 - primary as i32, 1_000_000_000);
    let stamp = |pair: &mut Pair, ahead: i64| {
        let (lb, ub, now) = (Some(ahead - 1000), Some(ahead + 1000), pair.now);
        pair.osds[primary].hb_stamps(other, lb, ub, now)
    };
    for ahead in [5 * second, 5 * second + second / 8] {
        assert!(!stamp(&mut pair, ahead) && pair.primary().may_serve(NOW), "less than the slack");
    }
    assert!(stamp(&mut pair, 0));
    assert!(!pair.primary().may_serve(NOW));
    pair.run(&[0, 1]);
    assert!(pair.primary().may_serve(NOW), "the lease was renewed at once");
    // Twice as fast: every heartbeat shows it.
    for n in 1..5 {
        pair.now += Duration::from_secs(6);
        pair.osds[primary].tick(pair.now);
        pair.run(&[0, 1]);
        let now = pair.now;
        assert!(pair.primary().may_serve(now));
        stamp(&mut pair, n * -3 * second);
        let now = pair.now;
        assert!(!pair.primary().may_serve(now));
    }
    pair.run(&[0, 1]);
    let now = pair.now;
    assert!(pair.primary().may_serve(now));
    pair.now -= Duration::from_secs(20);
    let now = pair.now;
    assert!(!pair.primary().may_serve(now), "the clock went back");
    let now = pair.now;
    pair.primary().tick(now);
    pair.run(&[0, 1]);
    let now = pair.now;
    assert!(pair.primary().may_serve(now));
    let now = pair.now;
    assert!(!pair.primary().may_serve(now + CONFIG.lease));
}

#[test]
fn a_copy_answers_reads_of_what_all_hold() {
    let mut pair = Pair::new(2);
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    let copy = 1 - primary;
    let reads = |pair: &Pair| pair.osds[copy].may_read_here(&object(), pair.now);
    let renew = |pair: &mut Pair| {
        pair.now = pair.primary().next_tick().unwrap().max(pair.now);
        pair.later(primary, Duration::ZERO);
    };
    renew(&mut pair);
    assert!(!reads(&pair), "nothing is known of the clocks");
    let now = pair.now;
    pair.osds[copy].hb_stamps(primary as i32, Some(-1000), Some(1000), now);
    renew(&mut pair);
    assert!(reads(&pair));
    assert!(!pair.osds[primary].may_read_here(&object(), pair.now), "not a copy");
    pair.now += CONFIG.lease / 2;
    assert!(!reads(&pair), "the lease was not renewed");
    pair.now = now;
    renew(&mut pair);
    let now = pair.now;
    pair.osds[copy].hb_stamps(primary as i32, Some(-1000), Some(1000), now);

    pair.write(1);
    let entry = pair.primary().log().entries().next_back().unwrap().clone();
    let (epoch, horizon, version) = (pair.map.epoch, pair.primary().horizon(), entry.version);
    assert!(reads(&pair), "the copy has not got it, so nobody was told of it");
    assert!(pair.osds[copy].apply(primary as i32, epoch, entry, horizon));
    assert!(!reads(&pair), "maybe others have not got it");
    let another = HObject { oid: "another".into(), ..object() };
    assert!(pair.osds[copy].may_read_here(&another, pair.now));
    pair.primary().written_everywhere(version);
    for _ in 0..3 {
        pair.later(primary, Duration::from_secs(1));
    }
    assert!(reads(&pair), "it is told");
    pair.next_map(|map| goes_down(map, primary), &[copy]);
    assert!(!reads(&pair), "another interval");
}

/// Two writes of each half are everywhere, one of each is logged by the primary alone.
fn before_a_split() -> (Pair, usize, [EVersion; 2]) {
    let mut pair = Pair::new(1);
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
    let [left, right] = [0, 1].map(|hash| HObject { hash, ..object() });
    for tid in 1..=4 {
        let object = if tid % 2 == 0 { &left } else { &right };
        let version = pair.write_at(object.clone(), tid, &[0, 1]);
        pair.primary().written_everywhere(version);
    }
    let alone = [pair.write_at(left, 5, &[]), pair.write_at(right, 6, &[])];
    (pair, primary, alone)
}

#[test]
fn both_halves_of_a_split_go_on() {
    let (pair, primary, alone) = before_a_split();
    let (parent, child) = pair.split(|_| (), &[0, 1]);
    for (mut half, version) in [(parent, alone[0]), (child, alone[1])] {
        assert_eq!(half.shows(), "active+recovering+degraded");
        for osd in &half.osds {
            assert_eq!(
                (osd.log().len(), osd.log().entries().next_back().unwrap().version),
                (3, version)
            );
            assert_ne!(osd.info().history.last_epoch_split, 0);
        }
        assert_eq!(half.osds[1 - primary].missing().len(), 1);
        assert_eq!(half.undone, []);
        assert_eq!(half.osds[0].log().head(), half.osds[1].log().head());
    }
}

#[test]
fn what_one_copy_wrote_alone_before_a_split_is_undone_in_both_halves() {
    let (pair, primary, alone) = before_a_split();
    let other = 1 - primary;
    let (parent, child) = pair.split(|map| goes_down(map, primary), &[other]);
    for (mut half, version) in [(parent, alone[0]), (child, alone[1])] {
        assert_eq!(half.shows(), "active+undersized+degraded");
        let past = &half.osds[other].past_intervals().intervals;
        let asked = past.iter().any(|i| i.acting.iter().any(|member| member.osd == primary as i32));
        assert!(asked, "the interval of both may have been written to");
        half.comes_back(primary);
        assert_eq!(half.shows(), "active+clean");
        assert_eq!(half.undone, [(primary, version)]);
        let heads = half.osds.each_ref().map(|osd| (osd.log().head(), osd.log().len()));
        assert_eq!((heads[0], heads[0].1), (heads[1], 2));
    }
}

/// A driver waits for commits on behalf of a machine; then another one is in its place.
#[test]
fn a_commit_of_an_earlier_machine_activates_nothing() {
    let awaited = |mut pair: Pair| {
        let primary = pair.map.pg_to_up_acting(PGID).acting_primary as usize;
        let stored = pair.osds[primary].stored();
        let map = pair.osds[primary].map().clone();
        let mut pg = Peering::load(primary as i32, stored, map, CONFIG, NOW);
        pair.next_map(|map| goes_down(map, 1 - primary), &[]);
        pair.map.osds[primary].info.up_thru = pair.map.epoch;
        pg.advance(Arc::new(pair.map.clone()), NOW);
        pg.activate_map(NOW);
        let awaits = |action| match action {
            Action::AwaitCommit(number) => Some(number),
            _ => None,
        };
        let number = std::iter::from_fn(|| pg.poll()).find_map(awaits);
        (pg, number.unwrap())
    };
    let (mut first, before) = awaited(Pair::new(1));
    let (mut second, now) = awaited(Pair::new(1));
    assert_eq!(second.state(), State::Activating);
    second.committed(before, NOW);
    assert_eq!(second.state(), State::Activating);
    second.committed(now, NOW);
    first.committed(before, NOW);
    assert_eq!((first.state(), second.state()), (State::Active, State::Active));
}

/// That `osd` alone may have had the PG until `last`.
fn had_by(osd: i32, last: u32) -> PastIntervals {
    let member = PgShard { osd, shard: ShardId::NONE };
    let interval = CompactInterval { first: 1, last, acting: [member].into() };
    PastIntervals { first: 1, last, all_participants: [member].into(), intervals: vec![interval] }
}

/// A pool of one copy; its primary makes the PG unless the other OSD has it, which is up or not. Gives back
/// both numbers, the primary's first.
fn made_unless(up: bool) -> (Pair, usize, usize) {
    let mut pair = Pair::with(1, Peering::unknown);
    let change = |map: &mut OsdMap| _ = map.pools.insert(1, PgPool::replicated(1, 1, 1, 0));
    pair.next_map(change, &[]);
    let primary = pair.map.pg_to_up_acting(PGID).acting_primary;
    let other = 1 - primary;
    if !up {
        pair.map.osds[other as usize].state &= !osd_state::UP;
    }
    let (map, pgid) = (Arc::new(pair.map.clone()), SpgId::whole(PGID));
    let past = had_by(other, map.epoch - 1);
    pair.osds[primary as usize] =
        Peering::create_unless(primary, pgid, map.clone(), past, NO_LEASE);
    pair.osds[other as usize] = Peering::unknown(other, pgid, map, NO_LEASE);
    pair.network.clear();
    (pair, primary as usize, other as usize)
}

#[test]
fn a_pg_is_made_once_all_have_said_that_they_have_nothing() {
    let (mut pair, primary, _) = made_unless(true);
    pair.osds[primary].activate_map(NOW);
    assert_ne!(pair.shows(), "active+clean", "it was asked");
    pair.run(&[0, 1]);
    assert_eq!(pair.shows(), "active+clean");
}

#[test]
fn a_pg_is_not_made_while_one_cannot_say_unless_that_is_lost() {
    let (mut pair, primary, other) = made_unless(false);
    pair.osds[primary].activate_map(NOW);
    pair.run(&[primary]);
    assert_eq!(pair.shows(), "down");
    let epoch = pair.map.epoch;
    pair.next_map(|map| map.osds[other].info.lost_at = epoch, &[primary]);
    pair.run(&[primary]);
    assert_eq!(pair.shows(), "active+clean");
}

#[test]
fn a_pg_that_another_has_is_not_made_anew() {
    let (mut pair, primary, other) = made_unless(true);
    // It made the PG, in its own time, and wrote to it.
    let mut alone = Pair::new(1);
    alone.write(7);
    let has = alone.primary().stored();
    let map = Arc::new(pair.map.clone());
    pair.osds[other] = Peering::load(other as i32, has.clone(), map, NO_LEASE, NOW);
    pair.osds[other].activate_map(NOW);
    pair.osds[primary].activate_map(NOW);
    pair.run(&[0, 1]);
    let made = pair.osds[primary].info();
    assert_eq!(made.last_update, has.info.last_update, "the other's history counts");
}
