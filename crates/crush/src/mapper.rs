//! Runs a placement rule: `x` -> devices.
//!
//! Invariants: results equal Ceph's for maps that Ceph can build; work is bounded by a budget of
//! item draws and descents by the number of buckets, so a hostile map (cycles, huge tries) ends.

use crate::bucket::{Alg, Bucket};
use crate::choose::{Permutations, choose};
use crate::hash::hash32_2;
use crate::map::{ChooseArgMap, CrushMap, ITEM_NONE, Step, StepOp};

/// Item draws that one placement may cost. A root of 10,000 items, 10 copies and 100 tries of each
/// stays below; a map that needs more is broken, and its placement comes back short.
pub const DRAWS_MAX: u64 = 1 << 26;

/// Marks a slot of an `indep` result that is still to be filled.
const ITEM_UNDEF: i32 = 0x7fff_fffe;

impl CrushMap {
    /// Places `x` by `rule`: at most `result_max` items, fewer if not enough can be found
    /// (`firstn`), or with [`ITEM_NONE`] in the places that stay empty (`indep`).
    ///
    /// `weights` are the devices' 16.16 "in" weights; a device beyond them is out.
    pub fn do_rule(
        &self,
        rule: u32,
        x: u32,
        result_max: usize,
        weights: &[u32],
        choose_args: Option<&ChooseArgMap>,
    ) -> Vec<i32> {
        self.do_rule_bounded(rule, x, result_max, weights, choose_args, DRAWS_MAX)
    }

    /// As [`CrushMap::do_rule`], with another bound of the work.
    pub fn do_rule_bounded(
        &self,
        rule: u32,
        x: u32,
        result_max: usize,
        weights: &[u32],
        choose_args: Option<&ChooseArgMap>,
        draws_max: u64,
    ) -> Vec<i32> {
        let Some(rule) = self.rule(rule) else {
            return Vec::new();
        };
        let mut mapper = Mapper {
            map: self,
            weights,
            choose_args,
            x,
            permutations: Permutations::default(),
            draws_left: draws_max,
        };
        mapper.run(&rule.steps, result_max)
    }
}

struct Mapper<'m> {
    map: &'m CrushMap,
    weights: &'m [u32],
    choose_args: Option<&'m ChooseArgMap>,
    x: u32,
    permutations: Permutations,
    draws_left: u64,
}

/// The tunables as the steps of one rule change them.
struct Settings {
    choose_tries: u32,
    /// 0: by the tunables.
    leaf_tries: u32,
    local_retries: u32,
    local_fallback_retries: u32,
    vary_r: u32,
    stable: bool,
}

/// What a choose step looks for.
struct Want<'s> {
    settings: &'s Settings,
    type_: i32,
    /// Asked for, which may be more than fit.
    count: u32,
    to_leaf: bool,
    tries: u32,
    leaf_tries: u32,
}

/// Where a descent through the hierarchy ended.
enum Found {
    /// An item of the wanted type.
    Item(i32),
    /// An empty bucket: other draws may do better.
    Empty,
    /// Something that is not in the map: no use trying again.
    Bad,
}

impl<'m> Mapper<'m> {
    fn run(&mut self, steps: &[Step], result_max: usize) -> Vec<i32> {
        let tunables = &self.map.tunables;
        let mut settings = Settings {
            choose_tries: tunables.choose_total_tries.wrapping_add(1),
            leaf_tries: 0,
            local_retries: tunables.choose_local_tries,
            local_fallback_retries: tunables.choose_local_fallback_tries,
            vary_r: tunables.chooseleaf_vary_r.into(),
            stable: tunables.chooseleaf_stable != 0,
        };
        let mut working: Vec<i32> = Vec::new();
        let mut result = Vec::new();
        for step in steps {
            let Some(op) = step.op() else { continue };
            match op {
                StepOp::Take if self.can_take(step.arg1) => working = vec![step.arg1],
                StepOp::ChooseFirstn
                | StepOp::ChooseIndep
                | StepOp::ChooseleafFirstn
                | StepOp::ChooseleafIndep => {
                    if !working.is_empty() {
                        working = self.choose_step(op, step, &settings, &working, result_max);
                    }
                }
                StepOp::Emit => {
                    result.append(&mut working);
                    result.truncate(result_max);
                }
                _ => settings.set(op, step.arg1),
            }
        }
        result
    }

    fn can_take(&self, item: i32) -> bool {
        (0..self.map.max_devices).contains(&item) || self.map.bucket(item).is_some()
    }

    /// Chooses below every item of `from` in turn.
    fn choose_step(
        &mut self,
        op: StepOp,
        step: &Step,
        settings: &Settings,
        from: &[i32],
        result_max: usize,
    ) -> Vec<i32> {
        let to_leaf = matches!(op, StepOp::ChooseleafFirstn | StepOp::ChooseleafIndep);
        let firstn = matches!(op, StepOp::ChooseFirstn | StepOp::ChooseleafFirstn);
        let count = match step.arg1 {
            n if n > 0 => i64::from(n),
            n => i64::from(n) + result_max as i64,
        };
        let Some(count) = u32::try_from(count).ok().filter(|&n| n > 0) else {
            return Vec::new();
        };
        let leaf_tries = match (settings.leaf_tries, firstn) {
            (0, false) => 1,
            (0, true) if self.map.tunables.chooseleaf_descend_once != 0 => 1,
            (0, true) => settings.choose_tries,
            (tries, _) => tries,
        };
        let tries = settings.choose_tries;
        let want = Want { settings, type_: step.arg2, count, to_leaf, tries, leaf_tries };

        let mut out = Vec::new();
        for bucket in from.iter().filter_map(|&item| self.map.bucket(item)) {
            let room = result_max - out.len();
            let mut chosen = if firstn {
                self.choose_firstn(bucket, &want, room)
            } else {
                self.choose_indep(bucket, &want, room.min(count as usize))
            };
            out.append(&mut chosen);
        }
        out
    }

    /// As many different items as can be found, up to `room`.
    fn choose_firstn(&mut self, start: &'m Bucket, want: &Want<'_>, room: usize) -> Vec<i32> {
        let (mut items, mut leaves) = (Vec::new(), Vec::new());
        for rep in 0..want.count {
            if items.len() == room || self.draws_left == 0 {
                break;
            }
            if let Some((item, leaf)) = self.firstn_one(start, want, rep, 0, &items, &leaves) {
                items.push(item);
                leaves.push(leaf);
            }
        }
        if want.to_leaf { leaves } else { items }
    }

    /// One item that is not in `taken`, with a leaf below it that is not in `taken_leaves`.
    fn firstn_one(
        &mut self,
        start: &'m Bucket,
        want: &Want<'_>,
        rep: u32,
        parent_r: u32,
        taken: &[i32],
        taken_leaves: &[i32],
    ) -> Option<(i32, i32)> {
        let settings = want.settings;
        let mut failed_total = 0u32;
        loop {
            let mut bucket = start;
            let mut failed_here = 0u32;
            loop {
                let r = rep.wrapping_add(parent_r).wrapping_add(failed_total);
                let fallback = settings.local_fallback_retries;
                let exhaustive = (fallback > 0 && failed_here > fallback).then_some(failed_here);
                let mut collided = false;
                match self.descend(&mut bucket, want.type_, &|_| r, taken.len(), exhaustive) {
                    Found::Bad => return None,
                    Found::Empty => {}
                    Found::Item(item) if taken.contains(&item) => collided = true,
                    Found::Item(item) => {
                        let leaf = self.firstn_leaf(item, want, r, taken_leaves);
                        if let Some(leaf) = leaf
                            && !(want.type_ == 0 && self.is_out(item))
                        {
                            return Some((item, leaf));
                        }
                    }
                }
                failed_total = failed_total.wrapping_add(1);
                failed_here = failed_here.wrapping_add(1);
                let again_here = (collided && failed_here <= settings.local_retries)
                    || (fallback > 0
                        && failed_here as usize <= bucket.items.len() + fallback as usize);
                if !again_here {
                    break;
                }
            }
            if failed_total >= want.tries {
                return None;
            }
        }
    }

    /// The device below `item` that a chooseleaf step ends at; `item` itself for a choose step.
    fn firstn_leaf(&mut self, item: i32, want: &Want<'_>, r: u32, taken: &[i32]) -> Option<i32> {
        if !want.to_leaf || item >= 0 {
            return Some(item);
        }
        let settings = want.settings;
        let leaf = Want {
            settings,
            type_: 0,
            count: 1,
            to_leaf: false,
            tries: want.leaf_tries,
            leaf_tries: 0,
        };
        let sub_r = match settings.vary_r {
            0 => 0,
            // The shift is of a signed number by up to 255, which processors take modulo 32.
            vary => (r as i32).wrapping_shr(vary - 1) as u32,
        };
        let rep = if settings.stable { 0 } else { taken.len() as u32 };
        let bucket = self.map.bucket(item)?;
        self.firstn_one(bucket, &leaf, rep, sub_r, taken, &[]).map(|(device, _)| device)
    }

    /// Exactly `slots` items; each slot's draws do not depend on what other slots got.
    fn choose_indep(&mut self, start: &'m Bucket, want: &Want<'_>, slots: usize) -> Vec<i32> {
        let mut items = vec![ITEM_UNDEF; slots];
        let mut leaves = vec![ITEM_UNDEF; slots];
        let mut left = slots;
        let mut failed = 0;
        while left > 0 && failed < want.tries && self.draws_left > 0 {
            for slot in 0..slots {
                if items[slot] != ITEM_UNDEF {
                    continue;
                }
                let r_of = |b: &Bucket| indep_r(b, want.count, slot as u32, 0, failed);
                let mut bucket = start;
                match self.descend(&mut bucket, want.type_, &r_of, 0, None) {
                    Found::Empty => {}
                    Found::Bad => {
                        (items[slot], leaves[slot]) = (ITEM_NONE, ITEM_NONE);
                        left -= 1;
                    }
                    Found::Item(item) if items.contains(&item) => {}
                    Found::Item(item) => {
                        if want.to_leaf {
                            leaves[slot] = match self.map.bucket(item) {
                                Some(b) => self.indep_leaf(b, want, slot, r_of(bucket)),
                                None => item,
                            };
                            if leaves[slot] == ITEM_NONE {
                                continue;
                            }
                        }
                        if want.type_ == 0 && self.is_out(item) {
                            continue;
                        }
                        items[slot] = item;
                        left -= 1;
                    }
                }
            }
            failed += 1;
        }
        let mut out = if want.to_leaf { leaves } else { items };
        for item in out.iter_mut().filter(|item| **item == ITEM_UNDEF) {
            *item = ITEM_NONE;
        }
        out
    }

    fn indep_leaf(
        &mut self,
        start: &'m Bucket,
        want: &Want<'_>,
        slot: usize,
        parent_r: u32,
    ) -> i32 {
        for failed in 0..want.leaf_tries {
            if self.draws_left == 0 {
                break;
            }
            let r_of = |b: &Bucket| indep_r(b, want.count, slot as u32, parent_r, failed);
            match self.descend(&mut { start }, 0, &r_of, slot, None) {
                Found::Item(item) if !self.is_out(item) => return item,
                Found::Bad => return ITEM_NONE,
                _ => {}
            }
        }
        ITEM_NONE
    }

    /// Draws through the buckets between `bucket` and the wanted type; leaves `bucket` at the one
    /// that held the result. `failed_here`: buckets of up to twice as many items are searched by a
    /// permutation, which finds each item in the end.
    fn descend(
        &mut self,
        bucket: &mut &'m Bucket,
        type_: i32,
        r_of: &dyn Fn(&Bucket) -> u32,
        position: usize,
        failed_here: Option<u32>,
    ) -> Found {
        // Without a cycle, a descent meets each bucket at most once.
        for _ in 0..=self.map.buckets.len() {
            let item = match self.draw(bucket, r_of(bucket), position, failed_here) {
                Found::Item(item) => item,
                none => return none,
            };
            if item >= self.map.max_devices {
                return Found::Bad;
            }
            let below = self.map.bucket(item);
            let found_type = match below {
                Some(below) => below.type_.into(),
                None if item >= 0 => 0,
                None => return Found::Bad,
            };
            if found_type == type_ {
                return Found::Item(item);
            }
            let Some(below) = below else {
                return Found::Bad;
            };
            *bucket = below;
        }
        Found::Bad
    }

    /// One draw, paid from the budget.
    fn draw(
        &mut self,
        bucket: &Bucket,
        r: u32,
        position: usize,
        failed_here: Option<u32>,
    ) -> Found {
        let size = bucket.items.len();
        let cost = match bucket.alg() {
            Alg::Uniform | Alg::Tree => 1,
            Alg::List | Alg::Straw | Alg::Straw2 => size.max(1) as u64,
        };
        let Some(left) = self.draws_left.checked_sub(cost) else {
            self.draws_left = 0;
            return Found::Bad;
        };
        self.draws_left = left;
        if size == 0 {
            return Found::Empty;
        }
        let drawn = if failed_here.is_some_and(|failed| failed as usize >= size / 2) {
            self.permutations.choose(bucket, self.x, r)
        } else {
            let arg = self.choose_args.and_then(|args| args.get(&(!bucket.id as u32)));
            choose(bucket, &mut self.permutations, self.x, r, arg, position)
        };
        drawn.map_or(Found::Bad, Found::Item)
    }

    fn is_out(&self, device: i32) -> bool {
        match usize::try_from(device).ok().and_then(|device| self.weights.get(device)) {
            None | Some(0) => true,
            Some(&weight) => {
                weight < 0x1_0000 && hash32_2(self.x, device as u32) & 0xffff >= weight
            }
        }
    }
}

/// The draw number of a slot: each retry steps over the numbers of all slots, and over one more
/// where a uniform bucket would otherwise repeat itself.
fn indep_r(bucket: &Bucket, count: u32, slot: u32, parent_r: u32, failed: u32) -> u32 {
    let repeats = bucket.alg() == Alg::Uniform && (bucket.items.len() as u32).is_multiple_of(count);
    let stride = count.wrapping_add(repeats.into());
    slot.wrapping_add(parent_r).wrapping_add(stride.wrapping_mul(failed))
}

impl Settings {
    /// A `set_*` step; an argument below its range changes nothing.
    fn set(&mut self, op: StepOp, arg: i32) {
        let Ok(arg) = u32::try_from(arg) else { return };
        match op {
            StepOp::SetChooseTries if arg > 0 => self.choose_tries = arg,
            StepOp::SetChooseleafTries if arg > 0 => self.leaf_tries = arg,
            StepOp::SetChooseLocalTries => self.local_retries = arg,
            StepOp::SetChooseLocalFallbackTries => self.local_fallback_retries = arg,
            StepOp::SetChooseleafVaryR => self.vary_r = arg,
            StepOp::SetChooseleafStable => self.stable = arg != 0,
            _ => {}
        }
    }
}
