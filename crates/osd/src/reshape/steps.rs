//! Which container is split or merged next.
//!
//! First all splits, the highest child first: then each child has the range that it shall have, and what
//! is left of the parent is its own. Then all merges, in the order of keys, so that the neighbours that a
//! PG takes in follow each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_maps::pool::stable_mod;
use spirula_vos::ContainerId;
use spirula_wire::types::{PgId, SpgId};

use crate::object::lowest_key;

/// A stored container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) cid: ContainerId,
    pub(super) seed: u32,
    /// It has the objects of its PG in a pool with so many, without what was split off since.
    pub(super) pg_num: u32,
    /// Its keys are below this.
    pub(super) to: Option<Bytes>,
}

/// A change of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Split {
        parent: ContainerId,
        child: SpgId,
        pg_num: u32,
        /// The parent has no other child to be split off.
        last: bool,
    },
    Merge {
        target: SpgId,
        source: ContainerId,
        pg_num: u32,
    },
}

/// What is to be done next with the containers of a pool that has `pg_num` PGs.
pub(super) fn next_step(pool: i64, stored: &[Stored], pg_num: u32) -> Option<Step> {
    let by_seed: BTreeMap<u32, &Stored> = stored.iter().map(|s| (s.seed, s)).collect();
    let spg = |seed| SpgId::whole(PgId::new(pool, seed));
    for parent in stored {
        let mut children = children(parent, pg_num);
        children.retain(|child| !by_seed.contains_key(child));
        if let Some(&child) = children.iter().max_by_key(|seed| seed.reverse_bits()) {
            let last = children.len() == 1;
            return Some(Step::Split { parent: parent.cid, child: spg(child), pg_num, last });
        }
    }
    let sources = stored.iter().filter(|s| s.seed >= pg_num);
    let source = sources.min_by_key(|s| s.seed.reverse_bits())?;
    let target = spg(stable_mod(source.seed, pg_num));
    Some(Step::Merge { target, source: source.cid, pg_num })
}

/// The PGs that a container's PG is split into.
fn children(parent: &Stored, pg_num: u32) -> Vec<u32> {
    if parent.pg_num >= pg_num {
        return Vec::new();
    }
    // Those have at least the bits in common that all rounds of splitting before have used.
    let stride = (parent.pg_num.max(1).next_power_of_two() / 2).max(1);
    let inside = |seed| parent.to.as_ref().is_none_or(|to| lowest_key(seed) < *to);
    (parent.seed % stride..pg_num)
        .step_by(stride as usize)
        .filter(|seed| *seed != parent.seed && stable_mod(*seed, parent.pg_num) == parent.seed)
        .filter(|seed| inside(*seed))
        .collect()
}
