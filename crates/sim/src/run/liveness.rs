//! The second phase of a run: the faults are over, and all must be well within bounded time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use spirula_osd::stats::StatSum;
use spirula_xstream::JoinHandle;

use crate::Cluster;
use crate::fault::Stage;
use crate::load::SNAPS_MAX;

/// Virtual time in which a cluster without faults has healed.
const HEALED_IN: Duration = Duration::from_secs(600);
/// And in which a request is answered then.
const ANSWERED_IN: Duration = Duration::from_secs(120);
/// Requests that show that there is progress.
const PROGRESS: u64 = 60;

/// Without faults the cluster heals, answers, loses nothing when all of it loses power, and agrees.
pub(super) fn run(stage: &mut Stage) -> Result<(), String> {
    stage.mend();
    stage.note("mended");
    clean(stage)?;
    let before = stage.load.answered();
    if !stage.run_while(ANSWERED_IN, |stage| stage.load.answered() > before + PROGRESS) {
        return Err(format!("only {} requests are answered", stage.load.answered() - before));
    }
    stage.load.stop();
    let ended = |stage: &Stage| stage.workers.iter().all(JoinHandle::is_finished);
    if !stage.run_while(ANSWERED_IN, ended) {
        let left = stage.workers.iter().filter(|worker| !worker.is_finished()).count();
        let open = stage.load.history().open().join("; ");
        return Err(format!("{left} requests hang, of these: {open}{}", stage.cluster.describe()));
    }
    look(stage, true)?;
    stage.note("all OSDs lose power");
    for id in 0..stage.cluster.osd_count() {
        stage.cluster.osd_power_loss_of(id);
    }
    (0..stage.cluster.osd_count()).for_each(|id| stage.cluster.start_osd_of(id));
    clean(stage)?;
    look(stage, true)?;
    without_snaps(stage)?;
    same_monitors(stage)
}

/// All snapshots are removed: their clones go, nothing else does, and the PGs' counters say so.
fn without_snaps(stage: &mut Stage) -> Result<(), String> {
    let admin = stage.admin.clone();
    let done = Rc::new(Cell::new(false));
    let set = done.clone();
    stage.on_admin(async move {
        for snap in 1..=SNAPS_MAX {
            let _ = admin.own_snap(Cluster::POOL, Some(snap)).await;
        }
        set.set(true);
    });
    let trimmed =
        |stage: &Stage| done.get() && stage.is_clean() && counters(stage).num_object_clones == 0;
    if !stage.run_while(ANSWERED_IN, trimmed) {
        let left = counters(stage).num_object_clones;
        return Err(format!("{left} clones of removed snapshots stay (removed: {})", done.get()));
    }
    look(stage, false)?;
    let (found, (objects, bytes)) = (counters(stage), stage.load.history().last_seen());
    match (found.num_objects, found.num_bytes) == (objects as i64, bytes as i64) {
        true => Ok(()),
        false => {
            Err(format!("there are {objects} objects, {bytes} bytes; the PGs count {found:?}"))
        }
    }
}

/// Of all PGs of the pool, as their primaries count.
fn counters(stage: &Stage) -> StatSum {
    let targets =
        (0..stage.cluster.osd_count()).filter_map(|id| Some((id, stage.cluster.target(id)?)));
    let mut sum = StatSum::default();
    for (id, target) in targets {
        for pg in target.pgs().all() {
            let primary = pg.mapping.borrow().acting_primary;
            if pg.pgid.pgid.pool == Cluster::POOL && usize::try_from(primary) == Ok(id) {
                sum.add(&pg.state.borrow().stats);
            }
        }
    }
    sum
}

fn clean(stage: &mut Stage) -> Result<(), String> {
    if stage.run_while(HEALED_IN, Stage::is_settled) {
        stage.note("clean");
        return Ok(());
    }
    let what =
        stage.unclean().unwrap_or_else(|| "pg_num or pgp_num is not what was asked for".into());
    Err(format!("not clean: {what}{}", stage.cluster.describe()))
}

/// Reads everything.
fn look(stage: &mut Stage, at_snaps: bool) -> Result<(), String> {
    let host = stage.cluster.clients.last().expect("a client's host").clone();
    let looking = stage.load.look(&stage.cluster, &host, at_snaps);
    match stage.run_while(ANSWERED_IN, |_| looking.is_finished()) {
        true => Ok(()),
        false => Err("the objects cannot be read".into()),
    }
}

/// Monitors catch up with each other once nothing else happens.
fn same_monitors(stage: &mut Stage) -> Result<(), String> {
    let same = |stage: &Stage| {
        let positions = stage.cluster.mon_positions();
        positions.iter().all(|at| *at == positions[0])
    };
    match stage.run_while(ANSWERED_IN, same) {
        true => Ok(()),
        false => Err(format!("monitors at {:?}", stage.cluster.mon_positions())),
    }
}
