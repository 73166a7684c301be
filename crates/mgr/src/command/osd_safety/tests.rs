//! Results and texts as of a manager of 16.2.15 with three OSDs, of which osd.2 is down and forgotten.

use serde_json::{Value, json};
use spirula_maps::{PgPool, osd_state};
use spirula_wire::types::{OsdStat, PgShard, ShardId};

use super::*;
use crate::command::{Answered, ask_with};

/// Pool 25 of four PGs on osd.0 and osd.1, of which three are degraded.
fn cluster(min_size: u8) -> (PgMap, OsdMap) {
    let (mut pgmap, mut map) = (PgMap::default(), OsdMap::default());
    map.pools.insert(25, PgPool::replicated(3, min_size, 4, 0));
    map.set_max_osd(3);
    map.osds.iter_mut().for_each(|osd| osd.state = osd_state::EXISTS);
    for seed in 0..4 {
        let (up, acting) = (vec![1, 0], vec![1, 0]);
        let at = |osd| PgShard { osd, shard: ShardId::NONE };
        let avail_no_missing = vec![at(1), at(0)];
        let mut pg = PgStat { up, acting, avail_no_missing, ..PgStat::default() };
        let degraded = if seed > 0 { pg_state::DEGRADED } else { 0 };
        pg.set_state(pg_state::ACTIVE | pg_state::UNDERSIZED | degraded);
        pgmap.pgs.insert(PgId::new(25, seed), pg);
    }
    pgmap.osds.insert(0, OsdStat { num_pgs: 4, ..OsdStat::default() });
    (pgmap, map)
}

fn ask(args: &Value, min_size: u8) -> Answered {
    let (pgmap, map) = cluster(min_size);
    ask_with(args, &pgmap, &map, &BTreeSet::new())
}

fn text(args: Value, min_size: u8) -> (i32, String, String) {
    let reply = ask(&args, min_size).reply;
    (reply.r, reply.rs, String::from_utf8_lossy(&reply.outbl).into_owned())
}

#[test]
fn what_pgs_need_is_not_safe_to_destroy() {
    let silent = "OSD(s) 2 have no reported stats, and not all PGs are active+clean; we cannot draw any conclusions. ";
    for (ids, code, said) in [
        (json!(["0"]), -16, "OSD(s) 0 have 4 pgs currently mapped to them. "),
        (json!(["0", "1"]), -16, "OSD(s) 0,1 have 8 pgs currently mapped to them. "),
        (json!(["2"]), -11, silent),
        (json!(["7"]), 0, "OSD(s) 7 are safe to destroy without reducing data durability."),
        (json!(["x"]), -22, "Expected option value to be integer, got 'x'invalid osd id 'x'"),
        (json!([]), -22, "must specify one or more OSDs"),
    ] {
        let got = text(json!({ "prefix": "osd safe-to-destroy", "ids": ids }), 2);
        assert_eq!(got, (code, said.to_owned(), String::new()));
    }
    let args = json!({ "prefix": "osd safe-to-destroy", "ids": ["0"], "format": "json" });
    let want = r#"{"safe_to_destroy":[],"active":[0],"missing_stats":[],"stored_pgs":[]}"#;
    assert_eq!(text(args, 2), (0, String::new(), want.to_owned()));
}

#[test]
fn what_leaves_enough_copies_may_stop() {
    let stop = |ids: Value, min_size| {
        text(json!({ "prefix": "osd ok-to-stop", "ids": ids, "format": "json" }), min_size)
    };
    let offline = "unsafe to stop osd(s) at this time (4 PGs are or would become offline)";
    let report = |osds: &str| {
        format!(
            "{{\"ok_to_stop\":false,\"osds\":[{osds}],\"num_ok_pgs\":0,\"num_not_ok_pgs\":4,\"bad_become_inactive\":[\"25.0\",\"25.1\",\"25.2\",\"25.3\"]}}\n"
        )
    };
    assert_eq!(stop(json!(["0"]), 2), (-16, offline.to_owned(), report("0")));
    assert_eq!(stop(json!(["0", "1"]), 2), (-16, offline.to_owned(), report("0,1")));
    let fine = "{\"ok_to_stop\":true,\"osds\":[2],\"num_ok_pgs\":0,\"num_not_ok_pgs\":0}\n";
    assert_eq!(stop(json!(["2"]), 2), (0, String::new(), fine.to_owned()));
    let (code, _, out) = stop(json!(["0"]), 1);
    let want = "{\"ok_to_stop\":true,\"osds\":[0],\"num_ok_pgs\":4,\"num_not_ok_pgs\":0,\"ok_become_degraded\":[\"25.0\"],\"ok_become_more_degraded\":[\"25.1\",\"25.2\",\"25.3\"]}\n";
    assert_eq!((code, out.as_str()), (0, want));
}

#[test]
fn an_osd_is_destroyed_by_the_monitor_once_that_is_safe() {
    let hint = "\nYou can proceed by passing --force, but be warned that this will likely mean real, permanent data loss.";
    let refused = ask(&json!({ "prefix": "osd destroy", "id": 0 }), 2);
    let why = format!("OSD(s) 0 have 4 pgs currently mapped to them. {hint}");
    assert_eq!((refused.reply.r, refused.reply.rs, refused.to_mon), (-16, why, None));
    let passed = |args: Value| ask(&args, 2).to_mon;
    let command = |prefix: &str, osd: i32| {
        Some(format!(r#"{{"prefix":"{prefix}-actual","id":{osd},"yes_i_really_mean_it":true}}"#))
    };
    let sure = json!({ "prefix": "osd destroy", "id": 0, "yes_i_really_mean_it": true });
    assert_eq!(passed(sure), command("osd destroy", 0));
    assert_eq!(
        passed(json!({ "prefix": "osd purge", "id": 2, "force": true })),
        command("osd purge", 2)
    );
    assert_eq!(passed(json!({ "prefix": "osd purge", "id": "osd.9" })), command("osd purge", 9));
}
