//! Which OSDs may hold copies of one PG. An OSD of Spirula and one of Ceph speak one protocol to clients,
//! but replicate in forms of their own, so that no CRUSH rule of a pool may reach both.
//!
//! What an OSD is it says in its metadata when it boots: `osd_objectstore` is `vos` for Spirula's, and
//! something else (`bluestore`, `memstore`) for Ceph's. One that has never said anything counts as neither.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use spirula_maps::{Incremental, OsdMap};

use crate::state::State;

const OBJECTSTORE: &str = "osd_objectstore";
const OURS: &str = "vos";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Spirula,
    Ceph,
}

fn kind_of(metadata: &BTreeMap<String, String>) -> Option<Kind> {
    metadata.get(OBJECTSTORE).map(|store| if store == OURS { Kind::Spirula } else { Kind::Ceph })
}

/// A rule that would have PGs on OSDs of both kinds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    rule: String,
    spirula: i32,
    ceph: i32,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, spirula, ceph } = self;
        write!(
            f,
            "CRUSH rule {rule} would place PGs on osd.{spirula} of Spirula and osd.{ceph} of Ceph, which cannot replicate to each other; keep them below different roots or in different device classes"
        )
    }
}

/// Whether an OSD has said that it is Ceph's.
pub(crate) fn is_ceph(state: &State, osd: i32) -> bool {
    let values = state.metadata.get(&format!("osd.{osd}"));
    values.and_then(kind_of) == Some(Kind::Ceph)
}

/// The kinds of the OSDs that have said so.
fn kinds(state: &State) -> BTreeMap<i32, Kind> {
    let osd = |name: &str| name.strip_prefix("osd.")?.parse().ok();
    let each = state.metadata.iter();
    each.filter_map(|(name, values)| Some((osd(name)?, kind_of(values)?))).collect()
}

/// Whether a change has a rule that is new or serves a pool reach OSDs of both kinds.
pub(crate) fn mixed_by(state: &State, inc: &Incremental) -> Option<Mix> {
    let kinds = kinds(state);
    let found: BTreeSet<Kind> = kinds.values().copied().collect();
    if found.len() < 2 {
        return None;
    }
    let now = state.osd.map();
    let mut next = now.clone();
    next.apply(inc).ok()?;
    let is_new = |rule: u32| now.crush.rule(rule) != next.crush.rule(rule);
    let all = (0..next.crush.rules.len() as u32).filter(|rule| next.crush.rule(*rule).is_some());
    let judged: Vec<u32> = all.filter(|rule| is_used(&next, *rule) || is_new(*rule)).collect();
    mixed(&next, judged, &kinds).or_else(|| moved(now, &next, inc, &kinds))
}

/// A pool whose PGs would have to go from OSDs of one kind to those of the other.
fn moved(
    now: &OsdMap,
    next: &OsdMap,
    inc: &Incremental,
    kinds: &BTreeMap<i32, Kind>,
) -> Option<Mix> {
    inc.new_pools.iter().find_map(|(id, pool)| {
        let old = now.pool(*id).filter(|old| old.crush_rule != pool.crush_rule)?;
        let mut reached = next.crush.rule_devices(pool.crush_rule.into());
        reached.extend(now.crush.rule_devices(old.crush_rule.into()));
        mix_of(next, pool.crush_rule.into(), &reached, kinds)
    })
}

/// Whether an OSD that says this of itself would share a pool with those of the other kind.
pub(crate) fn mixed_by_boot(
    state: &State,
    osd: i32,
    metadata: &BTreeMap<String, String>,
) -> Option<Mix> {
    let mut kinds = kinds(state);
    kinds.remove(&osd);
    let kind = kind_of(metadata)?;
    if kinds.values().all(|other| *other == kind) {
        return None;
    }
    kinds.insert(osd, kind);
    let map = state.osd.map();
    let used = (0..map.crush.rules.len() as u32).filter(|rule| is_used(map, *rule));
    let reaching = used.filter(|rule| map.crush.rule_devices(*rule).contains_key(&osd));
    mixed(map, reaching, &kinds)
}

fn is_used(map: &OsdMap, rule: u32) -> bool {
    map.pools.values().any(|pool| u32::from(pool.crush_rule) == rule)
}

fn mixed(
    map: &OsdMap,
    rules: impl IntoIterator<Item = u32>,
    kinds: &BTreeMap<i32, Kind>,
) -> Option<Mix> {
    rules.into_iter().find_map(|rule| mix_of(map, rule, &map.crush.rule_devices(rule), kinds))
}

/// OSDs of both kinds among those that a rule reaches, with their weights.
fn mix_of(
    map: &OsdMap,
    rule: u32,
    reached: &BTreeMap<i32, u32>,
    kinds: &BTreeMap<i32, Kind>,
) -> Option<Mix> {
    let of = |wanted: Kind| {
        let mut osds = reached.iter().filter(|(_, weight)| **weight > 0).map(|(osd, _)| *osd);
        osds.find(|osd| kinds.get(osd) == Some(&wanted))
    };
    let name = map.crush.rule_names.get(&(rule as i32)).cloned();
    Some(Mix {
        rule: name.unwrap_or_else(|| rule.to_string()),
        spirula: of(Kind::Spirula)?,
        ceph: of(Kind::Ceph)?,
    })
}
