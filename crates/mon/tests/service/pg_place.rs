//! Places of single PGs: temporary acting sets that primaries ask for, commands as a monitor of 16.2.15
//! answered them.

use spirula_maps::OsdMap;
use spirula_wire::msg::osd::{OsdAlive, OsdPgCreated, OsdPgTemp};
use spirula_wire::msg::types;
use spirula_wire::types::PgId;

use crate::harness::{FSID, Mon};
use crate::pools::answers_as;

/// Three OSDs that are up, their sessions, the administrator's, and pool 2 of two copies.
fn cluster() -> (Mon, Vec<u64>, u64) {
    let mut mon = Mon::new(3);
    let osds = (0..3).map(|n| mon.boot(n)).collect();
    let admin = mon.admin();
    mon.ok(admin, r#"{"prefix":"osd pool create","pool":"u","pg_num":4,"size":2}"#);
    (mon, osds, admin)
}

fn wish(map: &OsdMap, pg: PgId, osds: &[i32]) -> OsdPgTemp {
    let pg_temp = [(pg, osds.to_vec())].into();
    OsdPgTemp { map_epoch: map.epoch, pg_temp, ..OsdPgTemp::default() }
}

#[test]
fn commands_answer_as_in_ceph() {
    let (mut mon, _, admin) = cluster();
    answers_as(&mut mon, admin, include_str!("pg_place.tsv"));
}

#[test]
fn only_the_primary_gets_another_acting_set() {
    let (mut mon, osds, _) = cluster();
    let pg = PgId::new(2, 0);
    let at = mon.map().pg_to_up_acting(pg);
    let (primary, other) = (at.acting_primary as usize, at.acting[1] as usize);
    let third = (0..3).find(|osd| !at.up.contains(osd)).unwrap();
    let wanted = vec![third, at.acting[1]];
    let epoch = mon.map().epoch;
    mon.send(osds[other], &wish(mon.map(), pg, &wanted));
    assert_eq!(mon.map().epoch, epoch, "not the primary");
    let gone = wish(mon.map(), PgId::new(9, 0), &wanted);
    mon.send(osds[primary], &gone);
    assert_eq!(mon.map().epoch, epoch, "no such pool");
    let former =
        mon.session_at(&format!("osd.{primary}"), "allow profile osd", "v2:127.0.0.1:7999/8");
    mon.send(former, &wish(mon.map(), pg, &wanted));
    assert_eq!(mon.map().epoch, epoch, "another process of that name");
    mon.send(osds[primary], &wish(mon.map(), pg, &wanted));
    assert_eq!(mon.map().pg_temp.get(&pg), Some(&wanted));
    assert_eq!(mon.map().osd(at.acting_primary).unwrap().info.up_thru, epoch);
    // Now the third one leads, and alone may end it.
    mon.send(osds[primary], &wish(mon.map(), pg, &[]));
    assert!(mon.map().pg_temp.contains_key(&pg));
    mon.send(osds[third as usize], &wish(mon.map(), pg, &[]));
    assert!(mon.map().pg_temp.is_empty());
}

#[test]
fn a_forced_wish_needs_no_primary() {
    let (mut mon, osds, _) = cluster();
    let pg = PgId::new(2, 0);
    let at = mon.map().pg_to_up_acting(pg);
    let third = (0..3).find(|osd| !at.up.contains(osd)).unwrap();
    let forced = OsdPgTemp { forced: true, ..wish(mon.map(), pg, &[third]) };
    mon.send(osds[third as usize], &forced);
    assert_eq!(mon.map().pg_temp.get(&pg), Some(&vec![third]));
}

#[test]
fn what_means_nothing_leaves_the_map() {
    let (mut mon, osds, admin) = cluster();
    let pg = PgId::new(2, 0);
    let at = mon.map().pg_to_up_acting(pg);
    let primary = at.acting_primary as usize;
    let third = (0..3).find(|osd| !at.up.contains(osd)).unwrap();
    mon.send(osds[primary], &wish(mon.map(), pg, &at.up));
    assert!(mon.map().pg_temp.is_empty(), "CRUSH says the same");
    mon.send(osds[primary], &wish(mon.map(), pg, &[third]));
    let temp = |mon: &Mon| (mon.map().pg_temp.len(), mon.map().primary_temp.len());
    assert_eq!(temp(&mon), (1, 0));
    mon.ok(admin, &format!(r#"{{"prefix":"osd down","ids":["{third}"]}}"#));
    assert_eq!(temp(&mon), (0, 0), "all of it are down");
    let other = at.acting[1];
    mon.ok(admin, &format!(r#"{{"prefix":"osd primary-temp","pgid":"2.0","id":{other}}}"#));
    assert_eq!(mon.map().pg_to_up_acting(pg).acting_primary, other);
    mon.send(osds[other as usize], &wish(mon.map(), pg, &[other]));
    assert_eq!(temp(&mon), (1, 0), "a wish replaces a primary");
    mon.ok(admin, r#"{"prefix":"osd pg-upmap-items","pgid":"2.1","id":[0,1]}"#);
    let name = r#""pool":"u","pool2":"u","yes_i_really_really_mean_it":true"#;
    mon.ok(admin, &format!(r#"{{"prefix":"osd pool delete",{name}}}"#));
    assert_eq!((temp(&mon), mon.map().pg_upmap_items.len()), ((0, 0), 0));
}

#[test]
fn a_pg_peers_anew_on_demand() {
    let (mut mon, _, admin) = cluster();
    let at = mon.map().pg_to_up_acting(PgId::new(2, 0));
    mon.ok(admin, r#"{"prefix":"pg repeer","pgid":"2.0"}"#);
    assert_eq!(mon.map().pg_temp.get(&PgId::new(2, 0)), Some(&vec![at.acting_primary]));
    let one = PgId::new(1, 0);
    let at = mon.map().pg_to_up_acting(one);
    mon.ok(admin, r#"{"prefix":"pg repeer","pgid":"1.0"}"#);
    assert_ne!(mon.map().pg_to_up_acting(one).acting_primary, at.acting_primary);
}

#[test]
fn up_thru_is_for_who_is_up() {
    let (mut mon, _, _) = cluster();
    let former = mon.session_at("osd.0", "allow profile osd", "v2:127.0.0.1:7999/8");
    let mut alive = OsdAlive { want: 3, ..OsdAlive::default() };
    alive.paxos.version = 3;
    let epoch = mon.map().epoch;
    mon.send(former, &alive);
    assert_eq!((mon.map().epoch, mon.map().fsid), (epoch, FSID));
}

#[test]
fn a_pg_whose_data_is_lost_is_made_by_its_primary() {
    let (mut mon, osds, admin) = cluster();
    let pg = PgId::new(1, 3);
    let primary = mon.map().pg_to_up_acting(pg).acting_primary;
    let force = r#"{"prefix":"osd force-create-pg","pgid":"1.3","yes_i_really_mean_it":true}"#;
    assert_eq!(mon.ok(admin, force), "pg 1.3 now creating, ok");
    let told = |mon: &mut Mon| {
        osds.iter().for_each(|id| drop(mon.take(*id)));
        mon.pass(6);
        let told =
            |id: &u64| mon.take(*id).iter().any(|raw| raw.header.type_ == types::OSD_PG_CREATE2);
        osds.iter().map(told).collect::<Vec<bool>>()
    };
    let only = (0..3).map(|osd| osd == primary).collect::<Vec<bool>>();
    assert_eq!(told(&mut mon), only);
    assert_eq!(told(&mut mon), only, "again, until it is there");
    // A restart forgets nothing.
    assert_eq!(mon.service.state().creating.len(), 1);
    mon.send(osds[primary as usize], &OsdPgCreated { pgid: pg, ..OsdPgCreated::default() });
    assert_eq!(told(&mut mon), [false; 3]);
    assert!(mon.service.state().creating.is_empty());
}
