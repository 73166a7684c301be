//! OSDs that are given up, destroyed, removed or marked: answers as a monitor of 16.2.15 gave them.

use spirula_maps::osd_state;
use spirula_wire::types::Uuid;

use crate::harness::Mon;
use crate::pools::answers_as;

fn cluster() -> (Mon, u64) {
    let mut mon = Mon::new(3);
    (0..3).for_each(|osd| _ = mon.boot(osd));
    let admin = mon.admin();
    (mon, admin)
}

#[test]
fn commands_answer_as_in_ceph() {
    let (mut mon, admin) = cluster();
    answers_as(&mut mon, admin, include_str!("osd_remove.tsv"));
}

#[test]
fn a_lost_osd_is_lost_as_of_when_it_went_down() {
    let (mut mon, admin) = cluster();
    mon.ok(admin, r#"{"prefix":"osd down","ids":["2"]}"#);
    let down_at = mon.map().osd(2).unwrap().info.down_at;
    let lost = r#"{"prefix":"osd lost","id":2,"yes_i_really_mean_it":true}"#;
    assert_eq!(mon.ok(admin, lost), format!("marked osd lost in epoch {down_at}"));
    assert_eq!(mon.map().osd(2).unwrap().info.lost_at, down_at);
}

#[test]
fn a_destroyed_osd_leaves_its_id_to_another() {
    let (mut mon, admin) = cluster();
    mon.ok(admin, r#"{"prefix":"osd down","ids":["2"]}"#);
    let destroy = r#"{"prefix":"osd destroy-actual","id":2,"yes_i_really_mean_it":true}"#;
    assert_eq!(mon.ok(admin, destroy), "destroyed osd.2");
    assert_eq!(mon.ok(admin, destroy), "destroyed osd.2");
    let osd = mon.map().osd(2).unwrap().clone();
    assert!(osd.is_destroyed() && osd.exists() && osd.uuid == Uuid::default());
    assert_eq!(mon.command(admin, r#"{"prefix":"auth get","entity":"osd.2"}"#).0, -2);
    assert!(mon.ok(admin, r#"{"prefix":"osd tree"}"#).contains("destroyed"));
    let new = r#"{"prefix":"osd new","uuid":"5a4cbd85-c9b2-4bd7-8d0f-1b4f1d7e3c11","id":"2"}"#;
    assert_eq!(mon.ok(admin, new), "2\n");
    let osd = mon.map().osd(2).unwrap();
    assert_eq!(osd.state & (osd_state::DESTROYED | osd_state::NEW), osd_state::NEW);
    assert_eq!(mon.ok(admin, r#"{"prefix":"osd rm","ids":["2"]}"#), "removed osd.2");
    assert!(!mon.map().exists(2));
}

#[test]
fn flags_are_for_osds_buckets_and_classes() {
    let (mut mon, admin) = cluster();
    let set = |on: bool, who: &str| {
        let prefix = if on { "osd set-group" } else { "osd unset-group" };
        format!(r#"{{"prefix":"{prefix}","flags":"noout,noup","who":["{who}"]}}"#)
    };
    let bits = osd_state::NOOUT | osd_state::NOUP;
    for who in ["host1", "ssd", "osd.1"] {
        mon.ok(admin, &set(true, who));
    }
    let map = mon.map();
    assert_eq!(map.osd(1).unwrap().state & bits, bits);
    assert!(map.crush_node_flags.values().eq([&bits]));
    assert!(map.device_class_flags.values().eq([&bits]));
    let epoch = map.epoch;
    mon.ok(admin, &set(true, "ssd"));
    assert_eq!(mon.map().epoch, epoch, "nothing to change");
    for who in ["host1", "ssd", "osd.1"] {
        mon.ok(admin, &set(false, who));
    }
    assert!(mon.map().crush_node_flags.is_empty() && mon.map().device_class_flags.is_empty());
    let odd = mon.command(admin, &set(true, "nowhere"));
    let said = "unable to parse osd id or crush node or device class: \"nowhere\". ";
    assert_eq!((odd.0, odd.1.as_str()), (-22, said));
    mon.ok(admin, r#"{"prefix":"osd add-nodown","ids":["0"]}"#);
    assert!(mon.map().osd(0).unwrap().state & osd_state::NODOWN != 0);
    mon.ok(admin, r#"{"prefix":"osd rm-nodown","ids":["all"]}"#);
    assert!(mon.map().osd(0).unwrap().state & osd_state::NODOWN == 0);
}

#[test]
fn commands_about_the_life_of_osds_answer_as_in_ceph() {
    let (mut mon, admin) = cluster();
    answers_as(&mut mon, admin, include_str!("osd_life.tsv"));
}

#[test]
fn a_stopped_osd_may_boot_again() {
    let (mut mon, admin) = cluster();
    mon.ok(admin, r#"{"prefix":"osd stop","ids":["1"]}"#);
    let state = |mon: &Mon| mon.map().osd(1).unwrap().state & (osd_state::STOP | osd_state::UP);
    assert_eq!(state(&mon), osd_state::STOP | osd_state::UP, "it goes down by itself");
    mon.ok(admin, r#"{"prefix":"osd down","ids":["1"]}"#);
    mon.boot(1);
    assert_eq!(state(&mon), osd_state::UP);
}

#[test]
fn who_is_definitely_dead_is_so_as_of_now() {
    let (mut mon, admin) = cluster();
    let down = r#"{"prefix":"osd down","ids":["1"],"definitely_dead":true}"#;
    assert_eq!(mon.ok(admin, down), "marked down osd.1. ");
    assert_eq!(mon.map().osd(1).unwrap().xinfo.dead_epoch, mon.map().epoch);
}
