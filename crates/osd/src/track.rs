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

/// How far a request is; each stage is a module of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Admit,
    Execute,
    Done,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Admit => "admitted",
            Self::Execute => "started",
            Self::Done => "commit sent; apply or cleanup",
        }
    }
}

/// What is kept of a request.
#[derive(Debug)]
pub struct Tracked {
    pub received: Duration,
    pub finished: Cell<Option<Duration>>,
    pub stage: Cell<Stage>,
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
            finished: Cell::new(None),
            stage: Cell::new(Stage::Admit),
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
        tracked.stage.set(Stage::Done);
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
