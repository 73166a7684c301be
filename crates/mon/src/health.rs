//! Health checks: what is wrong with the cluster, by Ceph's codes and texts.
//!
//! Each check is a function from state and statistics to at most one [`HealthCheck`].

use std::time::Duration;

use spirula_maps::{OsdMap, PgPool, flags, osd_state, pool_flags};
use spirula_wire::msg::mgr::{HealthCheck, HealthChecks, health};

use crate::Now;
use crate::fullness::{self, Fullness};
use crate::json::float;
use crate::live::Live;
use crate::options::Settings;
use crate::service::Skew;
use crate::state::State;

/// How long PGs may be inactive before it is a problem (they are, for a moment, on every change).
const INACTIVE_GRACE: Duration = Duration::from_secs(60);

/// What a check looks at.
struct View<'a> {
    state: &'a State,
    map: &'a OsdMap,
    live: &'a Live,
    settings: &'a Settings,
    now: Now,
}

type Check = fn(&View<'_>) -> Option<HealthCheck>;

/// Every check of the monitor. The manager's are added to what these find.
const CHECKS: &[(&str, Check)] = &[
    ("AUTH_INSECURE_GLOBAL_ID_RECLAIM_ALLOWED", insecure_reclaim),
    ("MGR_DOWN", mgr_down),
    ("MON_CLOCK_SKEW", mon_clock_skew),
    ("MON_DOWN", mon_down),
    ("OSDMAP_FLAGS", osdmap_flags),
    ("OSD_BACKFILLFULL", osd_backfillfull),
    ("OSD_DOWN", osd_down),
    ("OSD_FLAGS", osd_flags),
    ("OSD_FULL", osd_full),
    ("OSD_HOST_DOWN", osd_host_down),
    ("OSD_NEARFULL", osd_nearfull),
    ("OSD_OUT_OF_ORDER_FULL", osd_out_of_order_full),
    ("OSD_ROOT_DOWN", osd_root_down),
    ("POOL_APP_NOT_ENABLED", pool_app),
    ("POOL_BACKFILLFULL", pool_backfillfull),
    ("POOL_FULL", pool_full),
    ("POOL_NEARFULL", pool_nearfull),
    ("POOL_NO_REDUNDANCY", pool_no_redundancy),
    ("POOL_PG_NUM_NOT_POWER_OF_TWO", pool_pg_num),
    ("POOL_SCRUB_FLAGS", pool_scrub_flags),
    ("SMALLER_PGP_NUM", smaller_pgp_num),
    ("TOO_FEW_OSDS", too_few_osds),
    ("TOO_MANY_PGS", too_many_pgs),
];

/// All checks that fail now, muted or not.
pub(crate) fn look(state: &State, live: &Live, settings: &Settings, now: Now) -> HealthChecks {
    let view = View { state, map: state.osd.map(), live, settings, now };
    let mut found = live.mgr_checks.clone();
    for (code, check) in CHECKS {
        if let Some(result) = check(&view) {
            found.checks.insert((*code).to_owned(), result);
        }
    }
    found
}

/// The worst severity that is not muted.
pub(crate) fn overall(state: &State, checks: &HealthChecks) -> u8 {
    let open = checks.checks.iter().filter(|(code, _)| !muted(state, code));
    open.map(|(_, c)| c.severity).min().unwrap_or(health::OK)
}

pub(crate) fn muted(state: &State, code: &str) -> bool {
    state.mutes.contains_key(code)
}

/// `HEALTH_OK` and so on.
pub(crate) fn name(severity: u8) -> &'static str {
    match severity {
        health::ERR => "HEALTH_ERR",
        health::WARN => "HEALTH_WARN",
        _ => "HEALTH_OK",
    }
}

/// `[WRN]` and so on.
pub(crate) fn short_name(severity: u8) -> &'static str {
    match severity {
        health::ERR => "[ERR]",
        health::WARN => "[WRN]",
        _ => "[OK]",
    }
}

fn warn(summary: String, count: usize, detail: Vec<String>) -> Option<HealthCheck> {
    Some(HealthCheck { severity: health::WARN, summary, detail, count: count as i64 })
}

/// A check over pools: those that `bad` describes, under `summary` of their number.
fn pools_where(
    view: &View<'_>,
    summary: impl FnOnce(usize) -> String,
    bad: impl Fn(i64, &str, &PgPool) -> Option<String>,
) -> Option<HealthCheck> {
    let name = |id| view.map.pool_name(id).unwrap_or_default();
    let detail: Vec<String> =
        view.map.pools.iter().filter_map(|(&id, pool)| bad(id, name(id), pool)).collect();
    if detail.is_empty() { None } else { warn(summary(detail.len()), detail.len(), detail) }
}

fn insecure_reclaim(view: &View<'_>) -> Option<HealthCheck> {
    let allowed = view.settings.bool("auth_allow_insecure_global_id_reclaim")
        && view.settings.bool("mon_warn_on_insecure_global_id_reclaim_allowed");
    let detail =
        format!("mon.{} has auth_allow_insecure_global_id_reclaim set to true", view.live.name);
    allowed.then(|| warn("mon is allowing insecure global_id reclaim".into(), 1, vec![detail]))?
}

/// Monitors outside of the quorum; a new cluster's may still be on their way.
fn mon_down(view: &View<'_>) -> Option<HealthCheck> {
    let (map, quorum) = (view.state.monmap.map(), &view.live.quorum.names);
    let grace = view.settings.secs("mon_down_mkfs_grace");
    let out = map.ranks.iter().enumerate().filter(|(_, name)| !quorum.contains(name));
    let detail: Vec<String> = out
        .map(|(rank, name)| {
            let addrs = view.state.monmap.addrs_of(name);
            format!("mon.{name} (rank {rank}) addr {addrs} is down (out of quorum)")
        })
        .collect();
    let n = detail.len();
    let young = view.now.wall <= Duration::from(map.created) + grace;
    if n == 0 || quorum.is_empty() || young {
        return None;
    }
    let summary = format!("{n}/{} mons down, quorum {}", map.ranks.len(), quorum.join(","));
    warn(summary, n, detail)
}

/// What is wrong with a clock, in Ceph's words.
pub(crate) fn clock_text(settings: &Settings, found: &Skew) -> Option<String> {
    let (skew, max) = (found.skew.abs(), settings.float("mon_clock_drift_allowed"));
    let text = || format!("clock skew {}s > max {}s", float(skew, 6), float(max, 6));
    (skew > max).then(text)
}

fn mon_clock_skew(view: &View<'_>) -> Option<HealthCheck> {
    let found = &view.live.clocks.found;
    let wrong = found.iter().filter_map(|(name, f)| Some((name, f, clock_text(view.settings, f)?)));
    let (mut names, mut detail) = (Vec::new(), Vec::new());
    for (name, found, text) in wrong {
        names.push(format!("mon.{name}"));
        detail.push(format!("mon.{name} {text} (latency {}s)", float(found.latency, 6)));
    }
    let n = names.len();
    (n > 0).then(|| warn(format!("clock skew detected on {}", names.join(", ")), n, detail))?
}

fn mgr_down(view: &View<'_>) -> Option<HealthCheck> {
    let map = view.state.mgr.map();
    // A cluster whose first manager has not come yet is not broken.
    (map.active_gid == 0 && map.epoch > 1).then(|| warn("no active mgr".into(), 0, vec![]))?
}

fn osdmap_flags(view: &View<'_>) -> Option<HealthCheck> {
    let shown = flags::PAUSERD
        | flags::PAUSEWR
        | flags::PAUSEREC
        | flags::NOUP
        | flags::NODOWN
        | flags::NOIN
        | flags::NOOUT
        | flags::NOBACKFILL
        | flags::NORECOVER
        | flags::NOSCRUB
        | flags::NODEEP_SCRUB
        | flags::NOTIERAGENT
        | flags::NOSNAPTRIM
        | flags::NOREBALANCE;
    let set = view.map.flags & shown;
    (set != 0).then(|| warn(format!("{} flag(s) set", flags::names(set)), 0, vec![]))?
}

/// `root=default,host=h`.
pub(crate) fn location_text(map: &OsdMap, item: i32) -> String {
    let mut above = map.crush.full_location(item);
    above.reverse();
    let pairs: Vec<String> = above.iter().map(|(t, n)| format!("{t}={n}")).collect();
    pairs.join(",")
}

fn is_down_in(map: &OsdMap, osd: i32) -> bool {
    map.is_in(osd) && !map.is_up(osd)
}

fn osd_down(view: &View<'_>) -> Option<HealthCheck> {
    let down: Vec<i32> =
        view.map.existing_osds().map(|(id, _)| id).filter(|id| is_down_in(view.map, *id)).collect();
    // OSDs that never came up yet belong to a cluster that is starting.
    let never_up = |id: &i32| view.map.osd(*id).is_some_and(|o| o.info.up_from == 0);
    let starting = down.iter().all(never_up);
    let age = view.now.wall.saturating_sub(view.map.created.into());
    if down.is_empty() || starting && age < INACTIVE_GRACE {
        return None;
    }
    let detail = down
        .iter()
        .map(|id| format!("osd.{id} ({}) is down", location_text(view.map, *id)))
        .collect();
    warn(format!("{} osds down", down.len()), down.len(), detail)
}

fn subtree_down(view: &View<'_>, level: &str) -> Option<HealthCheck> {
    osd_down(view)?;
    let crush = &view.map.crush;
    let wanted = crush.type_by_name(level)?;
    let mut osds = 0;
    let mut detail = Vec::new();
    for bucket in crush.iter_buckets() {
        if i32::from(bucket.type_) != wanted || crush.is_shadow(bucket.id) {
            continue;
        }
        let below: Vec<i32> =
            crush.subtree(bucket.id).into_iter().filter(|i| view.map.exists(*i)).collect();
        if below.is_empty() || !below.iter().all(|osd| is_down_in(view.map, *osd)) {
            continue;
        }
        osds += below.len();
        let name = crush.name(bucket.id).unwrap_or_default();
        let at = location_text(view.map, bucket.id);
        let at = if at.is_empty() { at } else { format!(" ({at})") };
        detail.push(format!("{level} {name}{at} ({} osds) is down", below.len()));
    }
    let n = detail.len();
    let plural = if n > 1 { "s" } else { "" };
    (n > 0).then(|| warn(format!("{n} {level}{plural} ({osds} osds) down"), n, detail))?
}

fn osd_host_down(view: &View<'_>) -> Option<HealthCheck> {
    subtree_down(view, "host")
}

fn osd_root_down(view: &View<'_>) -> Option<HealthCheck> {
    subtree_down(view, "root")
}

/// The OSDs that are this full, in Ceph's words: those of the summary and of the details.
fn osds_as(view: &View<'_>, level: Fullness, words: [&str; 2]) -> Option<HealthCheck> {
    let such = view.map.existing_osds().filter(|(_, osd)| fullness::of(osd) == Some(level));
    let detail: Vec<String> = such.map(|(id, _)| format!("osd.{id} is {}", words[1])).collect();
    let n = detail.len();
    (n > 0).then(|| warn(format!("{n} {} osd(s)", words[0]), n, detail))?
}

fn osd_full(view: &View<'_>) -> Option<HealthCheck> {
    let check = osds_as(view, Fullness::Full, ["full", "full"])?;
    Some(HealthCheck { severity: health::ERR, ..check })
}

fn osd_backfillfull(view: &View<'_>) -> Option<HealthCheck> {
    osds_as(view, Fullness::Backfill, ["backfillfull", "backfill full"])
}

fn osd_nearfull(view: &View<'_>) -> Option<HealthCheck> {
    osds_as(view, Fullness::Near, ["nearfull", "near full"])
}

/// A ratio below one that should be less counts as that one.
fn osd_out_of_order_full(view: &View<'_>) -> Option<HealthCheck> {
    let failsafe = match view.settings.float("osd_failsafe_full_ratio") as f32 {
        percent if percent > 1.0 => percent / 100.0,
        ratio => ratio,
    };
    let steps = [
        ("nearfull_ratio", view.map.nearfull_ratio),
        ("backfillfull_ratio", view.map.backfillfull_ratio),
        ("full_ratio", view.map.full_ratio),
        ("osd_failsafe_full_ratio", failsafe),
    ];
    let (mut least, mut detail) = (steps[0].1, Vec::new());
    for [(lower, _), (name, ratio)] in steps.array_windows() {
        if *ratio < least {
            let (ratio, least) = (float((*ratio).into(), 6), float(least.into(), 6));
            detail.push(format!("{name} ({ratio}) < {lower} ({least}), increased"));
        }
        least = least.max(*ratio);
    }
    (!detail.is_empty()).then_some(HealthCheck {
        severity: health::ERR,
        summary: "full ratio(s) out of order".into(),
        detail,
        count: 0,
    })
}

fn osd_flags(view: &View<'_>) -> Option<HealthCheck> {
    let bits = osd_state::NOUP | osd_state::NODOWN | osd_state::NOIN | osd_state::NOOUT;
    let mut detail: Vec<String> = view
        .map
        .existing_osds()
        .filter(|(_, o)| o.state & bits != 0)
        .map(|(id, o)| format!("osd.{id} has flags {}", osd_state::names(o.state & bits)))
        .collect();
    for (item, set) in &view.map.crush_node_flags {
        let name = view.map.crush.name(*item).unwrap_or_default();
        detail.push(format!("{name} has flags {}", osd_state::names(*set)));
    }
    let n = detail.len();
    let summary = || {
        format!(
            "{n} OSDs or CRUSH {{nodes, device-classes}} have {{NOUP,NODOWN,NOIN,NOOUT}} flags set"
        )
    };
    (n > 0).then(|| warn(summary(), n, detail))?
}

fn pool_app(view: &View<'_>) -> Option<HealthCheck> {
    if !view.settings.bool("mon_warn_on_pool_no_app") {
        return None;
    }
    let used = |id: i64| {
        let sum = i32::try_from(id).ok().and_then(|id| view.live.digest.pg_pool_sum.get(&id));
        sum.is_some_and(|s| s.stats.sum.num_objects > 0)
    };
    let mut check = pools_where(
        view,
        |n| format!("{n} pool(s) do not have an application enabled"),
        |id, name, pool| {
            let bare = pool.application_metadata.is_empty() && pool.tier_of < 0 && used(id);
            bare.then(|| format!("application not enabled on pool '{name}'"))
        },
    )?;
    check.detail.push(
        "use 'ceph osd pool application enable <pool-name> <app-name>', where <app-name> is \
         'cephfs', 'rbd', 'rgw', or freeform for custom applications."
            .into(),
    );
    Some(check)
}

fn pool_full(view: &View<'_>) -> Option<HealthCheck> {
    pools_where(
        view,
        |n| format!("{n} pool(s) full"),
        |_, name, pool| {
            let quota = if pool.has_flag(pool_flags::FULL_QUOTA) {
                " (running out of quota)"
            } else {
                " (no space)"
            };
            pool.has_flag(pool_flags::FULL).then(|| format!("pool '{name}' is full{quota}"))
        },
    )
}

fn pools_as(view: &View<'_>, flag: u64, word: &str) -> Option<HealthCheck> {
    pools_where(
        view,
        |n| format!("{n} pool(s) {word}"),
        |_, name, pool| pool.has_flag(flag).then(|| format!("pool '{name}' is {word}")),
    )
}

fn pool_backfillfull(view: &View<'_>) -> Option<HealthCheck> {
    pools_as(view, pool_flags::BACKFILLFULL, "backfillfull")
}

fn pool_nearfull(view: &View<'_>) -> Option<HealthCheck> {
    pools_as(view, pool_flags::NEARFULL, "nearfull")
}

fn pool_no_redundancy(view: &View<'_>) -> Option<HealthCheck> {
    if !view.settings.bool("mon_warn_on_pool_no_redundancy") {
        return None;
    }
    pools_where(
        view,
        |n| format!("{n} pool(s) have no replicas configured"),
        |_, name, pool| {
            (pool.size == 1).then(|| format!("pool '{name}' has no replicas configured"))
        },
    )
}

fn pool_pg_num(view: &View<'_>) -> Option<HealthCheck> {
    if !view.settings.bool("mon_warn_on_pool_pg_num_not_power_of_two") {
        return None;
    }
    pools_where(
        view,
        |n| format!("{n} pool(s) have non-power-of-two pg_num"),
        |_, name, pool| {
            let odd = !pool.pg_num_target.is_power_of_two();
            odd.then(|| {
                format!("pool '{name}' pg_num {} is not a power of two", pool.pg_num_target)
            })
        },
    )
}

fn pool_scrub_flags(view: &View<'_>) -> Option<HealthCheck> {
    let mut detail = Vec::new();
    let mut set = Vec::new();
    for (flag, word) in
        [(pool_flags::NOSCRUB, "noscrub"), (pool_flags::NODEEP_SCRUB, "nodeep-scrub")]
    {
        let with = view.map.pools.iter().filter(|(_, p)| p.has_flag(flag));
        let before = detail.len();
        detail.extend(with.map(|(id, _)| {
            format!("Pool {} has {word} flag", view.map.pool_name(*id).unwrap_or_default())
        }));
        if detail.len() > before {
            set.push(word);
        }
    }
    let summary = format!("Some pool(s) have the {} flag(s) set", set.join(", "));
    (!set.is_empty()).then_some(HealthCheck { severity: health::OK, summary, detail, count: 0 })
}

fn smaller_pgp_num(view: &View<'_>) -> Option<HealthCheck> {
    pools_where(
        view,
        |n| format!("{n} pools have pg_num > pgp_num"),
        |_, name, pool| {
            let (pg, pgp) = (pool.pg_num, pool.pgp_num);
            (pg > pgp).then(|| format!("pool {name} pg_num {pg} > pgp_num {pgp}"))
        },
    )
}

fn too_few_osds(view: &View<'_>) -> Option<HealthCheck> {
    let wanted = view.settings.int("osd_pool_default_size");
    let there = view.map.existing_osds().count() as i64;
    let warns = view.settings.bool("mon_warn_on_too_few_osds") && there < wanted;
    warns.then(|| warn(format!("OSD count {there} < osd_pool_default_size {wanted}"), 0, vec![]))?
}

fn too_many_pgs(view: &View<'_>) -> Option<HealthCheck> {
    let max = view.settings.int("mon_max_pg_per_osd");
    let in_osds = view.map.existing_osds().filter(|(_, o)| o.is_in()).count() as i64;
    let copies: i64 =
        view.map.pools.values().map(|p| i64::from(p.pg_num) * i64::from(p.size)).sum();
    let per_osd = copies / in_osds.max(1);
    let warns = max > 0 && in_osds > 0 && per_osd > max;
    warns.then(|| warn(format!("too many PGs per OSD ({per_osd} > max {max})"), 0, vec![]))?
}
