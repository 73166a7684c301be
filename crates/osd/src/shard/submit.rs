//! Puts a primary's write into the order of its PG: into its log, its own store, and to the other copies.

use std::rc::Rc;

use bytes::Bytes;
use spirula_pg::SendTo;
use spirula_store::{Commit, StoreError};
use spirula_vos::{Home, NotPortable, StageError, Tx};
use spirula_wire::msg::repop::RepOp;
use spirula_wire::types::{EVersion, HObject};
use spirula_wire::{Encode, Features, Message};

use super::drive;
use crate::apply::{apply_log, apply_trim, meta_object};
use crate::pg::Pg;
use crate::pg::log::{EntryKind, LogEntry};
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;

/// Nothing was submitted, and no copy was told.
#[derive(Debug, thiserror::Error)]
pub enum NotSubmitted {
    #[error(transparent)]
    Refused(#[from] StageError),
    /// What is planned from now on does not see what was planned before, so no copy may get it.
    #[error(transparent)]
    Stopped(StoreError),
}

/// Hands a transaction with its log entry to the store, and takes it into the PG's state. `object`: what
/// the entry's key stands for.
pub fn submit(
    target: &Target,
    pg: &Rc<Pg>,
    tx: &mut Tx,
    entry: LogEntry,
    object: HObject,
) -> Result<Submitted, NotSubmitted> {
    if let Some(stopped) = target.store().stopped() {
        return Err(NotSubmitted::Stopped(stopped));
    }
    let shard = &pg.shard;
    let trim = {
        let (machine, state) = (shard.machine.borrow(), shard.state.borrow());
        let upto = machine.log().due_trim(machine.info().last_complete);
        upto.map(|upto| state.batches.trim(machine.log(), upto))
    };
    apply_log(tx, pg.cid, &entry);
    // The other copies cut their logs themselves: one that misses objects keeps more of it.
    let portable = Portable::of(pg, tx, &entry)?;
    if let Some(trim) = &trim {
        apply_trim(tx, pg.cid, trim);
    }
    let commit = target.store().submit(tx)?;
    let ticket = pg.publisher.submitted();
    debug_assert_eq!(ticket, entry.version.version, "a ticket is the version's number");
    let local = shard.local.submitted();
    let (mut machine, mut state) = (shard.machine.borrow_mut(), shard.state.borrow_mut());
    if let Some(trim) = &trim {
        state.batches.trimmed(machine.log(), trim);
        machine.trim_log();
    }
    state.stored = true;
    state.last_epoch = entry.epoch;
    if let Some(counting) = &mut *pg.counting.borrow_mut() {
        let mut delta = entry.stats;
        delta.subtract(&state.stats);
        counting.changed(&entry.object, &delta);
    }
    state.stats = entry.stats;
    let logged = entry.to_wire(object);
    let copy = portable.is_some().then(|| logged.clone());
    let to = machine.append(logged);
    if let (Some(portable), Some(logged)) = (portable, copy) {
        let trim_to = trim.as_ref().map(|trim| trim.upto).unwrap_or_default();
        let op = RepOp {
            spgid: pg.pgid,
            map_epoch: machine.map().epoch,
            min_epoch: machine.info().history.same_interval_since,
            reqid: logged.reqid,
            entry: logged,
            stats: entry.stats.to_bytes(F).into(),
            horizon: machine.horizon(),
            trim_to,
            ..RepOp::default()
        };
        drop((machine, state));
        portable.send(target, op, to);
    }
    let (target, pg, version) = (target.clone(), pg.clone(), entry.version);
    Ok(Submitted { target, pg, ticket, version, local, commit })
}

/// A transaction as the other copies get it.
struct Portable {
    whole: (Bytes, Vec<Bytes>),
    log_only: Bytes,
}

impl Portable {
    /// `None` if there is no other copy.
    fn of(pg: &Pg, tx: &Tx, entry: &LogEntry) -> Result<Option<Self>, StageError> {
        if pg.shard.machine.borrow().members().is_empty() {
            return Ok(None);
        }
        let meta = meta_object(pg.cid);
        let home = Home { cid: pg.cid, records: &meta };
        let (front, data) = tx.to_wire(home).map_err(|e| refused(pg, &e))?;
        let mut log_only = Bytes::new();
        let recovers = matches!(entry.kind, EntryKind::LostRevert(_));
        if recovers || !pg.shard.machine.borrow().backfill_targets().is_empty() {
            let mut tx = Tx::new(tx.epoch);
            apply_log(&mut tx, pg.cid, entry);
            let (front, _) = tx.to_wire(home).map_err(|e| refused(pg, &e))?;
            log_only = front.into();
        }
        Ok(Some(Self { whole: (front.into(), data), log_only }))
    }

    fn send(self, target: &Target, op: RepOp, to: Vec<SendTo>) {
        for to in to {
            let (osd, op) = match to {
                SendTo::Whole(osd) => {
                    let (tx, data) = self.whole.clone();
                    (osd, RepOp { tx, data, ..op.clone() })
                }
                SendTo::LogOnly(osd) => (osd, RepOp { tx: self.log_only.clone(), ..op.clone() }),
            };
            if let Err(e) = target.peers().send(target, osd, op.to_raw(0, F)) {
                // A new map ends the wait for it.
                tracing::debug!(pgid = %op.spgid, osd, "not replicated: {e}");
            }
        }
    }
}

fn refused(pg: &Pg, e: &NotPortable) -> StageError {
    tracing::error!(pgid = %pg.pgid, "a write cannot be replicated: {e}");
    StageError::TooLarge
}

/// In the store's order; durable here when `commit` says so.
pub struct Submitted {
    target: Target,
    pg: Rc<Pg>,
    ticket: u64,
    version: EVersion,
    local: u64,
    commit: Commit,
}

impl Submitted {
    /// Waits until it, and all before it in the PG, are durable at every copy.
    pub async fn published(self) -> Result<(), TargetError> {
        let shard = &self.pg.shard;
        if let Err(e) = self.commit.await {
            self.pg.publisher.fail();
            shard.local.fail();
            return Err(e.into());
        }
        shard.local.durable(self.local);
        drive::flush(&self.target, shard);
        self.pg.publisher.durable(self.ticket);
        self.pg.publisher.published(self.ticket).await?;
        if self.pg.active.get() {
            shard.machine.borrow_mut().written_everywhere(self.version);
            drive::rearm(&self.target, shard);
        }
        Ok(())
    }
}
