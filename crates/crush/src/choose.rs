//! How each bucket algorithm draws one of its items.
//!
//! Invariant: derived numbers of a decoded bucket may be nonsense; then the draw gives nothing or
//! any item, but it ends and stays in bounds.

use std::collections::BTreeMap;

use crate::bucket::{Bucket, BucketData};
use crate::hash::{HASH_RJENKINS1, hash32_3, hash32_4};
use crate::ln::crush_ln;
use crate::map::ChooseArg;

/// Permutations that uniform buckets and fallback searches have begun, by bucket id; all belong to
/// one value of `x`.
#[derive(Default)]
pub(crate) struct Permutations(BTreeMap<i32, Permutation>);

#[derive(Default)]
struct Permutation {
    /// How many leading entries are final; [`Permutation::ONLY_FIRST`] marks a shortcut.
    done: u32,
    entries: Vec<u32>,
}

impl Permutation {
    const ONLY_FIRST: u32 = 0xffff;
}

/// Draws an item of a bucket that has some. `position` is the slot of the result to fill.
pub(crate) fn choose(
    bucket: &Bucket,
    permutations: &mut Permutations,
    x: u32,
    r: u32,
    arg: Option<&ChooseArg>,
    position: usize,
) -> Option<i32> {
    match &bucket.data {
        BucketData::Uniform { .. } => permutations.choose(bucket, x, r),
        BucketData::List { item_weights, sum_weights } => {
            list_choose(bucket, item_weights, sum_weights, x, r)
        }
        BucketData::Tree { node_weights } => tree_choose(bucket, node_weights, x, r),
        BucketData::Straw { straws, .. } => straw_choose(bucket, straws, x, r),
        BucketData::Straw2 { item_weights } => {
            straw2_choose(bucket, item_weights, x, r, arg, position)
        }
    }
}

impl Permutations {
    /// Entry `r` of a pseudo-random permutation of the bucket's items, computed as far as needed.
    pub(crate) fn choose(&mut self, bucket: &Bucket, x: u32, r: u32) -> Option<i32> {
        let size = u32::try_from(bucket.items.len()).ok()?;
        let wanted = r.checked_rem(size)?;
        let draw = |n: u32, of: u32| hash3(bucket, x, bucket.id as u32, n) % of;

        let p = self.0.entry(bucket.id).or_default();
        if p.done == 0 {
            if wanted == 0 {
                let first = draw(0, size);
                p.entries = vec![first];
                p.done = Permutation::ONLY_FIRST;
                return bucket.items.get(first as usize).copied();
            }
            p.entries = (0..size).collect();
        } else if p.done == Permutation::ONLY_FIRST && p.entries.len() == 1 {
            let first = p.entries[0];
            p.entries = (0..size).collect();
            p.entries.swap(0, first as usize);
            p.done = 1;
        }
        while p.done <= wanted {
            let at = p.done;
            if at < size - 1 {
                p.entries.swap(at as usize, (at + draw(at, size - at)) as usize);
            }
            p.done += 1;
        }
        bucket.items.get(*p.entries.get(wanted as usize)? as usize).copied()
    }
}

/// From the last item to the first, each taken with the chance of its weight among those before.
fn list_choose(bucket: &Bucket, weights: &[u32], sums: &[u32], x: u32, r: u32) -> Option<i32> {
    for (i, &item) in bucket.items.iter().enumerate().rev() {
        let draw = u64::from(hash4(bucket, x, item as u32, r, bucket.id as u32) & 0xffff);
        if (draw * u64::from(*sums.get(i)?)) >> 16 < u64::from(*weights.get(i)?) {
            return Some(item);
        }
    }
    bucket.items.first().copied()
}

/// Down a binary tree, to the left or right by the weight of each side.
fn tree_choose(bucket: &Bucket, nodes: &[u32], x: u32, r: u32) -> Option<i32> {
    let mut node = nodes.len() >> 1;
    while node & 1 == 0 {
        if node == 0 {
            return None;
        }
        let half = 1usize << (node.trailing_zeros() - 1);
        let draw = u64::from(hash4(bucket, x, node as u32, r, bucket.id as u32));
        let point = (draw * u64::from(*nodes.get(node)?)) >> 32;
        let left = node - half;
        node = if point < u64::from(*nodes.get(left)?) { left } else { node + half };
    }
    bucket.items.get(node >> 1).copied()
}

fn straw_choose(bucket: &Bucket, straws: &[u32], x: u32, r: u32) -> Option<i32> {
    let draws = bucket.items.iter().zip(straws).map(|(&item, &straw)| {
        (item, u64::from(hash3(bucket, x, item as u32, r) & 0xffff) * u64::from(straw))
    });
    longest(draws)
}

/// Each item draws from an exponential distribution of its weight.
fn straw2_choose(
    bucket: &Bucket,
    own_weights: &[u32],
    x: u32,
    r: u32,
    arg: Option<&ChooseArg>,
    position: usize,
) -> Option<i32> {
    let set = arg.and_then(|arg| arg.weight_set.get(position).or(arg.weight_set.last()));
    let weights = set.map_or(own_weights, Vec::as_slice);
    let ids = arg.map(|arg| &arg.ids[..]).filter(|ids| !ids.is_empty()).unwrap_or(&bucket.items);
    let draws = bucket.items.iter().enumerate().map(|(i, &item)| {
        let id = ids.get(i).copied().unwrap_or(item);
        let draw = match weights.get(i).copied().unwrap_or(0) {
            0 => i64::MIN,
            weight => {
                let u = hash3(bucket, x, id as u32, r) as u16;
                (crush_ln(u) as i64 - (1 << 48)) / i64::from(weight)
            }
        };
        (item, draw)
    });
    longest(draws)
}

/// The item with the greatest draw, the first of equals.
fn longest<D: PartialOrd>(draws: impl Iterator<Item = (i32, D)>) -> Option<i32> {
    let best = draws.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map(|(item, _)| item)
}

fn hash3(bucket: &Bucket, a: u32, b: u32, c: u32) -> u32 {
    if bucket.hash == HASH_RJENKINS1 { hash32_3(a, b, c) } else { 0 }
}

fn hash4(bucket: &Bucket, a: u32, b: u32, c: u32, d: u32) -> u32 {
    if bucket.hash == HASH_RJENKINS1 { hash32_4(a, b, c, d) } else { 0 }
}
