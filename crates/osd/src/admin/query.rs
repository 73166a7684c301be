//! `pg PGID query`: all that Ceph says of a PG, in its order.

use std::rc::Rc;

use serde_json::{Map, Value, json};
use spirula_pg::{Peering, State};
use spirula_wire::types::{
    EVersion, ObjectStatSum, PgHistory, PgId, PgInfo, PgStat, SnapId, pg_state,
};

use super::dump::stamp;
use super::peering::recovery_state;
use super::{Args, Failure, text_arg, unfound};
use crate::errno::*;
use crate::pg::Pg;
use crate::stats::{clocks, pg_stat, snaptrimq_len};
use crate::target::Target;

/// `pg PGID ...`: what is asked of the PG is an argument.
pub(super) fn pg_command(target: &Target, args: &Args) -> Result<Value, Failure> {
    match text_arg(args, "cmd").as_str() {
        "list_unfound" => unfound::list(target, args),
        "mark_unfound_lost" => unfound::mark(target, args),
        "query" => pg_query(target, args),
        other => Err(Failure(ENOSYS, format!("prefix '{other}' not implemented"))),
    }
}

/// The PG that a command is about, which this OSD leads.
pub(super) fn pg_of(target: &Target, args: &Args) -> Result<Rc<Pg>, Failure> {
    let text = text_arg(args, "pgid");
    if text.is_empty() {
        return Err(Failure(EINVAL, "no pgid specified".into()));
    }
    let pgid: PgId = text.parse().map_err(|_| Failure(EINVAL, format!("invalid pgid '{text}'")))?;
    target.pgs().get(pgid).ok_or_else(|| Failure(ENOENT, format!("i don't have pgid {pgid}")))
}

pub(super) fn pg_query(target: &Target, args: &Args) -> Result<Value, Failure> {
    let pg = pg_of(target, args)?;
    let pgid = pg.pgid.pgid;
    let scrub = target.store().scrub_status();
    let stat = pg_stat(&pg, &scrub, target.epoch(), target.mgr().reported(), clocks());
    let mut own = own_info(&pg, &stat);
    own.history.last_epoch_marked_full = target.fullness().marked_full(pgid.pool);
    let machine = pg.shard.machine.borrow();
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.into(), value);
    put("snap_trimq", json!(snap_trimq(&pg)));
    put("snap_trimq_len", json!(snaptrimq_len(&pg)));
    put("state", json!(pg_state::name(stat.state())));
    put("epoch", json!(target.epoch()));
    put("up", json!(stat.up));
    put("acting", json!(stat.acting));
    let targets: Vec<String> = machine.backfill_targets().iter().map(i32::to_string).collect();
    if !targets.is_empty() {
        put("backfill_targets", json!(targets));
    }
    let everyone = everyone(&machine);
    if !everyone.is_empty() {
        put("acting_recovery_backfill", json!(everyone));
    }
    put("info", info(&own));
    let peer = |(osd, peer): (i32, &PgInfo)| {
        let mut out = Map::new();
        out.insert("peer".into(), json!(osd.to_string()));
        if let Value::Object(rest) = info(peer) {
            out.extend(rest);
        }
        Value::Object(out)
    };
    put("peer_info", machine.peer_infos().map(peer).collect());
    put("recovery_state", recovery_state(&machine, pg.shard.times()));
    if stat.state() & pg_state::ACTIVE != 0 {
        let active = pg.shard.scrub.state_bits() != 0;
        put("scrubber", json!({ "epoch_start": "0", "active": active }));
    }
    put("agent_state", json!({}));
    Ok(Value::Object(out))
}

/// Who gets every write, once that is decided.
fn everyone(machine: &Peering) -> Vec<String> {
    use State::{Activating, Active, Clean, GetMissing, WaitUpThru};
    if !matches!(machine.state(), GetMissing | WaitUpThru | Activating | Active | Clean) {
        return Vec::new();
    }
    let mut all = machine.members().clone();
    all.insert(machine.mapping().acting_primary);
    all.iter().map(i32::to_string).collect()
}

/// This copy's, with what statistics say now.
fn own_info(pg: &Pg, stat: &PgStat) -> PgInfo {
    let mut own = pg.shard.machine.borrow().info().clone();
    let history = &mut own.history;
    history.last_scrub = stat.last_scrub;
    history.last_scrub_stamp = stat.last_scrub_stamp;
    history.last_deep_scrub = stat.last_deep_scrub;
    history.last_deep_scrub_stamp = stat.last_deep_scrub_stamp;
    history.last_clean_scrub_stamp = stat.last_clean_scrub_stamp;
    own.purged_snaps.clone_from(&stat.purged_snaps);
    own.stats = stat.clone();
    own
}

fn info(info: &PgInfo) -> Value {
    let none = EVersion::default().to_string();
    json!({
        "pgid": info.pgid.pgid.to_string(),
        "last_update": info.last_update.to_string(),
        "last_complete": info.last_complete.to_string(),
        "log_tail": info.log_tail.to_string(),
        "last_user_version": info.last_user_version,
        "last_backfill": info.last_backfill.to_string(),
        "purged_snaps": purged_snaps(&info.purged_snaps),
        "history": history(&info.history),
        "stats": stats(&info.stats),
        "empty": i32::from(info.is_empty()),
        "dne": i32::from(info.does_not_exist()),
        "incomplete": i32::from(info.is_incomplete()),
        "last_epoch_started": info.last_epoch_started,
        "hit_set_history": { "current_last_update": none, "history": [] },
    })
}

fn history(h: &PgHistory) -> Value {
    let left = h.prior_readable_until_ub;
    json!({
        "epoch_created": h.epoch_created,
        "epoch_pool_created": h.epoch_pool_created,
        "last_epoch_started": h.last_epoch_started,
        "last_interval_started": h.last_interval_started,
        "last_epoch_clean": h.last_epoch_clean,
        "last_interval_clean": h.last_interval_clean,
        "last_epoch_split": h.last_epoch_split,
        "last_epoch_marked_full": h.last_epoch_marked_full,
        "same_up_since": h.same_up_since,
        "same_interval_since": h.same_interval_since,
        "same_primary_since": h.same_primary_since,
        "last_scrub": h.last_scrub.to_string(),
        "last_scrub_stamp": stamp(h.last_scrub_stamp),
        "last_deep_scrub": h.last_deep_scrub.to_string(),
        "last_deep_scrub_stamp": stamp(h.last_deep_scrub_stamp),
        "last_clean_scrub_stamp": stamp(h.last_clean_scrub_stamp),
        "prior_readable_until_ub": match f64::from(left.sec) + f64::from(left.nsec) / 1e9 {
            0.0 => json!(0),
            seconds => json!(seconds),
        },
    })
}

fn stats(s: &PgStat) -> Value {
    json!({
        "version": s.version.to_string(),
        "reported_seq": s.reported_seq,
        "reported_epoch": s.reported_epoch,
        "state": pg_state::name(s.state()),
        "last_fresh": stamp(s.last_fresh),
        "last_change": stamp(s.last_change),
        "last_active": stamp(s.last_active),
        "last_peered": stamp(s.last_peered),
        "last_clean": stamp(s.last_clean),
        "last_became_active": stamp(s.last_became_active),
        "last_became_peered": stamp(s.last_became_peered),
        "last_unstale": stamp(s.last_unstale),
        "last_undegraded": stamp(s.last_undegraded),
        "last_fullsized": stamp(s.last_fullsized),
        "mapping_epoch": s.mapping_epoch,
        "log_start": s.log_start.to_string(),
        "ondisk_log_start": s.ondisk_log_start.to_string(),
        "created": s.created,
        "last_epoch_clean": s.last_epoch_clean,
        "parent": s.parent.to_string(),
        "parent_split_bits": s.parent_split_bits,
        "last_scrub": s.last_scrub.to_string(),
        "last_scrub_stamp": stamp(s.last_scrub_stamp),
        "last_deep_scrub": s.last_deep_scrub.to_string(),
        "last_deep_scrub_stamp": stamp(s.last_deep_scrub_stamp),
        "last_clean_scrub_stamp": stamp(s.last_clean_scrub_stamp),
        "log_size": s.log_size,
        "ondisk_log_size": s.ondisk_log_size,
        "stats_invalid": s.stats_invalid,
        "dirty_stats_invalid": s.dirty_stats_invalid,
        "omap_stats_invalid": s.omap_stats_invalid,
        "hitset_stats_invalid": s.hitset_stats_invalid,
        "hitset_bytes_stats_invalid": s.hitset_bytes_stats_invalid,
        "pin_stats_invalid": s.pin_stats_invalid,
        "manifest_stats_invalid": s.manifest_stats_invalid,
        "snaptrimq_len": s.snaptrimq_len,
        "stat_sum": stat_sum(&s.stats.sum),
        "up": s.up,
        "acting": s.acting,
        "avail_no_missing": [],
        "object_location_counts": [],
        "blocked_by": s.blocked_by,
        "up_primary": s.up_primary,
        "acting_primary": s.acting_primary,
        "purged_snaps": purged_snaps(&s.purged_snaps),
    })
}

/// As `[start~length,..]`, hexadecimal.
fn snap_trimq(pg: &Pg) -> String {
    let due = pg.snap_trimq.borrow();
    let due: Vec<_> = due.iter().map(|(start, len)| format!("{start:x}~{len:x}")).collect();
    format!("[{}]", due.join(","))
}

fn purged_snaps(purged: &[(SnapId, u64)]) -> Vec<Value> {
    let interval = |(start, len): &(SnapId, u64)| json!({ "start": format!("{:x}", start.0), "length": format!("{len:x}") });
    purged.iter().map(interval).collect()
}

fn stat_sum(s: &ObjectStatSum) -> Value {
    json!({
        "num_bytes": s.num_bytes,
        "num_objects": s.num_objects,
        "num_object_clones": s.num_object_clones,
        "num_object_copies": s.num_object_copies,
        "num_objects_missing_on_primary": s.num_objects_missing_on_primary,
        "num_objects_missing": s.num_objects_missing,
        "num_objects_degraded": s.num_objects_degraded,
        "num_objects_misplaced": s.num_objects_misplaced,
        "num_objects_unfound": s.num_objects_unfound,
        "num_objects_dirty": s.num_objects_dirty,
        "num_whiteouts": s.num_whiteouts,
        "num_read": s.num_rd,
        "num_read_kb": s.num_rd_kb,
        "num_write": s.num_wr,
        "num_write_kb": s.num_wr_kb,
        "num_scrub_errors": s.num_scrub_errors,
        "num_shallow_scrub_errors": s.num_shallow_scrub_errors,
        "num_deep_scrub_errors": s.num_deep_scrub_errors,
        "num_objects_recovered": s.num_objects_recovered,
        "num_bytes_recovered": s.num_bytes_recovered,
        "num_keys_recovered": s.num_keys_recovered,
        "num_objects_omap": s.num_objects_omap,
        "num_objects_hit_set_archive": s.num_objects_hit_set_archive,
        "num_bytes_hit_set_archive": s.num_bytes_hit_set_archive,
        "num_flush": s.num_flush,
        "num_flush_kb": s.num_flush_kb,
        "num_evict": s.num_evict,
        "num_evict_kb": s.num_evict_kb,
        "num_promote": s.num_promote,
        "num_flush_mode_high": s.num_flush_mode_high,
        "num_flush_mode_low": s.num_flush_mode_low,
        "num_evict_mode_some": s.num_evict_mode_some,
        "num_evict_mode_full": s.num_evict_mode_full,
        "num_objects_pinned": s.num_objects_pinned,
        "num_legacy_snapsets": s.num_legacy_snapsets,
        "num_large_omap_objects": s.num_large_omap_objects,
        "num_objects_manifest": s.num_objects_manifest,
        "num_omap_bytes": s.num_omap_bytes,
        "num_omap_keys": s.num_omap_keys,
        "num_objects_repaired": s.num_objects_repaired,
    })
}

#[cfg(test)]
mod tests {
    use spirula_maps::OsdMap;
    use spirula_wire::types::SpgId;

    use super::*;
    use crate::admin::peering::states;
    use crate::pg::{Mapping, Pg};
    use crate::shard::Shard;

    /// Every member of a value, as paths.
    fn members(value: &Value, at: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    out.push(format!("{at}.{key}"));
                    members(value, &format!("{at}.{key}"), out);
                }
            }
            Value::Array(list) => {
                list.iter().for_each(|value| members(value, &format!("{at}[]"), out));
            }
            _ => {}
        }
    }

    /// `query.json` is an answer of 16.2.15 about a PG with one object.
    #[test]
    fn it_has_every_member_of_ceph_s_in_the_same_order() {
        let measured: Value = serde_json::from_str(include_str!("query.json")).unwrap();
        let pgid: PgId = "2.3".parse().unwrap();
        let pg = Pg::new(Shard::bare(SpgId::whole(pgid), OsdMap::default()));
        let mapping = Mapping { up: vec![0], acting: vec![0], created: 9, ..Mapping::default() };
        pg.remap(mapping, 9, std::time::Duration::from_secs(1));
        pg.active.set(true);
        let stat = pg_stat(&pg, &Default::default(), 11, 10, Default::default());
        let mut stat = stat;
        stat.set_state(pg_state::ACTIVE | pg_state::CLEAN);
        let check = |got: Value, at: &str| {
            let (mut want, mut found) = (Vec::new(), Vec::new());
            members(&measured[at], at, &mut want);
            members(&got, at, &mut found);
            assert_eq!(found, want);
        };
        let own = own_info(&pg, &stat);
        check(info(&own), "info");
        let machine = pg.shard.machine.borrow();
        check(states(&machine, State::Clean, pg.shard.times()), "recovery_state");
        drop(machine);
        // What no scrub, split or recovery has touched has Ceph's values as well.
        let (got, want) = (info(&own), &measured["info"]);
        for key in ["history", "stats"] {
            for (name, value) in want[key].as_object().unwrap() {
                let is_zero = matches!(value, Value::Bool(false)) || *value == json!("0'0");
                assert!(!is_zero || got[key][name] == *value, "{key}.{name}");
            }
        }
    }
}
