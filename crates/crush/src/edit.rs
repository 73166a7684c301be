//! Changing the hierarchy: add, move, remove, weigh and rename items.
//!
//! Invariants: bucket weights follow their items' up to every root; weight sets keep the shape of
//! their buckets; the shadow trees of device classes are rebuilt by each change of structure.
//! After an error the map may be half changed: edit a copy.

use std::collections::BTreeMap;

use crate::bucket::{Alg, Bucket};
use crate::map::CrushMap;

/// Where an item shall be: type name -> bucket name.
pub type Location = BTreeMap<String, String>;

/// Why a change is refused. The one who asked for it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("name '{0}' is not valid: letters, digits, '-', '_' and '.' only")]
    InvalidName(String),
    #[error("'{0}' already exists")]
    Exists(String),
    #[error("'{0}' does not exist")]
    NotFound(String),
    #[error("item id {item} does not exist")]
    NoItem { item: i32 },
    #[error("item id {item} is not a bucket")]
    NotABucket { item: i32 },
    #[error("bucket id {item} is not empty")]
    NotEmpty { item: i32 },
    #[error("bucket id {item} is in use")]
    InUse { item: i32 },
    #[error("the location names no bucket that could hold item id {item}")]
    InvalidLocation { item: i32 },
    #[error("item id {item} would contain itself")]
    Loop { item: i32 },
    #[error("no free rule id")]
    NoSpace,
}

impl EditError {
    /// The errno that Ceph's commands answer in this case.
    pub fn errno(&self) -> i32 {
        match self {
            Self::InvalidName(_) | Self::NotABucket { .. } | Self::InvalidLocation { .. } => 22,
            Self::Exists(_) => 17,
            Self::NotFound(_) | Self::NoItem { .. } => 2,
            Self::NotEmpty { .. } => 39,
            Self::InUse { .. } => 16,
            Self::Loop { .. } => 40,
            Self::NoSpace => 28,
        }
    }
}

impl CrushMap {
    /// Makes an empty bucket that is in no other, and returns its id.
    pub fn add_bucket(&mut self, name: &str, type_name: &str) -> Result<i32, EditError> {
        check_name(name)?;
        if self.item_by_name(name).is_some() {
            return Err(EditError::Exists(name.to_owned()));
        }
        let type_ = self.type_by_name(type_name).filter(|&type_| type_ > 0);
        let type_ = type_.ok_or_else(|| EditError::NotFound(type_name.to_owned()))?;
        let id = self.new_bucket(type_ as u16, &[]);
        self.names.insert(id, name.to_owned());
        Ok(id)
    }

    /// Adds a device or bucket with a 16.16 weight, making the buckets of `location` as needed.
    pub fn insert_item(
        &mut self,
        item: i32,
        weight: u32,
        name: &str,
        location: &Location,
    ) -> Result<(), EditError> {
        check_name(name)?;
        location.values().try_for_each(|bucket| check_name(bucket))?;
        match self.item_by_name(name) {
            Some(other) if other != item => return Err(EditError::Exists(name.to_owned())),
            Some(_) => {}
            None => _ = self.names.insert(item, name.to_owned()),
        }
        self.link(item, location)?;
        if self.set_weight_in(item, weight, location) == 0 {
            return Err(EditError::InvalidLocation { item });
        }
        self.max_devices = self.max_devices.max(item.saturating_add(1));
        self.rebuild_classes()
    }

    /// Sets place, weight and name of an item; says whether that changed anything.
    pub fn update_item(
        &mut self,
        item: i32,
        weight: u32,
        name: &str,
        location: &Location,
    ) -> Result<bool, EditError> {
        check_name(name)?;
        let Some(old_weight) = self.weight_at(item, location) else {
            if self.names.contains_key(&item) {
                self.unlink_item(item)?;
            }
            self.insert_item(item, weight, name, location)?;
            return Ok(true);
        };
        let mut changed = false;
        if old_weight != weight {
            self.set_weight_in(item, weight, location);
            self.rebuild_classes()?;
            changed = true;
        }
        if self.name(item) != Some(name) {
            self.names.insert(item, name.to_owned());
            changed = true;
        }
        Ok(changed)
    }

    /// Puts a device where `location` says; one that was elsewhere keeps its weight. What a
    /// starting OSD asks for. Says whether that changed anything.
    pub fn create_or_move_item(
        &mut self,
        item: i32,
        weight: u32,
        name: &str,
        location: &Location,
    ) -> Result<bool, EditError> {
        check_name(name)?;
        if self.weight_at(item, location).is_some() {
            return Ok(false);
        }
        let weight = self.item_weight(item).unwrap_or(weight);
        if self.names.contains_key(&item) {
            self.unlink_item(item)?;
        }
        self.insert_item(item, weight, name, location)?;
        Ok(true)
    }

    /// Moves a bucket with all below it.
    pub fn move_bucket(&mut self, id: i32, location: &Location) -> Result<(), EditError> {
        let bucket = self.bucket(id).ok_or(EditError::NotABucket { item: id })?;
        let weight = bucket.weight;
        let name = self.name(id).ok_or(EditError::NoItem { item: id })?.to_owned();
        let below = |name: &String| {
            self.item_by_name(name).is_some_and(|target| self.subtree_contains(id, target))
        };
        if location.values().any(below) {
            return Err(EditError::Loop { item: id });
        }
        self.unlink_item(id)?;
        self.insert_item(id, weight, &name, location)
    }

    /// Adds a bucket to one more place.
    pub fn link_bucket(&mut self, id: i32, location: &Location) -> Result<(), EditError> {
        let weight = self.bucket(id).ok_or(EditError::NotABucket { item: id })?.weight;
        let name = self.name(id).ok_or(EditError::NoItem { item: id })?.to_owned();
        self.insert_item(id, weight, &name, location)
    }

    /// Takes an item out of every bucket, and forgets it. A bucket must be empty and unused.
    pub fn remove_item(&mut self, item: i32) -> Result<(), EditError> {
        if item < 0 {
            let bucket = self.bucket(item).ok_or(EditError::NoItem { item })?;
            if !bucket.items.is_empty() {
                return Err(EditError::NotEmpty { item });
            }
            if self.is_in_use(item) {
                return Err(EditError::InUse { item });
            }
        } else if !self.names.contains_key(&item) && self.parent(item).is_none() {
            return Err(EditError::NoItem { item });
        }
        self.unlink_item(item)?;
        self.forget(item);
        self.rebuild_classes()
    }

    /// Takes an item out of one bucket only; the last time, the item is forgotten too.
    pub fn remove_item_from(&mut self, item: i32, bucket: i32) -> Result<(), EditError> {
        let holds = |b: &Bucket| b.items.contains(&item);
        if !self.bucket(bucket).is_some_and(holds) {
            return Err(EditError::NoItem { item });
        }
        self.unlink_from(bucket, item);
        if item >= 0 && self.parent(item).is_none() {
            self.forget(item);
        }
        self.rebuild_classes()
    }

    /// Sets the weight of an item wherever it is; returns in how many places.
    pub fn set_item_weight(&mut self, item: i32, weight: u32) -> usize {
        let holders: Vec<i32> =
            self.iter_buckets().filter(|b| b.items.contains(&item)).map(|b| b.id).collect();
        for &bucket in &holders {
            self.set_weight_below(bucket, item, weight);
        }
        holders.len()
    }

    /// Sets the weight of every device below a bucket; returns how many there are.
    pub fn set_subtree_weight(&mut self, bucket: i32, weight: u32) -> usize {
        let devices: Vec<i32> = self.subtree(bucket).into_iter().filter(|&i| i >= 0).collect();
        devices.iter().for_each(|&device| _ = self.set_item_weight(device, weight));
        devices.len()
    }

    /// Weight of an item in the first bucket that holds it.
    pub fn item_weight(&self, item: i32) -> Option<u32> {
        let parent = self.parent(item)?;
        let position = parent.items.iter().position(|&i| i == item)?;
        Some(parent.item_weight(position))
    }

    pub fn rename_bucket(&mut self, from: &str, to: &str) -> Result<(), EditError> {
        check_name(to)?;
        let id = self.item_by_name(from).ok_or_else(|| EditError::NotFound(from.to_owned()))?;
        if id >= 0 {
            return Err(EditError::NotABucket { item: id });
        }
        if self.item_by_name(to).is_some() {
            return Err(EditError::Exists(to.to_owned()));
        }
        self.names.insert(id, to.to_owned());
        self.rebuild_classes()
    }

    /// Whether a rule or a shadow tree starts at this bucket.
    pub fn is_in_use(&self, bucket: i32) -> bool {
        let is_shadow_of = |id: &i32| *id == bucket;
        if self.class_buckets.values().any(|shadows| shadows.values().any(is_shadow_of)) {
            return true;
        }
        self.rule_takes().any(|taken| {
            let shadows = self.class_buckets.get(&bucket);
            taken == bucket || shadows.is_some_and(|s| s.values().any(|&shadow| shadow == taken))
        })
    }

    /// Adds a bucket where there is room and returns its id.
    pub(crate) fn new_bucket(&mut self, type_: u16, items: &[(i32, u32)]) -> i32 {
        let free = self.buckets.iter().position(Option::is_none).unwrap_or(self.buckets.len());
        let id = !(free as i32);
        self.put_bucket(Bucket::new(id, type_, Alg::Straw2, 1, items));
        id
    }

    /// Stores a bucket under its own id, growing the table as Ceph does.
    pub(crate) fn put_bucket(&mut self, bucket: Bucket) {
        let Some(index) = Self::index(bucket.id) else {
            return;
        };
        while index >= self.buckets.len() {
            let doubled = (self.buckets.len() * 2).max(8);
            self.buckets.resize(doubled, None);
        }
        let weights = bucket.weights();
        self.buckets[index] = Some(bucket);
        if weights.is_empty() {
            return;
        }
        for args in self.choose_args.values_mut() {
            let positions = args.values().map(|a| a.weight_set.len()).find(|&n| n > 0);
            let weight_set = vec![weights.clone(); positions.unwrap_or(0)];
            args.entry(index as u32).or_default().weight_set = weight_set;
        }
    }

    /// Puts `item` into the lowest bucket that `location` names, with weight 0.
    fn link(&mut self, item: i32, location: &Location) -> Result<(), EditError> {
        let mut current = item;
        let levels: Vec<(i32, String)> = self.types.clone().into_iter().collect();
        for (type_, type_name) in levels.iter().filter(|(type_, _)| *type_ > 0) {
            let Some(name) = location.get(type_name) else {
                continue;
            };
            let Some(id) = self.item_by_name(name) else {
                let id = self.new_bucket(*type_ as u16, &[(current, 0)]);
                self.names.insert(id, name.clone());
                current = id;
                continue;
            };
            let bucket = self.bucket(id).ok_or(EditError::NotABucket { item: id })?;
            if self.subtree_contains(id, current) || i32::from(bucket.type_) != *type_ {
                return Err(EditError::InvalidLocation { item });
            }
            if self.subtree_contains(current, id) {
                return Err(EditError::Loop { item });
            }
            self.add_to(id, current, 0);
            break;
        }
        Ok(())
    }

    /// Weight of `item` in the lowest bucket that `location` names; none if it is not in there.
    fn weight_at(&self, item: i32, location: &Location) -> Option<u32> {
        let lowest = self.types.iter().filter(|(type_, _)| **type_ > 0);
        let name = lowest.filter_map(|(_, type_name)| location.get(type_name)).next()?;
        let bucket = self.bucket(self.item_by_name(name)?)?;
        let position = bucket.items.iter().position(|&i| i == item)?;
        Some(bucket.item_weight(position))
    }

    fn set_weight_in(&mut self, item: i32, weight: u32, location: &Location) -> usize {
        let named = location.values().filter_map(|name| self.item_by_name(name));
        let holders: Vec<i32> =
            named.filter(|&id| self.bucket(id).is_some_and(|b| b.items.contains(&item))).collect();
        holders.iter().for_each(|&bucket| self.set_weight_below(bucket, item, weight));
        holders.len()
    }

    /// Sets an item's weight in one bucket and carries the sum up to the roots.
    pub(crate) fn set_weight_below(&mut self, bucket: i32, item: i32, weight: u32) {
        let mut pending = vec![(bucket, item, weight)];
        let mut steps = 0;
        while let Some((bucket, item, weight)) = pending.pop() {
            // A cycle would never settle; a sane map needs one step per bucket and parent.
            steps += 1;
            if steps > self.buckets.len().saturating_mul(64) {
                return;
            }
            let straw_version = self.tunables.straw_calc_version;
            let Some(b) = self.bucket_mut(bucket) else {
                continue;
            };
            let Some(position) = b.items.iter().position(|&i| i == item) else {
                continue;
            };
            b.set_item_weight(position, weight, straw_version);
            let sum = b.weight;
            self.each_weight_set(bucket, |set| {
                if let Some(entry) = set.get_mut(position) {
                    *entry = weight;
                }
            });
            let above = self.iter_buckets().filter(|b| b.items.contains(&bucket));
            pending.extend(above.map(|b| (b.id, bucket, sum)));
        }
    }

    pub(crate) fn unlink_item(&mut self, item: i32) -> Result<(), EditError> {
        let holders: Vec<i32> = self
            .iter_buckets()
            .filter(|b| b.items.contains(&item) && !self.is_shadow(b.id))
            .map(|b| b.id)
            .collect();
        for bucket in holders {
            self.unlink_from(bucket, item);
        }
        self.rebuild_classes()
    }

    pub(crate) fn unlink_from(&mut self, bucket: i32, item: i32) {
        self.set_weight_below(bucket, item, 0);
        let straw_version = self.tunables.straw_calc_version;
        let Some(b) = self.bucket_mut(bucket) else {
            return;
        };
        let Some(position) = b.items.iter().position(|&i| i == item) else {
            return;
        };
        b.remove_at(position, straw_version);
        self.each_weight_set(bucket, |set| {
            if position < set.len() {
                set.remove(position);
            }
        });
        for args in self.choose_args.values_mut() {
            if let Some(arg) = args.get_mut(&(!bucket as u32))
                && position < arg.ids.len()
            {
                arg.ids.remove(position);
            }
        }
    }

    pub(crate) fn add_to(&mut self, bucket: i32, item: i32, weight: u32) {
        let straw_version = self.tunables.straw_calc_version;
        let Some(b) = self.bucket_mut(bucket) else {
            return;
        };
        b.add_item(item, weight, straw_version);
        self.each_weight_set(bucket, |set| set.push(weight));
        for args in self.choose_args.values_mut() {
            if let Some(arg) = args.get_mut(&(!bucket as u32)).filter(|arg| !arg.ids.is_empty()) {
                arg.ids.push(item);
            }
        }
    }

    fn each_weight_set(&mut self, bucket: i32, mut change: impl FnMut(&mut Vec<u32>)) {
        for args in self.choose_args.values_mut() {
            if let Some(arg) = args.get_mut(&(!bucket as u32)) {
                arg.weight_set.iter_mut().for_each(&mut change);
            }
        }
    }

    /// Drops everything that is known of an item.
    pub(crate) fn forget(&mut self, item: i32) {
        self.names.remove(&item);
        self.classes.remove(&item);
        if let Some(index) = Self::index(item) {
            if let Some(slot) = self.buckets.get_mut(index) {
                *slot = None;
            }
            self.class_buckets.remove(&item);
            self.choose_args.values_mut().for_each(|args| _ = args.remove(&(index as u32)));
        }
    }
}

/// Names of items, classes and rules: `[-_.0-9a-zA-Z]+`.
pub(crate) fn check_name(name: &str) -> Result<(), EditError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(valid) {
        return Err(EditError::InvalidName(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> Location {
        [("host".to_owned(), host.to_owned()), ("root".to_owned(), "default".to_owned())].into()
    }

    fn two_hosts() -> CrushMap {
        let mut map = CrushMap::new();
        map.add_bucket("default", "root").unwrap();
        for osd in 0..4 {
            let host = at(["a", "b"][osd as usize % 2]);
            map.insert_item(osd, 0x10000, &format!("osd.{osd}"), &host).unwrap();
        }
        map
    }

    #[test]
    fn weights_follow_up_to_the_root() {
        let mut map = two_hosts();
        let root = map.item_by_name("default").unwrap();
        assert_eq!(map.bucket(root).unwrap().weight, 0x40000);
        assert_eq!(map.set_item_weight(1, 0x8000), 1);
        assert_eq!(map.bucket(root).unwrap().weight, 0x38000);
        map.remove_item(0).unwrap();
        assert_eq!(map.bucket(root).unwrap().weight, 0x28000);
        assert_eq!(map.full_location(1), [("host", "b"), ("root", "default")]);
    }

    #[test]
    fn buckets_move_and_never_into_themselves() {
        let mut map = two_hosts();
        let host = map.item_by_name("a").unwrap();
        let root = map.item_by_name("default").unwrap();
        let rack: Location =
            [("rack".into(), "r1".into()), ("root".into(), "default".into())].into();
        map.move_bucket(host, &rack).unwrap();
        assert_eq!(map.full_location(0), [("host", "a"), ("rack", "r1"), ("root", "default")]);
        assert_eq!(map.bucket(root).unwrap().weight, 0x40000);
        let into_itself: Location = [("host".into(), "a".into())].into();
        assert_eq!(map.move_bucket(root, &into_itself), Err(EditError::Loop { item: root }));
        assert_eq!(map.remove_item(host), Err(EditError::NotEmpty { item: host }));
    }

    #[test]
    fn a_starting_osd_is_put_in_place_once() {
        let mut map = two_hosts();
        assert_eq!(map.create_or_move_item(0, 0x20000, "osd.0", &at("a")), Ok(false));
        assert_eq!(map.create_or_move_item(0, 0x20000, "osd.0", &at("c")), Ok(true));
        assert_eq!(map.item_weight(0), Some(0x10000));
        assert_eq!(map.insert_item(7, 0, "osd 7", &at("a")).unwrap_err().errno(), 22);
    }
}
