//! The CRUSH map as data: buckets, rules, tunables, names, device classes, weight sets.
//!
//! Invariant: the bucket at index `i` has id `-1 - i`.

use std::collections::BTreeMap;

use crate::bucket::Bucket;

/// A position of an `indep` result for which no device was found.
pub const ITEM_NONE: i32 = 0x7fff_ffff;

/// Key of the weight sets that apply to every pool without its own.
pub const DEFAULT_CHOOSE_ARGS: i64 = -1;

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CrushMap {
    pub buckets: Vec<Option<Bucket>>,
    pub rules: Vec<Option<Rule>>,
    /// Devices have ids below this.
    pub max_devices: i32,
    /// Level of the hierarchy -> its name; 0 is the device.
    pub types: BTreeMap<i32, String>,
    /// Item id -> name, of devices, buckets and shadow buckets (`name~class`).
    pub names: BTreeMap<i32, String>,
    pub rule_names: BTreeMap<i32, String>,
    pub tunables: Tunables,
    /// Item id -> class id, of devices and shadow buckets.
    pub classes: BTreeMap<i32, i32>,
    pub class_names: BTreeMap<i32, String>,
    /// Bucket id -> class id -> id of the shadow bucket that holds that class's part of it.
    pub class_buckets: BTreeMap<i32, BTreeMap<i32, i32>>,
    /// Pool id (or [`DEFAULT_CHOOSE_ARGS`]) -> weights and ids to choose by instead.
    pub choose_args: BTreeMap<i64, ChooseArgMap>,
}

/// Bucket index -> what replaces its weights and ids.
pub type ChooseArgMap = BTreeMap<u32, ChooseArg>;

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ChooseArg {
    /// Per position of the result: the items' weights.
    pub weight_set: Vec<Vec<u32>>,
    /// Ids to hash instead of the items' own; empty for none.
    pub ids: Vec<i32>,
}

impl ChooseArg {
    pub fn is_empty(&self) -> bool {
        self.weight_set.is_empty() && self.ids.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    pub choose_local_tries: u32,
    pub choose_local_fallback_tries: u32,
    /// Retries, so one less than the tries.
    pub choose_total_tries: u32,
    pub chooseleaf_descend_once: u32,
    pub chooseleaf_vary_r: u8,
    pub straw_calc_version: u8,
    /// Bit `n` allows the bucket algorithm `n`.
    pub allowed_bucket_algs: u32,
    pub chooseleaf_stable: u8,
}

impl Tunables {
    /// What a map that says nothing means.
    pub const LEGACY: Self = Self {
        choose_local_tries: 2,
        choose_local_fallback_tries: 5,
        choose_total_tries: 19,
        chooseleaf_descend_once: 0,
        chooseleaf_vary_r: 0,
        straw_calc_version: 0,
        allowed_bucket_algs: 1 << 1 | 1 << 2 | 1 << 4,
        chooseleaf_stable: 0,
    };

    pub const BOBTAIL: Self = Self {
        choose_local_tries: 0,
        choose_local_fallback_tries: 0,
        choose_total_tries: 50,
        chooseleaf_descend_once: 1,
        ..Self::LEGACY
    };

    pub const FIREFLY: Self = Self { chooseleaf_vary_r: 1, ..Self::BOBTAIL };

    pub const HAMMER: Self =
        Self { allowed_bucket_algs: 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5, ..Self::FIREFLY };

    /// The optimal profile of every release since.
    pub const JEWEL: Self = Self { chooseleaf_stable: 1, straw_calc_version: 1, ..Self::HAMMER };

    /// The name of the profile that these values make, as commands show it.
    pub fn profile(&self) -> &'static str {
        let same = |profile: Self| {
            let version = self.straw_calc_version;
            Self { straw_calc_version: version, ..profile } == *self
        };
        [
            ("jewel", Self::JEWEL),
            ("hammer", Self::HAMMER),
            ("firefly", Self::FIREFLY),
            ("bobtail", Self::BOBTAIL),
            ("argonaut", Self::LEGACY),
        ]
        .into_iter()
        .find_map(|(name, profile)| same(profile).then_some(name))
        .unwrap_or("unknown")
    }
}

impl Default for Tunables {
    fn default() -> Self {
        Self::JEWEL
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub mask: RuleMask,
    pub steps: Vec<Step>,
}

/// Which pools a rule is meant for; only shown and checked by commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleMask {
    pub ruleset: u8,
    pub type_: u8,
    pub min_size: u8,
    pub max_size: u8,
}

/// One step as encoded; unknown operations are kept and do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub op: u32,
    pub arg1: i32,
    pub arg2: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StepOp {
    Noop = 0,
    /// `arg1`: the item to start from.
    Take = 1,
    /// `arg1`: how many (<= 0: the result's size less that); `arg2`: their type.
    ChooseFirstn = 2,
    ChooseIndep = 3,
    Emit = 4,
    /// As choose, then one device below each.
    ChooseleafFirstn = 6,
    ChooseleafIndep = 7,
    SetChooseTries = 8,
    SetChooseleafTries = 9,
    SetChooseLocalTries = 10,
    SetChooseLocalFallbackTries = 11,
    SetChooseleafVaryR = 12,
    SetChooseleafStable = 13,
}

impl Step {
    pub fn new(op: StepOp, arg1: i32, arg2: i32) -> Self {
        Self { op: op as u32, arg1, arg2 }
    }

    /// The operation, if it is a known one.
    pub fn op(&self) -> Option<StepOp> {
        use StepOp::*;
        [
            Noop,
            Take,
            ChooseFirstn,
            ChooseIndep,
            Emit,
            ChooseleafFirstn,
            ChooseleafIndep,
            SetChooseTries,
            SetChooseleafTries,
            SetChooseLocalTries,
            SetChooseLocalFallbackTries,
            SetChooseleafVaryR,
            SetChooseleafStable,
        ]
        .into_iter()
        .find(|&op| op as u32 == self.op)
    }
}

/// The twelve levels that a new cluster's map names.
const TYPES: [&str; 12] = [
    "osd",
    "host",
    "chassis",
    "rack",
    "row",
    "pdu",
    "pod",
    "room",
    "datacenter",
    "zone",
    "region",
    "root",
];

impl CrushMap {
    /// A map with the usual types, no buckets and no rules.
    pub fn new() -> Self {
        let types = (0..).zip(TYPES.map(str::to_owned)).collect();
        Self { types, ..Self::default() }
    }

    pub fn bucket(&self, id: i32) -> Option<&Bucket> {
        self.buckets.get(Self::index(id)?)?.as_ref()
    }

    pub(crate) fn bucket_mut(&mut self, id: i32) -> Option<&mut Bucket> {
        self.buckets.get_mut(Self::index(id)?)?.as_mut()
    }

    /// Position of a bucket id in [`CrushMap::buckets`]; none for a device id.
    pub fn index(id: i32) -> Option<usize> {
        (id < 0).then_some(!id as usize)
    }

    /// All buckets, by descending id (-1 first).
    pub fn iter_buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter().flatten()
    }

    pub fn rule(&self, rule: u32) -> Option<&Rule> {
        self.rules.get(rule as usize)?.as_ref()
    }

    pub fn rule_by_name(&self, name: &str) -> Option<u32> {
        let (&id, _) = self.rule_names.iter().find(|(_, n)| *n == name)?;
        u32::try_from(id).ok().filter(|&id| self.rule(id).is_some())
    }

    pub fn name(&self, item: i32) -> Option<&str> {
        self.names.get(&item).map(String::as_str)
    }

    pub fn item_by_name(&self, name: &str) -> Option<i32> {
        self.names.iter().find_map(|(&id, n)| (n == name).then_some(id))
    }

    pub fn type_by_name(&self, name: &str) -> Option<i32> {
        self.types.iter().find_map(|(&id, n)| (n == name).then_some(id))
    }

    pub fn class_by_name(&self, name: &str) -> Option<i32> {
        self.class_names.iter().find_map(|(&id, n)| (n == name).then_some(id))
    }

    /// Name of the class that `item` belongs to.
    pub fn item_class(&self, item: i32) -> Option<&str> {
        self.class_names.get(self.classes.get(&item)?).map(String::as_str)
    }

    /// Whether this bucket holds one class's part of another.
    pub fn is_shadow(&self, item: i32) -> bool {
        self.names.get(&item).is_some_and(|name| name.contains('~'))
    }

    /// The weight sets that a pool's placement uses.
    pub fn choose_args_for(&self, pool: i64) -> Option<&ChooseArgMap> {
        self.choose_args.get(&pool).or_else(|| self.choose_args.get(&DEFAULT_CHOOSE_ARGS))
    }

    /// The bucket that directly holds `item`, shadow buckets aside.
    pub fn parent(&self, item: i32) -> Option<&Bucket> {
        self.iter_buckets().find(|b| b.items.contains(&item) && !self.is_shadow(b.id))
    }

    /// `(type name, bucket name)` of everything above `item`, nearest first.
    pub fn full_location(&self, item: i32) -> Vec<(&str, &str)> {
        let mut above = Vec::new();
        let mut at = item;
        while let Some(parent) = self.parent(at).filter(|_| above.len() < self.buckets.len()) {
            let level = self.types.get(&i32::from(parent.type_)).map_or("", String::as_str);
            above.push((level, self.name(parent.id).unwrap_or_default()));
            at = parent.id;
        }
        above
    }

    /// Buckets without a parent; shadow roots only if asked for.
    pub fn roots(&self, shadow: bool) -> Vec<i32> {
        let mut roots: Vec<i32> = self
            .iter_buckets()
            .filter(|b| shadow || !self.is_shadow(b.id))
            .filter(|b| !self.iter_buckets().any(|p| p.items.contains(&b.id)))
            .map(|b| b.id)
            .collect();
        roots.sort_unstable();
        roots
    }

    /// Whether `item` is `root` or somewhere below it.
    pub fn subtree_contains(&self, root: i32, item: i32) -> bool {
        self.subtree(root).contains(&item)
    }

    /// `root` and every item below it, each once.
    pub fn subtree(&self, root: i32) -> Vec<i32> {
        let mut seen = std::collections::BTreeSet::from([root]);
        let mut found = vec![root];
        let mut next = 0;
        while let Some(&item) = found.get(next) {
            let below = self.bucket(item).map_or(&[][..], |b| &b.items);
            found.extend(below.iter().filter(|&&child| seen.insert(child)));
            next += 1;
        }
        found
    }

    /// The devices that `rule` may choose, with their 16.16 weights: what its takes reach.
    pub fn rule_devices(&self, rule: u32) -> BTreeMap<i32, u32> {
        let mut devices = BTreeMap::new();
        for item in self.takes_of(rule) {
            for bucket in self.subtree(item).into_iter().filter_map(|id| self.bucket(id)) {
                let below = bucket.items.iter().enumerate().filter(|(_, item)| **item >= 0);
                devices.extend(below.map(|(i, &item)| (item, bucket.item_weight(i))));
            }
        }
        devices
    }

    /// The items where `rule` begins.
    pub fn takes_of(&self, rule: u32) -> impl Iterator<Item = i32> {
        let steps = self.rule(rule).map_or(&[][..], |r| &r.steps);
        steps.iter().filter(|s| s.op() == Some(StepOp::Take)).map(|s| s.arg1)
    }
}
