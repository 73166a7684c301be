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
    running: RefCell<BTreeMap<u64, Rc<Tracked>>>,
    recent: RefCell<VecDeque<Rc<Tracked>>>,
    keep: Cell<usize>,
    perf: Cell<Perf>,
}

impl Tracker {
    /// How many finished requests are kept.
    pub fn keep(&self, count: u64) {
        self.keep.set(count.min(10_000) as usize);
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
        self.running.borrow_mut().insert(id, tracked.clone());
        (id, tracked)
    }

    /// The request was answered with `bytes_out` of data, or dropped (`None`).
    pub fn finish(&self, id: u64, bytes_out: Option<u64>) {
        let Some(tracked) = self.running.borrow_mut().remove(&id) else {
            return;
        };
        let Some(bytes_out) = bytes_out else { return };
        tracked.finished.set(Some(now()));
        let (took, mut perf) = (tracked.duration(), self.perf.get());
        perf.all.add(took);
        if tracked.writes { &mut perf.writes } else { &mut perf.reads }.add(took);
        perf.bytes_in += tracked.bytes_in;
        perf.bytes_out += bytes_out;
        self.perf.set(perf);
        let mut recent = self.recent.borrow_mut();
        recent.push_back(tracked);
        while recent.len() > self.keep.get() {
            recent.pop_front();
        }
    }

    pub fn in_flight(&self) -> Vec<Rc<Tracked>> {
        self.running.borrow().values().cloned().collect()
    }

    /// Finished requests, oldest first.
    pub fn history(&self) -> Vec<Rc<Tracked>> {
        self.recent.borrow().iter().cloned().collect()
    }

    pub fn perf(&self) -> Perf {
        self.perf.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_last_until_the_next_one() {
        let ms = Duration::from_millis;
        let op = Tracked {
            received: ms(10),
            started: Cell::new(Some(ms(12))),
            finished: Cell::new(Some(ms(17))),
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
        };
        let want =
            [("initiated", ms(10), ms(2)), ("started", ms(12), ms(5)), ("done", ms(17), ms(7))];
        assert_eq!(op.events(), want);
        assert_eq!(op.flag_point(), "commit sent; apply or cleanup");
        // One that was refused was never begun.
        op.started.set(None);
        assert_eq!(op.events(), [("initiated", ms(10), ms(7)), ("done", ms(17), ms(7))]);
    }
}
