//! PGs stay where they are served until their new primary has something to serve.

use std::collections::BTreeMap;

use spirula_maps::OsdMap;
use spirula_wire::msg::osd::OsdPgCreated;
use spirula_wire::types::PgId;

use crate::harness::Mon;

const PGS: u32 = 16;

/// Three OSDs that are up, their sessions, the administrator's, and pool 2 of two copies.
fn cluster() -> (Mon, Vec<u64>, u64) {
    let mut mon = Mon::new(3);
    let osds: Vec<u64> = (0..3).map(|n| mon.boot(n)).collect();
    let admin = mon.admin();
    let create = r#"{"prefix":"osd pool create","pool":"u","pg_num":16,"size":2"#;
    mon.ok(admin, &format!("{create}}}"));
    for seed in 0..PGS {
        let pg = PgId::new(2, seed);
        let primary = mon.map().pg_to_up_acting(pg).acting_primary;
        mon.send(osds[primary as usize], &OsdPgCreated { pgid: pg, ..OsdPgCreated::default() });
    }
    (mon, osds, admin)
}

fn acting(map: &OsdMap) -> BTreeMap<PgId, Vec<i32>> {
    let pgs = (0..PGS).map(|seed| PgId::new(2, seed));
    pgs.map(|pg| (pg, map.pg_to_up_acting(pg).acting)).collect()
}

/// PGs of pool 2 whose primary by CRUSH now did not act `before`.
fn with_strangers(map: &OsdMap, before: &BTreeMap<PgId, Vec<i32>>) -> Vec<PgId> {
    let is_new = |pg: &PgId| !before[pg].contains(&map.pg_to_up_acting(*pg).up_primary);
    before.keys().copied().filter(is_new).collect()
}

#[test]
fn a_new_primary_does_not_act_at_once() {
    let (mut mon, _, admin) = cluster();
    mon.ok(admin, r#"{"prefix":"osd out","ids":["0"]}"#);
    let before = acting(mon.map());
    mon.ok(admin, r#"{"prefix":"osd in","ids":["0"]}"#);
    let strangers = with_strangers(mon.map(), &before);
    assert!(!strangers.is_empty(), "the case is not tested");
    let temps: BTreeMap<PgId, Vec<i32>> =
        strangers.iter().map(|pg| (*pg, before[pg].clone())).collect();
    let of_pool = mon.map().pg_temp.clone().into_iter().filter(|(pg, _)| pg.pool == 2);
    assert_eq!(of_pool.collect::<BTreeMap<_, _>>(), temps);
    // CRUSH says again what they are: nothing is left of it.
    mon.ok(admin, r#"{"prefix":"osd out","ids":["0"]}"#);
    assert_eq!((acting(mon.map()), mon.map().pg_temp.len()), (before, 0));
}

#[test]
fn who_is_down_or_just_up_again_is_no_reason() {
    let (mut mon, _, admin) = cluster();
    mon.ok(admin, r#"{"prefix":"osd down","ids":["0"]}"#);
    assert!(mon.map().pg_temp.is_empty());
    mon.boot(0);
    assert!(mon.map().is_up(0) && mon.map().pg_temp.is_empty(), "its log will tell");
}

#[test]
fn what_could_not_serve_does_not_stay() {
    let (mut mon, _, admin) = cluster();
    mon.ok(admin, r#"{"prefix":"osd pool set","pool":"u","var":"min_size","val":"2"}"#);
    mon.ok(admin, r#"{"prefix":"osd out","ids":["0"]}"#);
    mon.ok(admin, r#"{"prefix":"osd down","ids":["1"]}"#);
    mon.ok(admin, r#"{"prefix":"osd in","ids":["0"]}"#);
    assert!(!mon.map().pg_temp.keys().any(|pg| pg.pool == 2));
}

#[test]
fn options_turn_it_off_and_bound_it() {
    for (name, value) in
        [("mon_osd_prime_pg_temp", "false"), ("mon_osd_prime_pg_temp_max_time", "0")]
    {
        let (mut mon, _, admin) = cluster();
        let who = r#""who":"mon""#;
        let set = format!(r#"{{"prefix":"config set",{who},"name":"{name}","value":"{value}"}}"#);
        mon.ok(admin, &set);
        mon.ok(admin, r#"{"prefix":"osd out","ids":["0"]}"#);
        mon.ok(admin, r#"{"prefix":"osd in","ids":["0"]}"#);
        assert!(mon.map().pg_temp.is_empty(), "{name}");
    }
}
