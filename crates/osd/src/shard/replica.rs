//! Writes at the other copies, and their acknowledgements at the primary.
//!
//! A copy submits what its primary sends in the order in which it comes, and answers when it is durable;
//! an answer speaks for everything before it.

use std::rc::Rc;
use std::time::Duration;

use spirula_msgr::on_xstream::Incoming;
use spirula_vos::{Home, StageError, Tx};
use spirula_wire::msg::repop::{RepOp, RepOpReply};
use spirula_wire::types::EVersion;
use spirula_wire::{Decode, Features, Message};
use spirula_xstream::sleep;

use super::{Shard, drive};
use crate::apply::{apply_trim, meta_object};
use crate::pg::log::Trim;
use crate::stats::StatSum;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;

/// Until a write for which there is no space is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A write that has come, with its share of the throttle.
pub struct Arrived {
    from: i32,
    op: RepOp,
    _incoming: Incoming,
}

impl Shard {
    /// Members hold all of the log so far.
    pub fn begin_interval(&self) {
        let machine = self.machine.borrow();
        let last = machine.info().last_update.version;
        *self.acked.borrow_mut() = machine.members().iter().map(|&osd| (osd, last)).collect();
    }
}

/// A write of a primary.
pub fn take(target: &Target, from: i32, incoming: Incoming) {
    let op = match RepOp::from_raw(&incoming.raw) {
        Ok(op) => op,
        Err(e) => return tracing::error!(from, "a write of a primary does not decode: {e}"),
    };
    let Some(shard) = target.shards().get(op.spgid.pgid) else {
        return tracing::debug!(pgid = %op.spgid, from, "a write of a PG that is not here");
    };
    shard.writes.borrow_mut().push_back(Arrived { from, op, _incoming: incoming });
    if !shard.applying.replace(true) {
        let (me, of) = (target.clone(), shard.clone());
        drive::begin(target, async move {
            let done = apply_all(&me, &of).await;
            of.applying.set(false);
            done
        });
    }
}

async fn apply_all(target: &Target, shard: &Rc<Shard>) -> Result<(), TargetError> {
    loop {
        let Some(next) = shard.writes.borrow_mut().pop_front() else {
            return Ok(());
        };
        while target.epoch() < next.op.map_epoch {
            target.map_changed().await;
        }
        apply(target, shard, next).await?;
    }
}

async fn apply(target: &Target, shard: &Rc<Shard>, write: Arrived) -> Result<(), TargetError> {
    let (store, op, from) = (target.store(), &write.op, write.from);
    let bad = || TargetError::BadReplica(shard.pgid);
    let meta = meta_object(shard.cid);
    let data = op.data.first().cloned().unwrap_or_default();
    let home = Home { cid: shard.cid, records: &meta };
    let stats = StatSum::from_bytes(&op.stats).map_err(|_| bad())?;
    store.admit().await;
    let (commit, epoch, trim) = loop {
        let follows = shard.machine.borrow().follows(from, op.map_epoch, op.entry.version);
        if !follows || shard.held.get() {
            tracing::debug!(pgid = %shard.pgid, from, version = %op.entry.version, "void write");
            return Ok(());
        }
        let mut tx = Tx::from_wire(op.tx.clone(), data.clone(), home).map_err(|_| bad())?;
        // Whether there is room was asked where it was decided.
        tx.use_reserve();
        let trim = due_trim(shard, op.trim_to);
        if let Some(trim) = &trim {
            apply_trim(&mut tx, shard.cid, trim);
        }
        match store.submit(&tx) {
            Ok(commit) => break (commit, tx.epoch, trim),
            Err(StageError::Missing(pages)) => store.load(pages).await?,
            Err(StageError::NoSpace) => {
                tracing::error!(pgid = %shard.pgid, "no space for a write of the primary");
                sleep(RETRY).await;
            }
            Err(source) => return Err(TargetError::Peering { pgid: shard.pgid, source }),
        }
    };
    let ticket = shard.local.submitted();
    take_in(shard, &write, epoch, stats, trim.as_ref());
    let (me, of) = (target.clone(), shard.clone());
    drive::begin(target, async move {
        if let Err(e) = commit.await {
            of.local.fail();
            return Err(e.into());
        }
        of.local.durable(ticket);
        drive::flush(&me, &of);
        of.local.published(ticket).await?;
        answer(&me, &of, &write);
        Ok(())
    });
    Ok(())
}

/// What is to be cut off the log with a write.
fn due_trim(shard: &Shard, trim_to: EVersion) -> Option<Trim> {
    let (machine, state) = (shard.machine.borrow(), shard.state.borrow());
    let upto = machine.due_as_told(trim_to)?;
    Some(state.batches.trim(machine.log(), upto))
}

/// What was submitted is in memory too.
fn take_in(shard: &Shard, write: &Arrived, epoch: u64, stats: StatSum, trim: Option<&Trim>) {
    let op = &write.op;
    let (mut machine, mut state) = (shard.machine.borrow_mut(), shard.state.borrow_mut());
    if let Some(trim) = trim {
        state.batches.trimmed(machine.log(), trim);
        machine.trim_upto(trim.upto);
    }
    machine.apply(write.from, op.map_epoch, op.entry.clone(), op.horizon);
    state.stored = true;
    state.last_epoch = state.last_epoch.max(epoch);
    state.stats = stats;
}

/// With the epochs of the write, so that it counts only in that interval.
fn answer(target: &Target, shard: &Shard, write: &Arrived) {
    let (to, spgid, version) = (write.from, shard.pgid, write.op.entry.version);
    let (map_epoch, min_epoch) = (write.op.map_epoch, write.op.min_epoch);
    let last_complete = shard.machine.borrow().info().last_complete;
    let reply = RepOpReply { spgid, map_epoch, min_epoch, version, last_complete, result: 0 };
    if let Err(e) = target.peers().send(target, to, reply.to_raw(0, F)) {
        tracing::debug!(pgid = %shard.pgid, to, "a write is not acknowledged: {e}");
    }
}

/// A copy holds a write, and all before it.
pub fn take_reply(target: &Target, from: i32, incoming: Incoming) {
    let reply = match RepOpReply::from_raw(&incoming.raw) {
        Ok(reply) => reply,
        Err(e) => return tracing::error!(from, "an acknowledgement does not decode: {e}"),
    };
    let Some(pg) = target.pgs().get(reply.spgid.pgid).filter(|pg| pg.active.get()) else {
        return;
    };
    if !pg.shard.machine.borrow().is_current(reply.map_epoch) {
        return;
    }
    let limit = {
        let mut acked = pg.shard.acked.borrow_mut();
        if let Some(known) = acked.get_mut(&from) {
            *known = reply.version.version.max(*known);
        }
        acked.values().min().copied().unwrap_or(u64::MAX)
    };
    pg.publisher.raise_limit(limit);
}
