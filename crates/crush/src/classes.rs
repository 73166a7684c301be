//! Device classes: a class of devices is reached through *shadow* buckets, copies of the hierarchy
//! named `bucket~class` that hold only that class's devices.
//!
//! Invariant: shadow ids stay the same through a rebuild, since rules and clients' cached maps
//! refer to them.

use std::collections::{BTreeMap, BTreeSet};

use crate::bucket::Bucket;
use crate::edit::{EditError, check_name};
use crate::map::{CrushMap, StepOp};

/// Bucket id -> class id -> shadow id.
type ClassBuckets = BTreeMap<i32, BTreeMap<i32, i32>>;

impl CrushMap {
    /// Puts a device into a class, making the class as needed; says whether that changed anything.
    /// A device of another class must leave that one first.
    pub fn set_device_class(&mut self, device: i32, class: &str) -> Result<bool, EditError> {
        check_name(class)?;
        if device < 0 || !self.names.contains_key(&device) {
            return Err(EditError::NoItem { item: device });
        }
        match self.item_class(device) {
            Some(current) if current == class => return Ok(false),
            Some(_) => return Err(EditError::InUse { item: device }),
            None => {}
        }
        let id = match self.class_by_name(class) {
            Some(id) => id,
            None => {
                let id = self.class_names.last_key_value().map_or(0, |(last, _)| last + 1);
                self.class_names.insert(id, class.to_owned());
                id
            }
        };
        self.classes.insert(device, id);
        self.rebuild_classes()?;
        Ok(true)
    }

    /// Takes a device out of its class; says whether it was in one.
    pub fn remove_device_class(&mut self, device: i32) -> Result<bool, EditError> {
        if self.classes.remove(&device).is_none() {
            return Ok(false);
        }
        self.rebuild_classes()?;
        Ok(true)
    }

    /// Makes all shadow trees anew.
    pub fn rebuild_classes(&mut self) -> Result<(), EditError> {
        let live: BTreeSet<i32> =
            self.class_names.keys().copied().filter(|&class| self.is_class_used(class)).collect();
        self.class_names.retain(|class, _| live.contains(class));

        let old = std::mem::take(&mut self.class_buckets);
        let shadows: Vec<i32> =
            self.iter_buckets().map(|b| b.id).filter(|&id| self.is_shadow(id)).collect();
        shadows.into_iter().for_each(|id| self.forget(id));

        let taken_ids: BTreeSet<i32> =
            old.values().flat_map(|shadows| shadows.values().copied()).collect();
        let mut rebuild = Rebuild { old, taken_ids, weights: BTreeMap::new() };
        for root in self.roots(false) {
            for class in live.iter().copied() {
                rebuild.shadow(self, root, class, 0)?;
            }
        }
        Ok(())
    }

    pub(crate) fn rule_takes(&self) -> impl Iterator<Item = i32> {
        let steps = self.rules.iter().flatten().flat_map(|rule| &rule.steps);
        steps.filter(|step| step.op() == Some(StepOp::Take)).map(|step| step.arg1)
    }

    fn is_class_used(&self, class: i32) -> bool {
        let by_device = self.classes.iter().any(|(&item, &c)| item >= 0 && c == class);
        let is_of_class =
            |taken| self.class_buckets.values().any(|shadows| shadows.get(&class) == Some(&taken));
        by_device || self.rule_takes().any(is_of_class)
    }
}

struct Rebuild {
    old: ClassBuckets,
    taken_ids: BTreeSet<i32>,
    /// Per set of weight sets: shadow id -> its weight at each position.
    weights: BTreeMap<i64, BTreeMap<i32, Vec<u32>>>,
}

impl Rebuild {
    /// Makes the shadow of one bucket for one class, those below it first; returns its id.
    fn shadow(
        &mut self,
        map: &mut CrushMap,
        id: i32,
        class: i32,
        depth: usize,
    ) -> Result<i32, EditError> {
        if let Some(&done) = map.class_buckets.get(&id).and_then(|shadows| shadows.get(&class)) {
            return Ok(done);
        }
        if depth > map.buckets.len() {
            return Err(EditError::Loop { item: id });
        }
        let original = map.bucket(id).ok_or(EditError::NoItem { item: id })?.clone();
        let class_name = map.class_names.get(&class).ok_or(EditError::NoItem { item: id })?;
        let name = map.name(id).ok_or(EditError::NoItem { item: id })?;
        let name = format!("{name}~{class_name}");

        let mut items = Vec::new();
        let mut positions = Vec::new();
        for (position, &item) in original.items.iter().enumerate() {
            if item >= 0 {
                if map.classes.get(&item) != Some(&class) {
                    continue;
                }
                items.push((item, original.item_weight(position)));
            } else {
                let child = self.shadow(map, item, class, depth + 1)?;
                items.push((child, map.bucket(child).map_or(0, |b| b.weight)));
            }
            positions.push(position);
        }

        let shadow = self.shadow_id(map, id, class);
        let straw_version = map.tunables.straw_calc_version;
        map.put_bucket(Bucket {
            hash: original.hash,
            ..Bucket::new(shadow, original.type_, original.alg(), straw_version, &items)
        });
        map.classes.insert(shadow, class);
        map.names.insert(shadow, name);
        map.class_buckets.entry(id).or_default().insert(class, shadow);
        self.weigh(map, id, shadow, &items, &positions);
        Ok(shadow)
    }

    /// The id that the shadow had before, or else one that no bucket and no former shadow has.
    fn shadow_id(&self, map: &CrushMap, id: i32, class: i32) -> i32 {
        if let Some(&old) = self.old.get(&id).and_then(|shadows| shadows.get(&class)) {
            return old;
        }
        let is_free = |id: &i32| map.bucket(*id).is_none() && !self.taken_ids.contains(id);
        (i32::MIN..0).rev().find(is_free).unwrap_or(i32::MIN)
    }

    /// Gives a shadow the weight sets of its original.
    fn weigh(
        &mut self,
        map: &mut CrushMap,
        original: i32,
        shadow: i32,
        items: &[(i32, u32)],
        positions: &[usize],
    ) {
        for (&key, args) in &mut map.choose_args {
            let known = self.weights.entry(key).or_default();
            let sets = args.get(&(!original as u32)).map_or(&[][..], |arg| &arg.weight_set);
            let of_item = |set: usize, n: usize| match items[n].0 {
                device @ 0.. => {
                    debug_assert!(device >= 0);
                    sets[set].get(positions[n]).copied().unwrap_or(0)
                }
                child => known.get(&child).and_then(|w| w.get(set)).copied().unwrap_or(0),
            };
            let weight_set: Vec<Vec<u32>> = (0..sets.len())
                .map(|set| (0..items.len()).map(|n| of_item(set, n)).collect())
                .collect();
            let sums = weight_set
                .iter()
                .map(|set| set.iter().fold(0u32, |sum, &w| sum.saturating_add(w)))
                .collect();
            known.insert(shadow, sums);
            if weight_set.is_empty() {
                args.remove(&(!shadow as u32));
            } else {
                args.entry(!shadow as u32).or_default().weight_set = weight_set;
            }
        }
    }
}
