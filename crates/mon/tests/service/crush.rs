//! Commands that change the CRUSH map and weights answer as a monitor of 16.2.15 did.

use crate::harness::Mon;
use crate::pools::answers_as;

#[test]
fn commands_answer_as_in_ceph() {
    let mut mon = Mon::new(3);
    let admin = mon.admin();
    answers_as(&mut mon, admin, include_str!("crush.tsv"));
}

#[test]
fn commands_about_buckets_and_weight_sets_answer_as_in_ceph() {
    let mut mon = Mon::new(3);
    let admin = mon.admin();
    answers_as(&mut mon, admin, include_str!("crush_tree.tsv"));
}

/// What a ceph-osd sends before its first boot, in its order.
#[test]
fn an_osd_has_a_class_before_it_has_a_place() {
    let mut mon = Mon::new(3);
    let admin = mon.admin();
    let uuid = "5a4cbd85-c9b2-4bd7-8d0f-1b4f1d7e3c12";
    mon.ok(admin, &format!(r#"{{"prefix":"osd new","uuid":"{uuid}"}}"#));
    let class = r#"{"prefix":"osd crush set-device-class","class":"hdd","ids":["3"]}"#;
    assert_eq!(mon.ok(admin, class), "set osd(s) 3 to class 'hdd'");
    let place = r#"{"prefix":"osd crush create-or-move","id":3,"weight":0.5,"args":["root=x"]}"#;
    mon.ok(admin, place);
    let crush = &mon.map().crush;
    assert_eq!((crush.item_class(3), crush.full_location(3)), (Some("hdd"), vec![("root", "x")]));
}
