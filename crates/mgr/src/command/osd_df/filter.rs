//! Which items `osd df` shows: all, those under a CRUSH item, a device class, or a pool's.

use std::collections::BTreeSet;

use spirula_maps::OsdMap;

use crate::command::EINVAL;

#[derive(Debug, Default)]
pub(super) enum Filter {
    #[default]
    All,
    /// These, buckets and OSDs.
    Items(BTreeSet<i32>),
    /// The OSDs of a device class, and all buckets.
    Class(String),
}

impl Filter {
    /// What the text names decides; `filter_by` does not, as in Ceph. Empty shows all.
    pub(super) fn parse(map: &OsdMap, text: &str) -> Result<Self, (i32, String)> {
        if text.is_empty() {
            return Ok(Self::All);
        }
        if let Some(item) = map.crush.item_by_name(text) {
            return Ok(Self::Items(map.crush.subtree(item).into_iter().collect()));
        }
        if map.crush.class_by_name(text).is_some() {
            return Ok(Self::Class(text.to_owned()));
        }
        let unknown = || (EINVAL, format!("'{text}' not a pool, crush node or device class name"));
        let pool = map.pool_by_name(text).ok_or_else(unknown)?;
        Ok(Self::Items(below_takes(map, pool)))
    }

    pub(super) fn shows(&self, map: &OsdMap, item: i32) -> bool {
        match self {
            Self::All => true,
            Self::Items(items) => items.contains(&item),
            Self::Class(class) => item < 0 || map.crush.item_class(item) == Some(class),
        }
    }
}

/// All that a pool's rule may choose from, with the buckets where it begins and below.
fn below_takes(map: &OsdMap, pool: i64) -> BTreeSet<i32> {
    let rule = map.pool(pool).map(|p| u32::from(p.crush_rule));
    let takes = rule.into_iter().flat_map(|rule| map.crush.takes_of(rule));
    takes.flat_map(|item| map.crush.subtree(item)).collect()
}
