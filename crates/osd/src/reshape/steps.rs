//! Which container is split or merged next.
//!
//! First all splits, the highest child first: then each child has the range that it shall have, and what
//! is left of the parent is its own. Then all merges, in the order of keys, so that the neighbours that a
//! PG takes in follow each other.

use std::collections::BTreeMap;
use std::ops::Bound;

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
    let by_key: BTreeMap<u32, &Stored> =
        stored.iter().map(|s| (s.seed.reverse_bits(), s)).collect();
    let spg = |seed| SpgId::whole(PgId::new(pool, seed));
    for parent in stored {
        let mut children = children(parent, pg_num);
        // From where the next container begins on, what would be children is in that one, whatever
        // keys this one can have.
        let after = (Bound::Excluded(parent.seed.reverse_bits()), Bound::Unbounded);
        let next = by_key.range(after).next().map(|(key, _)| *key);
        children.retain(|child| next.is_none_or(|next| child.reverse_bits() < next));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Layout, container_id, container_pg};

    /// Containers with the hashes of their objects.
    #[derive(Default)]
    struct Model(BTreeMap<u32, (Stored, Vec<u32>)>);

    impl Model {
        fn stored(&self) -> Vec<Stored> {
            self.0.values().map(|(stored, _)| stored.clone()).collect()
        }

        /// Objects are written where they belong, which makes containers.
        fn write(&mut self, hashes: impl Iterator<Item = u32>, pg_num: u32) {
            for hash in hashes {
                let seed = stable_mod(hash, pg_num);
                let cid = container_id(SpgId::whole(PgId::new(1, seed)), Layout::Splittable);
                let new = || (Stored { cid, seed, pg_num, to: None }, Vec::new());
                self.0.entry(seed).or_insert_with(new).1.push(hash);
            }
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::Split { parent, child, pg_num, last } => {
                    let (seed, at) = (child.pgid.seed, lowest_key(child.pgid.seed));
                    let (stored, hashes) =
                        self.0.get_mut(&container_pg(parent).pgid.seed).expect("a parent");
                    assert!(stored.to.as_ref().is_none_or(|to| at < *to), "in range");
                    let goes = |hash: &u32| lowest_key(*hash) >= at;
                    let gone = hashes.iter().copied().filter(goes).collect();
                    hashes.retain(|hash| !goes(hash));
                    let cid = container_id(child, Layout::Splittable);
                    let to = stored.to.replace(at);
                    stored.pg_num = if last { pg_num } else { stored.pg_num };
                    self.0.insert(seed, (Stored { cid, seed, pg_num, to }, gone));
                }
                Step::Merge { target, source, pg_num } => {
                    let (gone, hashes) =
                        self.0.remove(&container_pg(source).pgid.seed).expect("a source");
                    let seed = target.pgid.seed;
                    let cid = container_id(target, Layout::Splittable);
                    let new = || (Stored { cid, seed, pg_num, to: None }, Vec::new());
                    let (stored, all) = self.0.entry(seed).or_insert_with(new);
                    let at = lowest_key(gone.seed);
                    assert!(all.iter().all(|hash| lowest_key(*hash) < at), "they follow");
                    (stored.to, stored.pg_num) = (gone.to, pg_num);
                    all.extend(hashes);
                }
            }
        }
    }

    #[test]
    fn objects_are_in_their_pgs_after_any_steps_that_were_begun() {
        for seed in 1..200u32 {
            let mut random = seed;
            let mut next = |below: u32| {
                random = random.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
                (random >> 8) % below
            };
            let (mut model, mut pg_num) = (Model::default(), 1 + next(12));
            for _ in 0..8 {
                let count = next(30);
                let hashes: Vec<_> =
                    (0..count).map(|_| next(1 << 24).wrapping_mul(0x9e37_79b9)).collect();
                model.write(hashes.into_iter(), pg_num);
                pg_num = 1 + next(40);
                // A crash after some steps, and another map before it goes on.
                for _ in 0..next(6) {
                    next_step(1, &model.stored(), pg_num).into_iter().for_each(|s| model.apply(s));
                }
                pg_num = 1 + next(40);
                while let Some(step) = next_step(1, &model.stored(), pg_num) {
                    model.apply(step);
                }
                for (seed, (stored, hashes)) in &mut model.0 {
                    // As where a PG begins to serve.
                    stored.pg_num = pg_num;
                    assert!(hashes.iter().all(|hash| stable_mod(*hash, pg_num) == *seed));
                }
            }
        }
    }
}
