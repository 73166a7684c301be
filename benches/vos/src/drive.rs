//! Keeps operations in flight: as many tasks as the depth says, each with one operation at a time.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use spirula_perf::{Latencies, LoadArgs, Progress};
use spirula_xstream::{Class, spawn, yield_now};

/// What a phase does.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) ops: u64,
    pub(crate) depth: u64,
    /// The time of the load ends it, too.
    pub(crate) timed: bool,
}

/// What was done.
pub(crate) struct Done {
    pub(crate) ops: u64,
    pub(crate) latencies: Latencies,
}

struct Shared<F> {
    op: F,
    progress: RefCell<Progress>,
    latencies: RefCell<Latencies>,
}

/// Runs `op` with the number of each operation, several at the same time, until the plan is done.
pub(crate) async fn drive<F, Fut>(load: &LoadArgs, plan: Plan, op: F) -> Result<Done>
where
    F: Fn(u64) -> Fut + 'static,
    Fut: Future<Output = Result<()>> + 'static,
{
    let time = if plan.timed { load.time() } else { None };
    let shared = Rc::new(Shared {
        op,
        progress: RefCell::new(Progress::new(plan.ops, time)),
        latencies: RefCell::default(),
    });
    let tasks: Vec<_> =
        (0..plan.depth).map(|_| spawn(Class::Client, work(shared.clone()))).collect();
    for task in tasks {
        task.await.map_err(|_| anyhow!("an operation was cancelled"))??;
    }
    let ops = shared.progress.borrow().taken();
    let latencies = shared.latencies.take();
    Ok(Done { ops, latencies })
}

async fn work<F, Fut>(shared: Rc<Shared<F>>) -> Result<()>
where
    F: Fn(u64) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    loop {
        let Some(number) = shared.progress.borrow_mut().take() else {
            return Ok(());
        };
        let begin = Instant::now();
        (shared.op)(number).await?;
        shared.latencies.borrow_mut().add(begin.elapsed());
        // An operation that never waited would keep the others, and their I/O, waiting.
        yield_now().await;
    }
}
