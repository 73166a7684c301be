//! The map's encoding: no envelope, but a magic number and, since maps grew at their end only, as
//! much as the writer knew.
//!
//! Invariants: what decodes encodes to the same bytes, if it came from a Luminous or later encoder
//! that finished its map; an unfinished map (the mon sends those in incrementals) is finished by
//! decoding, as every Ceph daemon and client does.

use std::collections::BTreeMap;

use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::bucket::{Alg, Bucket, BucketData};
use crate::map::{ChooseArg, CrushMap, Rule, RuleMask, Step, Tunables};

const MAGIC: u32 = 0x0001_0000;

impl Encode for CrushMap {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        MAGIC.encode(out, f);
        (self.buckets.len() as u32).encode(out, f);
        (self.rules.len() as u32).encode(out, f);
        self.max_devices.encode(out, f);
        for bucket in &self.buckets {
            match bucket {
                Some(bucket) => bucket.encode(out, f),
                None => 0u32.encode(out, f),
            }
        }
        for rule in &self.rules {
            u32::from(rule.is_some()).encode(out, f);
            if let Some(rule) = rule {
                rule.encode(out, f);
            }
        }
        self.types.encode(out, f);
        self.names.encode(out, f);
        self.rule_names.encode(out, f);
        self.tunables.encode(out, f);
        self.classes.encode(out, f);
        self.class_names.encode(out, f);
        self.class_buckets.encode(out, f);
        (self.choose_args.len() as u32).encode(out, f);
        for (key, args) in &self.choose_args {
            let used = args.iter().filter(|(_, arg)| !arg.is_empty());
            key.encode(out, f);
            (used.clone().count() as u32).encode(out, f);
            for (index, arg) in used {
                index.encode(out, f);
                arg.encode(out, f);
            }
        }
    }
}

impl Decode for CrushMap {
    const MIN_SIZE: usize = 16;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let magic = r.u32()?;
        if magic != MAGIC {
            return Err(DecodeError::Invalid { what: "crush magic", value: magic.into() });
        }
        let buckets_max = r.count(4, "crush buckets")?;
        let rules_max = r.count(4, "crush rules")?;
        let max_devices = r.i32()?;
        let buckets =
            (0..buckets_max).map(|index| bucket_at(index, r)).collect::<Result<_, _>>()?;
        let rules = (0..rules_max)
            .map(|_| if r.u32()? == 0 { Ok(None) } else { Rule::decode(r).map(Some) })
            .collect::<Result<_, _>>()?;
        let mut map = Self {
            buckets,
            rules,
            max_devices,
            types: names(r)?,
            names: names(r)?,
            rule_names: names(r)?,
            tunables: Tunables::decode(r)?,
            ..Self::default()
        };
        if !r.is_empty() {
            map.classes = Decode::decode(r)?;
            map.class_names = Decode::decode(r)?;
            map.class_buckets = Decode::decode(r)?;
        }
        if !r.is_empty() {
            map.choose_args = Decode::decode(r)?;
            map.check_choose_args()?;
        }
        map.finish();
        Ok(map)
    }
}

impl CrushMap {
    /// Puts right what follows from the rest: the number of devices, and weight sets of the size of
    /// their buckets.
    fn finish(&mut self) {
        let items = self.iter_buckets().flat_map(|b| &b.items).chain(self.names.keys());
        self.max_devices = items.max().map_or(0, |&last| last.saturating_add(1).max(0));
        for args in self.choose_args.values_mut() {
            let positions = args.values().map(|arg| arg.weight_set.len()).find(|&n| n > 0);
            args.retain(|&index, arg| {
                let bucket = self.buckets.get(index as usize).and_then(Option::as_ref);
                let Some(bucket) = bucket.filter(|b| b.alg() == Alg::Straw2) else {
                    return false;
                };
                if Some(arg.weight_set.len()) == positions {
                    arg.weight_set.iter_mut().for_each(|set| set.resize(bucket.items.len(), 0));
                }
                !arg.is_empty()
            });
        }
    }

    fn check_choose_args(&self) -> Result<(), DecodeError> {
        for (&index, arg) in self.choose_args.values().flatten() {
            let invalid = DecodeError::Invalid { what: "choose_args bucket", value: index.into() };
            let size = match self.buckets.get(index as usize) {
                None => return Err(invalid),
                Some(bucket) => bucket.as_ref().map_or(0, |b| b.items.len()),
            };
            if !arg.ids.is_empty() && arg.ids.len() != size {
                return Err(invalid);
            }
        }
        Ok(())
    }
}

/// Id -> name. Writers once wrote 64-bit keys; a zero length is then a key's upper half.
fn names(r: &mut Reader<'_>) -> Result<BTreeMap<i32, String>, DecodeError> {
    let n = r.count(8, "crush names")?;
    let mut names = BTreeMap::new();
    for _ in 0..n {
        let key = r.i32()?;
        if r.peek().starts_with(&[0; 4]) {
            r.skip(4, "crush name key")?;
        }
        let name = String::decode(r)?;
        if name.is_empty() {
            return Err(DecodeError::Invalid { what: "crush name", value: 0 });
        }
        names.insert(key, name);
    }
    Ok(names)
}

fn bucket_at(index: usize, r: &mut Reader<'_>) -> Result<Option<Bucket>, DecodeError> {
    if r.peek().starts_with(&[0; 4]) {
        r.skip(4, "bucket alg")?;
        return Ok(None);
    }
    let bucket = Bucket::decode(r)?;
    if CrushMap::index(bucket.id) != Some(index) {
        return Err(DecodeError::Invalid { what: "bucket id", value: bucket.id as u32 as u64 });
    }
    Ok(Some(bucket))
}

impl Encode for Bucket {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let alg = self.alg() as u8;
        u32::from(alg).encode(out, f);
        self.id.encode(out, f);
        self.type_.encode(out, f);
        alg.encode(out, f);
        self.hash.encode(out, f);
        self.weight.encode(out, f);
        self.items.encode(out, f);
        match &self.data {
            BucketData::Uniform { item_weight } => item_weight.encode(out, f),
            BucketData::List { item_weights, sum_weights: second }
            | BucketData::Straw { item_weights, straws: second } => {
                for (a, b) in item_weights.iter().zip(second) {
                    a.encode(out, f);
                    b.encode(out, f);
                }
            }
            BucketData::Tree { node_weights } => {
                // One byte: a tree of 128 leaves or more cannot be written, by Ceph neither.
                let count = node_weights.len() as u8;
                count.encode(out, f);
                node_weights.iter().take(count.into()).for_each(|w| w.encode(out, f));
            }
            BucketData::Straw2 { item_weights } => {
                item_weights.iter().for_each(|w| w.encode(out, f));
            }
        }
    }
}

impl Decode for Bucket {
    const MIN_SIZE: usize = 20;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let wire_alg = r.u32()?;
        let invalid = DecodeError::Invalid { what: "bucket alg", value: wire_alg.into() };
        let alg = Alg::from_wire(wire_alg).ok_or(invalid)?;
        let id = r.i32()?;
        let type_ = r.u16()?;
        if r.u8()? != alg as u8 {
            return Err(invalid);
        }
        let hash = r.u8()?;
        let weight = r.u32()?;
        let items = Vec::<i32>::decode(r)?;
        let size = items.len();
        let data = match alg {
            Alg::Uniform => BucketData::Uniform { item_weight: r.u32()? },
            Alg::List => {
                let (item_weights, sum_weights) = pairs(size, r)?;
                BucketData::List { item_weights, sum_weights }
            }
            Alg::Straw => {
                let (item_weights, straws) = pairs(size, r)?;
                BucketData::Straw { item_weights, straws }
            }
            Alg::Tree => {
                let nodes = r.u8()?;
                BucketData::Tree { node_weights: words(nodes.into(), r)? }
            }
            Alg::Straw2 => BucketData::Straw2 { item_weights: words(size, r)? },
        };
        Ok(Self { id, type_, hash, weight, items, data })
    }
}

/// `n` numbers without a count of their own. `n` was checked by the bytes of as many items.
fn words(n: usize, r: &mut Reader<'_>) -> Result<Vec<u32>, DecodeError> {
    (0..n).map(|_| r.u32()).collect()
}

fn pairs(n: usize, r: &mut Reader<'_>) -> Result<(Vec<u32>, Vec<u32>), DecodeError> {
    let pairs: Vec<_> = (0..n).map(|_| Ok((r.u32()?, r.u32()?))).collect::<Result<_, _>>()?;
    Ok(pairs.into_iter().unzip())
}

impl Encode for Rule {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        (self.steps.len() as u32).encode(out, f);
        let RuleMask { ruleset, type_, min_size, max_size } = self.mask;
        [ruleset, type_, min_size, max_size].encode(out, f);
        for step in &self.steps {
            step.op.encode(out, f);
            step.arg1.encode(out, f);
            step.arg2.encode(out, f);
        }
    }
}

impl Decode for Rule {
    const MIN_SIZE: usize = 8;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = r.count(12, "rule steps")?;
        let [ruleset, type_, min_size, max_size] = r.array("rule mask")?;
        let steps = (0..len)
            .map(|_| Ok(Step { op: r.u32()?, arg1: r.i32()?, arg2: r.i32()? }))
            .collect::<Result<_, _>>()?;
        Ok(Self { mask: RuleMask { ruleset, type_, min_size, max_size }, steps })
    }
}

impl Encode for Tunables {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.choose_local_tries.encode(out, f);
        self.choose_local_fallback_tries.encode(out, f);
        self.choose_total_tries.encode(out, f);
        self.chooseleaf_descend_once.encode(out, f);
        self.chooseleaf_vary_r.encode(out, f);
        self.straw_calc_version.encode(out, f);
        self.allowed_bucket_algs.encode(out, f);
        self.chooseleaf_stable.encode(out, f);
    }
}

/// Each group may be the last that the writer knew.
impl Decode for Tunables {
    const MIN_SIZE: usize = 0;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut t = Self::LEGACY;
        if !r.is_empty() {
            t.choose_local_tries = r.u32()?;
            t.choose_local_fallback_tries = r.u32()?;
            t.choose_total_tries = r.u32()?;
        }
        if !r.is_empty() {
            t.chooseleaf_descend_once = r.u32()?;
        }
        if !r.is_empty() {
            t.chooseleaf_vary_r = r.u8()?;
        }
        if !r.is_empty() {
            t.straw_calc_version = r.u8()?;
        }
        if !r.is_empty() {
            t.allowed_bucket_algs = r.u32()?;
        }
        if !r.is_empty() {
            t.chooseleaf_stable = r.u8()?;
        }
        Ok(t)
    }
}

impl Encode for ChooseArg {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.weight_set.encode(out, f);
        self.ids.encode(out, f);
    }
}

impl Decode for ChooseArg {
    const MIN_SIZE: usize = 8;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { weight_set: Decode::decode(r)?, ids: Decode::decode(r)? })
    }
}
