//! Larger changes of the hierarchy: unlink, swap, sum up anew, and sets of other weights to choose by.
//!
//! Invariants: as in `edit`; the weights of a set sum up from bucket to bucket, as the real ones do.

use std::collections::BTreeMap;

use crate::bucket::{Alg, Bucket};
use crate::edit::EditError;
use crate::map::{ChooseArg, CrushMap};

impl CrushMap {
    /// Takes an item out of every bucket. A bucket stays, with what is in it; a device is forgotten.
    pub fn unlink(&mut self, item: i32) -> Result<(), EditError> {
        self.unlink_item(item)?;
        if item >= 0 {
            self.forget(item);
        }
        self.rebuild_classes()
    }

    /// Exchanges what is in two buckets, and their names: each name keeps its place's id and weight.
    pub fn swap_buckets(&mut self, one: i32, other: i32) -> Result<(), EditError> {
        for (item, above) in [(one, other), (other, one)] {
            if self.bucket(item).is_none() {
                return Err(EditError::NotABucket { item });
            }
            if item != above && self.subtree_contains(above, item) {
                return Err(EditError::Loop { item });
            }
        }
        let items = [self.taken_out(one), self.taken_out(other)];
        for (bucket, items) in [(other, &items[0]), (one, &items[1])] {
            for &(item, weight) in items {
                self.add_to(bucket, item, 0);
                self.set_weight_below(bucket, item, weight);
            }
        }
        let names = (self.names.remove(&one), self.names.remove(&other));
        self.names.extend(names.0.map(|name| (other, name)));
        self.names.extend(names.1.map(|name| (one, name)));
        self.rebuild_classes()
    }

    /// What was in a bucket, with its weights.
    fn taken_out(&mut self, bucket: i32) -> Vec<(i32, u32)> {
        let Some(b) = self.bucket(bucket) else {
            return Vec::new();
        };
        let items: Vec<(i32, u32)> = b.items.iter().copied().zip(b.weights()).collect();
        items.iter().for_each(|(item, _)| self.unlink_from(bucket, *item));
        items
    }

    /// Has every bucket weigh what its items do, below every root.
    pub fn reweight_all(&mut self) -> Result<(), EditError> {
        let mut done = BTreeMap::new();
        for root in self.roots(false) {
            self.sum_up(root, &mut done, 0)?;
        }
        let keys: Vec<i64> = self.choose_args.keys().copied().collect();
        for key in keys {
            let mut done = BTreeMap::new();
            for root in self.roots(false) {
                self.sum_set_up(key, root, &mut done);
            }
        }
        self.rebuild_classes()
    }

    fn sum_up(
        &mut self,
        id: i32,
        done: &mut BTreeMap<i32, u32>,
        depth: usize,
    ) -> Result<u32, EditError> {
        if let Some(weight) = done.get(&id) {
            return Ok(*weight);
        }
        if depth > self.buckets.len() {
            return Err(EditError::Loop { item: id });
        }
        let Some(b) = self.bucket(id) else { return Ok(0) };
        for (position, item) in b.items.clone().into_iter().enumerate().filter(|(_, i)| *i < 0) {
            let weight = self.sum_up(item, done, depth + 1)?;
            let straw_version = self.tunables.straw_calc_version;
            if let Some(b) = self.bucket_mut(id) {
                b.set_item_weight(position, weight, straw_version);
            }
        }
        let weight = self.bucket(id).map_or(0, |b| b.weight);
        done.insert(id, weight);
        Ok(weight)
    }

    /// The weights of a bucket, position by position, after those below it were summed up. There is
    /// no loop: the real weights were summed up before.
    fn sum_set_up(&mut self, key: i64, id: i32, done: &mut BTreeMap<i32, Vec<u32>>) -> Vec<u32> {
        if let Some(sums) = done.get(&id) {
            return sums.clone();
        }
        let items = self.bucket(id).map(|b| b.items.clone()).unwrap_or_default();
        for (position, item) in items.into_iter().enumerate().filter(|(_, i)| *i < 0) {
            let below = self.sum_set_up(key, item, done);
            let sets = self.weight_sets_mut(key, id).into_iter().flatten();
            for (set, weight) in sets.zip(below) {
                if let Some(entry) = set.get_mut(position) {
                    *entry = weight;
                }
            }
        }
        let sums = self.set_sums(key, id);
        done.insert(id, sums.clone());
        sums
    }

    /// Turns straw buckets into straw2 ones.
    pub fn straws_to_straw2(&mut self) {
        let straws = self.buckets.iter_mut().flatten().filter(|b| b.alg() == Alg::Straw);
        for b in straws {
            let items: Vec<(i32, u32)> = b.items.iter().copied().zip(b.weights()).collect();
            let new = Bucket::new(b.id, b.type_, Alg::Straw2, 1, &items);
            *b = Bucket { hash: b.hash, ..new };
        }
    }

    /// Whether weight sets are possible: other buckets know none.
    pub fn is_all_straw2(&self) -> bool {
        self.iter_buckets().all(|b| b.alg() == Alg::Straw2)
    }

    /// Makes a set of weights for `positions` places of the result, like the real ones, if there is none.
    pub fn create_weight_set(&mut self, key: i64, positions: usize) {
        if self.choose_args.contains_key(&key) {
            return;
        }
        let of = |b: &Bucket| {
            let weight_set = vec![b.weights(); positions];
            (!b.id as u32, ChooseArg { weight_set, ids: Vec::new() })
        };
        let args = self.iter_buckets().map(of).collect();
        self.choose_args.insert(key, args);
    }

    /// How many places of the result a set has weights for.
    pub fn weight_set_positions(&self, key: i64) -> Option<usize> {
        let args = self.choose_args.get(&key)?;
        args.values().map(|arg| arg.weight_set.len()).find(|n| *n > 0)
    }

    /// Sets an item's weights in a set, one for each place of the result, in all buckets that hold it.
    /// Returns in how many.
    pub fn set_weights_in_set(&mut self, key: i64, item: i32, weights: &[u32]) -> usize {
        let holders = |map: &Self, item| {
            map.iter_buckets()
                .filter(move |b| b.items.contains(&item))
                .map(|b| b.id)
                .collect::<Vec<i32>>()
        };
        let found = holders(self, item);
        let mut pending: Vec<(i32, i32, Vec<u32>)> =
            found.iter().map(|bucket| (*bucket, item, weights.to_vec())).collect();
        let mut steps = 0;
        while let Some((bucket, item, weights)) = pending.pop() {
            // A cycle would never settle.
            steps += 1;
            if steps > self.buckets.len().saturating_mul(64) {
                break;
            }
            let position =
                self.bucket(bucket).and_then(|b| b.items.iter().position(|i| *i == item));
            let sets = self.weight_sets_mut(key, bucket).into_iter().flatten();
            for (set, weight) in sets.zip(weights) {
                if let Some(entry) = position.and_then(|at| set.get_mut(at)) {
                    *entry = weight;
                }
            }
            let sums = self.set_sums(key, bucket);
            pending.extend(holders(self, bucket).into_iter().map(|b| (b, bucket, sums.clone())));
        }
        found.len()
    }

    fn weight_sets_mut(&mut self, key: i64, bucket: i32) -> Option<&mut Vec<Vec<u32>>> {
        let arg = self.choose_args.get_mut(&key)?.get_mut(&(!bucket as u32))?;
        Some(&mut arg.weight_set)
    }

    fn set_sums(&self, key: i64, bucket: i32) -> Vec<u32> {
        let arg = self.choose_args.get(&key).and_then(|args| args.get(&(!bucket as u32)));
        let sum = |set: &Vec<u32>| set.iter().fold(0, |sum: u32, w| sum.saturating_add(*w));
        arg.map_or_else(Vec::new, |arg| arg.weight_set.iter().map(sum).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::Location;

    fn at(host: &str, root: &str) -> Location {
        [("host".to_owned(), host.to_owned()), ("root".to_owned(), root.to_owned())].into()
    }

    /// Root `r` with hosts `a` (osd.0 and osd.1) and `b` (osd.2), all of weight 1.
    fn map() -> CrushMap {
        let mut map = CrushMap::new();
        map.add_bucket("r", "root").unwrap();
        for (osd, host) in [(0, "a"), (1, "a"), (2, "b")] {
            map.insert_item(osd, 0x10000, &format!("osd.{osd}"), &at(host, "r")).unwrap();
        }
        map
    }

    fn weight(map: &CrushMap, name: &str) -> u32 {
        map.bucket(map.item_by_name(name).unwrap()).unwrap().weight
    }

    #[test]
    fn swapped_buckets_exchange_contents_names_and_weights() {
        let mut map = map();
        map.add_bucket("spare", "host").unwrap();
        let id = |map: &CrushMap, name: &str| map.item_by_name(name).unwrap();
        let (a, spare) = (id(&map, "a"), id(&map, "spare"));
        map.swap_buckets(spare, a).unwrap();
        // The name stays with what it names; the place in the root is now the empty one's.
        assert_eq!((id(&map, "a"), id(&map, "spare")), (spare, a));
        assert_eq!(map.bucket(spare).unwrap().items, [0, 1]);
        assert_eq!(
            (weight(&map, "a"), weight(&map, "spare"), weight(&map, "r")),
            (0x20000, 0, 0x10000)
        );
        let root = id(&map, "r");
        let b = id(&map, "b");
        assert_eq!(map.swap_buckets(b, root), Err(EditError::Loop { item: b }));
        assert_eq!(map.swap_buckets(0, root), Err(EditError::NotABucket { item: 0 }));
    }

    #[test]
    fn an_unlinked_bucket_keeps_its_items() {
        let mut map = map();
        let a = map.item_by_name("a").unwrap();
        map.unlink(a).unwrap();
        assert_eq!((weight(&map, "a"), weight(&map, "r")), (0x20000, 0x10000));
        map.unlink(2).unwrap();
        assert_eq!((map.name(2), weight(&map, "r")), (None, 0));
    }

    #[test]
    fn sums_are_made_anew() {
        let mut map = map();
        let a = map.item_by_name("a").unwrap();
        map.create_weight_set(1, 1);
        map.bucket_mut(a).unwrap().set_item_weight(0, 0x30000, 1);
        map.choose_args.get_mut(&1).unwrap().get_mut(&(!a as u32)).unwrap().weight_set =
            vec![vec![5, 6]];
        assert_eq!(weight(&map, "r"), 0x30000);
        map.reweight_all().unwrap();
        let root = map.item_by_name("r").unwrap();
        assert_eq!(weight(&map, "r"), 0x50000);
        assert_eq!(map.choose_args[&1][&(!root as u32)].weight_set, [[11, 0x10000]]);
    }

    #[test]
    fn weights_of_a_set_follow_up_to_the_root() {
        let mut map = map();
        map.create_weight_set(7, 2);
        assert_eq!(map.weight_set_positions(7), Some(2));
        assert_eq!(map.set_weights_in_set(7, 0, &[3, 0x20000]), 1);
        let set = |name: &str| {
            let id = map.item_by_name(name).unwrap();
            map.choose_args[&7][&(!id as u32)].weight_set.clone()
        };
        assert_eq!(set("a"), [[3, 0x10000], [0x20000, 0x10000]]);
        assert_eq!(set("r"), [[0x10003, 0x10000], [0x30000, 0x10000]]);
        assert_eq!((weight(&map, "r"), map.is_all_straw2()), (0x30000, true));
    }
}
