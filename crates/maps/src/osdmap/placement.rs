//! Where an object is: object -> PG -> OSDs.
//!
//! Invariant: each step gives what Ceph 16's `OSDMap` gives, so that clients and OSDs agree; OSD ids
//! from the map may be nonsense and are checked where they are used.

use spirula_crush::hash::hash32_2;
use spirula_crush::{CrushMap, ITEM_NONE};
use spirula_wire::types::{ObjectLocator, PgId};

use crate::osdmap::{AFFINITY_DEFAULT, OsdMap};
use crate::pool::PgPool;

/// Who should serve a PG, and who does. Primaries are -1 if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpActing {
    pub up: Vec<i32>,
    pub up_primary: i32,
    pub acting: Vec<i32>,
    pub acting_primary: i32,
}

impl UpActing {
    const NOWHERE: Self =
        Self { up: Vec::new(), up_primary: -1, acting: Vec::new(), acting_primary: -1 };

    /// The shard that an OSD holds in an erasure-coded pool.
    pub fn shard_of(&self, osd: i32) -> Option<usize> {
        self.acting.iter().position(|&o| o == osd)
    }
}

impl OsdMap {
    /// The *raw* PG of an object, whose seed is the whole hash: what requests carry.
    pub fn object_to_pg(&self, locator: &ObjectLocator, name: &[u8]) -> Option<PgId> {
        let pool = self.pool(locator.pool)?;
        let key = if locator.key.is_empty() { name } else { &locator.key[..] };
        let hash = match u32::try_from(locator.hash) {
            Ok(hash) => hash,
            Err(_) => pool.hash_key(key, &locator.nspace),
        };
        Some(PgId::new(locator.pool, hash))
    }

    /// The PG that a raw one falls into.
    pub fn raw_pg_to_pg(&self, raw: PgId) -> Option<PgId> {
        Some(PgId::new(raw.pool, self.pool(raw.pool)?.seed_of(raw.seed)))
    }

    /// The OSDs of a PG, raw or not; none if it has no pool.
    pub fn pg_to_up_acting(&self, pg: PgId) -> UpActing {
        self.pg_to_up_acting_bounded(pg, spirula_crush::DRAWS_MAX)
    }

    /// As [`OsdMap::pg_to_up_acting`], with another bound of CRUSH's work.
    #[doc(hidden)]
    pub fn pg_to_up_acting_bounded(&self, pg: PgId, draws_max: u64) -> UpActing {
        let Some(pool) = self.pool(pg.pool) else {
            return UpActing::NOWHERE;
        };
        let folded = PgId::new(pg.pool, pool.seed_of(pg.seed));
        let (temp, temp_primary) = self.temp_osds(pool, folded);

        let mut raw = self.crush_osds(pool, pg, draws_max);
        self.apply_upmap(folded, &mut raw);
        let mut up = self.usable(pool, &raw, |id| self.is_up(id));
        let up_primary = self.pick_primary(pool, pg, &mut up);

        let acting = if temp.is_empty() { up.clone() } else { temp };
        let acting_primary = match temp_primary {
            Some(osd) => osd,
            None => up_primary,
        };
        UpActing { up, up_primary, acting, acting_primary }
    }

    /// What CRUSH finds, before exceptions and before looking at who is up.
    pub fn pg_to_raw_osds(&self, pg: PgId) -> Vec<i32> {
        let pool = self.pool(pg.pool);
        pool.map_or_else(Vec::new, |pool| self.crush_osds(pool, pg, spirula_crush::DRAWS_MAX))
    }

    fn crush_osds(&self, pool: &PgPool, pg: PgId, draws_max: u64) -> Vec<i32> {
        let Some(rule) = find_rule(&self.crush, pool) else {
            return Vec::new();
        };
        let weights: Vec<u32> = self.osds.iter().map(|osd| osd.weight).collect();
        let raw = self.crush.do_rule_bounded(
            rule,
            pool.placement_seed(pg),
            pool.size.into(),
            &weights,
            self.crush.choose_args_for(pg.pool),
            draws_max,
        );
        self.usable(pool, &raw, |id| self.exists(id))
    }

    /// Drops the OSDs that are no use, or leaves holes where places matter.
    fn usable(&self, pool: &PgPool, osds: &[i32], is_use: impl Fn(i32) -> bool) -> Vec<i32> {
        if pool.can_shift_osds() {
            osds.iter().copied().filter(|&osd| is_use(osd)).collect()
        } else {
            osds.iter().map(|&osd| if is_use(osd) { osd } else { ITEM_NONE }).collect()
        }
    }

    fn temp_osds(&self, pool: &PgPool, pg: PgId) -> (Vec<i32>, Option<i32>) {
        let named = self.pg_temp.get(&pg).map_or(&[][..], Vec::as_slice);
        let osds = self.usable(pool, named, |id| self.is_up(id));
        let primary = self.primary_temp.get(&pg).copied();
        let primary = primary.filter(|&osd| osd != -1).or_else(|| first(&osds));
        (osds, primary)
    }

    /// A mapping that names an OSD that is out is ignored.
    fn apply_upmap(&self, pg: PgId, raw: &mut Vec<i32>) {
        let is_out = |id: i32| self.osd(id).is_some_and(|osd| osd.weight == 0);
        if let Some(osds) = self.pg_upmap.get(&pg) {
            if osds.iter().any(|&osd| is_out(osd)) {
                return;
            }
            raw.clone_from(osds);
        }
        for &(from, to) in self.pg_upmap_items.get(&pg).into_iter().flatten() {
            if raw.contains(&to) || is_out(to) {
                continue;
            }
            if let Some(osd) = raw.iter_mut().find(|osd| **osd == from) {
                *osd = to;
            }
        }
    }

    /// The first OSD, or another where affinities say so; it is moved to the front if places do
    /// not matter.
    fn pick_primary(&self, pool: &PgPool, pg: PgId, osds: &mut [i32]) -> i32 {
        let Some(default) = first(osds) else {
            return -1;
        };
        let seed = pool.placement_seed(pg);
        let is_default = |&osd: &i32| osd == ITEM_NONE || self.affinity(osd) == AFFINITY_DEFAULT;
        if osds.iter().all(is_default) {
            return default;
        }
        let accepts = |&osd: &i32| {
            let affinity = self.affinity(osd);
            osd != ITEM_NONE
                && (affinity >= AFFINITY_DEFAULT || hash32_2(seed, osd as u32) >> 16 < affinity)
        };
        let fallback = osds.iter().position(|&osd| osd != ITEM_NONE);
        let Some(at) = osds.iter().position(accepts).or(fallback) else {
            return default;
        };
        let primary = osds[at];
        if pool.can_shift_osds() {
            osds[..=at].rotate_right(1);
        }
        primary
    }
}

fn first(osds: &[i32]) -> Option<i32> {
    osds.iter().copied().find(|&osd| osd != ITEM_NONE)
}

/// The rule whose mask fits the pool.
fn find_rule(crush: &CrushMap, pool: &PgPool) -> Option<u32> {
    let fits = |rule: &spirula_crush::Rule| {
        let mask = rule.mask;
        mask.ruleset == pool.crush_rule
            && mask.type_ == pool.type_
            && (mask.min_size..=mask.max_size).contains(&pool.size)
    };
    (0..).zip(&crush.rules).find_map(|(id, rule)| rule.as_ref().is_some_and(fits).then_some(id))
}
