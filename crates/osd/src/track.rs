//! Requests in flight and the last ones that finished, with their latencies.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_wire::msg::ops::OpCode;
use spirula_wire::types::{EntityAddr, EntityName, PgId};
use spirula_xstream::now;

use crate::front::OpRequest;
use crate::session::Session;

/// What is kept of a request.
#[derive(Debug)]
pub struct Tracked {
    pub received: Duration,
    /// Admitted, and begun to be carried out.
    pub started: Cell<Option<Duration>>,
    pub finished: Cell<Option<Duration>>,
    pub client: EntityName,
    pub client_addr: EntityAddr,
    pub tid: u64,
    pgid: PgId,
    oid: Bytes,
    first_op: OpCode,
    op_count: usize,
    epoch: u32,
    bytes_in: u64,
    writes: bool,
}

impl Tracked {
    pub fn duration(&self) -> Duration {
        self.finished.get().unwrap_or_else(now).saturating_sub(self.received)
    }

    /// How far it is, in Ceph's words.
    pub fn flag_point(&self) -> &'static str {
        match (self.started.get(), self.finished.get()) {
            (_, Some(_)) => "commit sent; apply or cleanup",
            (Some(_), None) => "started",
            (None, None) => "admitted",
        }
    }

    /// What happened when, in order; each lasts until the next one, `done` as long as all.
    pub fn events(&self) -> Vec<(&'static str, Duration, Duration)> {
        let times = [("started", self.started.get()), ("done", self.finished.get())];
        let later = times.into_iter().filter_map(|(name, time)| Some((name, time?)));
        let all: Vec<_> = [("initiated", self.received)].into_iter().chain(later).collect();
        let until_next = |i: usize, time: Duration| {
            all.get(i + 1).map_or_else(now, |(_, next)| *next).saturating_sub(time)
        };
        let each = all.iter().enumerate().map(|(i, (name, time))| match self.finished.get() {
            Some(end) if *time == end && i + 1 == all.len() => (*name, end, self.duration()),
            _ => (*name, *time, until_next(i, *time)),
        });
        each.collect()
    }

    pub fn description(&self) -> String {
        let more =
            if self.op_count > 1 { format!(",+{}", self.op_count - 1) } else { String::new() };
        format!(
            "osd_op({}:{} {} {} [{}{more}] e{})",
            self.client,
            self.tid,
            self.pgid,
            self.oid.escape_ascii(),
            self.first_op,
            self.epoch
        )
    }
}

/// Sum and count of latencies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    pub count: u64,
    pub sum: Duration,
}

impl Timing {
    fn add(&mut self, d: Duration) {
        self.count += 1;
        self.sum += d;
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Perf {
    pub all: Timing,
    pub reads: Timing,
    pub writes: Timing,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// All requests of a target.
#[derive(Debug, Default)]
pub struct Tracker {
    next: Cell<u64>,
    running: RefCell<BTreeMap<u64, (Rc<Tracked>, Rc<Session>)>>,
    recent: RefCell<VecDeque<Rc<Tracked>>>,
    keep: Cell<usize>,
    keep_for: Cell<Duration>,
    perf: Cell<Perf>,
}

impl Tracker {
    /// How many finished requests are kept, and for how long.
    pub fn keep(&self, count: u64, time: Duration) {
        self.keep.set(count.min(10_000) as usize);
        self.keep_for.set(time);
    }

    fn forget_old(&self, now: Duration) {
        let mut recent = self.recent.borrow_mut();
        let is_old = |op: &Rc<Tracked>| {
            now.saturating_sub(op.finished.get().unwrap_or(now)) > self.keep_for.get()
        };
        while recent.len() > self.keep.get() || recent.front().is_some_and(is_old) {
            recent.pop_front();
        }
    }

    pub fn start(&self, request: &OpRequest) -> (u64, Rc<Tracked>) {
        let msg = &request.msg;
        let tracked = Rc::new(Tracked {
            received: request.received,
            started: Cell::new(None),
            finished: Cell::new(None),
            client: request.session.entity,
            client_addr: request.session.addrs.front(),
            tid: request.tid,
            pgid: msg.spgid.pgid,
            oid: msg.oid.clone(),
            first_op: msg.ops.first().map(|op| op.code).unwrap_or_default(),
            op_count: msg.ops.len(),
            epoch: msg.map_epoch,
            bytes_in: msg.ops.iter().map(|op| op.indata.len() as u64).sum(),
            writes: request.class.writes,
        });
        let id = self.next.get();
        self.next.set(id + 1);
        let running = (tracked.clone(), request.session.clone());
        self.running.borrow_mut().insert(id, running);
        (id, tracked)
    }

    /// The request was answered with `bytes_out` of data, or dropped (`None`).
    pub fn finish(&self, id: u64, bytes_out: Option<u64>) {
        let Some((tracked, _)) = self.running.borrow_mut().remove(&id) else {
            return;
        };
        let Some(bytes_out) = bytes_out else { return };
        let now = now();
        tracked.finished.set(Some(now));
        let (took, mut perf) = (tracked.duration(), self.perf.get());
        perf.all.add(took);
        if tracked.writes { &mut perf.writes } else { &mut perf.reads }.add(took);
        perf.bytes_in += tracked.bytes_in;
        perf.bytes_out += bytes_out;
        self.perf.set(perf);
        self.recent.borrow_mut().push_back(tracked);
        self.forget_old(now);
    }

    pub fn in_flight(&self) -> Vec<Rc<Tracked>> {
        self.running.borrow().values().map(|(tracked, _)| tracked.clone()).collect()
    }

    /// Whose requests to a PG are in flight; sessions with several come several times.
    pub fn sessions_on(&self, pgid: PgId) -> Vec<Rc<Session>> {
        let running = self.running.borrow();
        let there = running.values().filter(|(tracked, _)| tracked.pgid == pgid);
        there.map(|(_, session)| session.clone()).collect()
    }

    /// Finished requests, oldest first.
    pub fn history(&self) -> Vec<Rc<Tracked>> {
        self.forget_old(now());
        self.recent.borrow().iter().cloned().collect()
    }

    pub fn perf(&self) -> Perf {
        self.perf.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn finished_at(time: Duration) -> Tracked {
        Tracked {
            received: MS(10),
            started: Cell::new(Some(MS(12))),
            finished: Cell::new(Some(time)),
            client: EntityName::client(1),
            client_addr: EntityAddr::default(),
            tid: 1,
            pgid: PgId::default(),
            oid: Bytes::new(),
            first_op: OpCode::default(),
            op_count: 1,
            epoch: 1,
            bytes_in: 0,
            writes: true,
        }
    }

    #[test]
    fn what_is_finished_is_kept_for_a_while() {
        let tracker = Tracker::default();
        let left = |now| {
            tracker.forget_old(now);
            tracker.recent.borrow().len()
        };
        tracker.keep(3, MS(100));
        for time in [20, 30, 40, 50] {
            tracker.recent.borrow_mut().push_back(Rc::new(finished_at(MS(time))));
        }
        assert_eq!(left(MS(60)), 3, "the oldest is one too many");
        assert_eq!(left(MS(130)), 3);
        assert_eq!(left(MS(145)), 1, "two are too old");
        tracker.keep(0, MS(100));
        assert_eq!(left(MS(145)), 0);
    }

    #[test]
    fn events_last_until_the_next_one() {
        let (op, ms) = (finished_at(MS(17)), MS);
        let want =
            [("initiated", ms(10), ms(2)), ("started", ms(12), ms(5)), ("done", ms(17), ms(7))];
        assert_eq!(op.events(), want);
        assert_eq!(op.flag_point(), "commit sent; apply or cleanup");
        // One that was refused was never begun.
        op.started.set(None);
        assert_eq!(op.events(), [("initiated", ms(10), ms(7)), ("done", ms(17), ms(7))]);
    }
}
