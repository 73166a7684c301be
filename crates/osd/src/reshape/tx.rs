//! The transactions of splits and merges.

use std::collections::HashSet;

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, Tx};
use spirula_wire::types::SpgId;
use spirula_wire::{Encode, Features};

use super::commit;
use super::record::{Base, Records};
use super::steps::Step;
use crate::apply::{
    Layout, container_id, container_of, container_pg, meta_object, peering_object, set_pg_num,
};
use crate::object::{AKEY, dkey, lowest_key};
use crate::pg::log::{DUPS_KEPT, encode_batches};
use crate::snap::trim::encode_purged;
use crate::stats::StatSum;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;

impl Step {
    pub(super) async fn run(self, target: &Target) -> Result<(), TargetError> {
        let done = match &self {
            Step::Split { parent, child, pg_num, last } => {
                tracing::info!(parent = %container_pg(*parent), %child, "a PG is split");
                let records = Records::load(target.store(), *parent).await?;
                let mut tx = split(target, *parent, *child, &records);
                set_pg_num(&mut tx, container_id(*child, Layout::Splittable), *pg_num);
                if *last {
                    set_pg_num(&mut tx, *parent, *pg_num);
                }
                commit(target, &mut tx, None).await?
            }
            Step::Merge { target: into, source, pg_num } => {
                tracing::info!(source = %container_pg(*source), target = %into, "a PG is merged");
                let cid = target.store().read(|vos| Ok(container_of(vos, *into))).await?;
                let upper = Records::load(target.store(), *source).await?;
                let exists = target.store().read(|vos| Ok(vos.container_exists(cid))).await?;
                let lower = match exists {
                    true => Some(Records::load(target.store(), cid).await?),
                    false => None,
                };
                let mut tx = merge(target, cid, *source, lower, upper).await?;
                set_pg_num(&mut tx, cid, *pg_num);
                commit(target, &mut tx, None).await?
            }
        };
        if !done {
            tracing::debug!(?self, "what was to be split or merged has gone");
        }
        Ok(())
    }
}

fn new_tx(target: &Target, bases: &[&Base]) -> Tx {
    let last = bases.iter().map(|base| base.epoch + 1).max().unwrap_or(0);
    Tx::new(target.wall_nanos().max(last))
}

/// Gives what is at and above the lowest key of `child` to its own container.
fn split(target: &Target, parent: ContainerId, child: SpgId, records: &Records) -> Tx {
    let mut tx = new_tx(target, &[&records.base]);
    let (at, cid) = (lowest_key(child.pgid.seed), container_id(child, Layout::Splittable));
    let (old, new) = (meta_object(parent), meta_object(cid));
    tx.split_container(parent, &ObjectKey(at.clone()), cid);
    for (key, entry) in records.log.iter().filter(|(_, entry)| entry.object >= at) {
        tx.punch_akey(parent, &old, dkey::LOG, key);
        tx.update(cid, &new, dkey::LOG, key, entry.to_bytes(F).into());
    }
    for (key, batch) in &records.dups {
        tx.update(cid, &new, dkey::DUPS, key, batch.clone());
    }
    let mut emptied = None;
    for (snap, object) in records.index.iter().filter(|(_, object)| *object >= at) {
        if emptied != Some(snap) {
            tx.punch_akeys(parent, &old, snap, &at, None);
            emptied = Some(snap);
        }
        tx.update(cid, &new, snap, object, Bytes::new());
    }
    // What peering knew is of the whole.
    tx.punch_object(parent, &peering_object(parent));
    if !records.purged.is_empty() {
        tx.update(cid, &new, dkey::PURGED, AKEY, encode_purged(&records.purged).into());
    }
    let base = Base { epoch: tx.epoch, counted: false, ..records.base.clone() };
    let (stays, goes) = halves(&base.stats);
    Base { stats: stays, ..base.clone() }.store(&mut tx, parent);
    Base { stats: goes, ..base }.store(&mut tx, cid);
    tx
}

/// A guess, until they are counted.
pub fn halves(all: &StatSum) -> (StatSum, StatSum) {
    let goes = StatSum {
        num_bytes: all.num_bytes / 2,
        num_objects: all.num_objects / 2,
        num_objects_omap: all.num_objects_omap / 2,
        num_rd: all.num_rd / 2,
        num_rd_kb: all.num_rd_kb / 2,
        num_wr: all.num_wr / 2,
        num_wr_kb: all.num_wr_kb / 2,
        num_object_clones: all.num_object_clones / 2,
        num_whiteouts: all.num_whiteouts / 2,
    };
    let mut stays = *all;
    stays.subtract(&goes);
    (stays, goes)
}

/// Adds the objects of `source` to those of `cid`, made if it has no records.
async fn merge(
    target: &Target,
    cid: ContainerId,
    source: ContainerId,
    lower: Option<Records>,
    upper: Records,
) -> Result<Tx, TargetError> {
    let fresh = lower.is_none();
    let lower = lower.unwrap_or_else(|| Records {
        base: Base { counted: true, ..Base::default() },
        purged: upper.purged.clone(),
        ..Records::default()
    });
    let mut tx = new_tx(target, &[&lower.base, &upper.base]);
    join_containers(target, &mut tx, (cid, fresh), source).await?;
    let meta = meta_object(cid);
    let mut dups = lower.all_dups(cid)?;
    dups.extend(upper.all_dups(source)?);
    tx.punch_dkey(cid, &meta, dkey::LOG);
    tx.punch_dkey(cid, &meta, dkey::DUPS);
    tx.punch_object(cid, &peering_object(cid));
    for (key, batch) in encode_batches(newest(dups)) {
        tx.update(cid, &meta, dkey::DUPS, &key, batch);
    }
    for (snap, object) in &upper.index {
        tx.update(cid, &meta, snap, object, Bytes::new());
    }
    let purged = lower.purged.intersection(&upper.purged);
    tx.update(cid, &meta, dkey::PURGED, AKEY, encode_purged(&purged).into());
    let mut stats = lower.base.stats;
    stats.add(&upper.base.stats);
    let base = Base {
        last_update: lower.base.last_update.max(upper.base.last_update),
        last_user_version: lower.base.last_user_version.max(upper.base.last_user_version),
        epoch: tx.epoch,
        stats,
        counted: lower.base.counted && upper.base.counted,
    };
    base.store(&mut tx, cid);
    Ok(tx)
}

/// The newest records in the order of versions, each once: both halves of a split have the older ones.
fn newest(mut dups: Vec<crate::pg::log::DupRecord>) -> Vec<crate::pg::log::DupRecord> {
    dups.sort_by_key(|dup| dup.version);
    let mut seen = HashSet::new();
    dups.retain(|dup| seen.insert((dup.version, dup.reqid)));
    dups.split_off(dups.len().saturating_sub(DUPS_KEPT))
}

/// The containers become one. Both are cut first to what they have objects in, as old ones have all keys.
async fn join_containers(
    target: &Target,
    tx: &mut Tx,
    (cid, fresh): (ContainerId, bool),
    source: ContainerId,
) -> Result<(), TargetError> {
    let store = target.store();
    let ranges = store.read(|vos| Ok((vos.container_range(cid), vos.container_range(source))));
    let (range, above) = ranges.await?;
    let (pgid, of_source) = (container_pg(cid), container_pg(source));
    let at = lowest_key(of_source.pgid.seed);
    let passing = container_id(of_source, Layout::Passing);
    if fresh {
        tx.create_container_in(cid, &lowest_key(pgid.pgid.seed), Some(&at));
    } else {
        let rest = container_id(pgid, Layout::Rest);
        match range.and_then(|(_, to)| to) {
            Some(to) if to < at => {
                tx.create_container_in(rest, &to, Some(&at));
                tx.merge_container(cid, rest);
            }
            Some(to) if to == at => {}
            _ => {
                tx.split_container(cid, &ObjectKey(at.clone()), rest);
                tx.destroy_container(rest);
            }
        }
    }
    let (meta, peering) = (meta_object(source), peering_object(source));
    if above.is_some_and(|(from, _)| from < at) {
        tx.split_container(source, &ObjectKey(at.clone()), passing);
        tx.destroy_container(source);
        if meta.0 >= at {
            tx.punch_object(passing, &meta);
            tx.punch_object(passing, &peering);
        }
        tx.merge_container(cid, passing);
    } else {
        tx.punch_object(source, &meta);
        tx.punch_object(source, &peering);
        tx.merge_container(cid, source);
    }
    Ok(())
}
