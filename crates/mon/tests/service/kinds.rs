//! OSDs of Ceph beside those of Spirula: no pool has PGs on both.

use spirula_wire::Message as _;
use spirula_wire::msg::osd::{OsdBoot, OsdPgCreate2};

use crate::harness::{Mon, boot_message};

fn boot(osd: u8, store: &str) -> OsdBoot {
    let mut boot = boot_message(osd);
    boot.metadata.insert("osd_objectstore".into(), store.into());
    boot
}

/// Two OSDs of Spirula and a pool; osd.2 has not booted yet.
fn cluster() -> (Mon, u64, u64) {
    let mut mon = Mon::new(3);
    for osd in 0..2 {
        let id = mon.boot(osd);
        mon.send(id, &boot(osd, "vos"));
        let again =
            mon.session_at(&format!("osd.{osd}"), "allow profile osd", "v2:127.0.0.1:7100/1");
        mon.send(again, &boot(osd, "vos"));
    }
    let at = "v2:127.0.0.1:7002/1";
    let third = mon.session_at("osd.2", "allow profile osd", at);
    let admin = mon.admin();
    (mon, third, admin)
}

#[test]
fn an_osd_of_ceph_stays_out_of_our_pools() {
    let (mut mon, third, admin) = cluster();
    mon.send(third, &boot(2, "bluestore"));
    assert!(!mon.map().is_up(2));
    mon.pass(1);
    let log = mon.ok(admin, r#"{"prefix":"log last","num":20}"#);
    let line =
        "refused: CRUSH rule replicated_rule would place PGs on osd.0 of Spirula and osd.2 of Ceph";
    assert!(log.contains(line), "{log}");
    // Below a root of its own it serves pools of its own.
    mon.ok(admin, r#"{"prefix":"osd crush rm","name":"osd.2"}"#);
    mon.ok(
        admin,
        r#"{"prefix":"osd crush set","id":2,"weight":1.0,"args":["root=other","host=h2"]}"#,
    );
    mon.send(third, &boot(2, "bluestore"));
    assert!(mon.map().is_up(2));
    mon.ok(admin, r#"{"prefix":"osd crush rule create-replicated","name":"theirs","root":"other","type":"osd"}"#);
    mon.ok(admin, r#"{"prefix":"osd pool create","pool":"t","pg_num":8,"rule":"theirs"}"#);
    drop(mon.take(third));
    mon.pass(6);
    let told = mon.take(third).into_iter().filter_map(|raw| OsdPgCreate2::from_raw(&raw).ok());
    let pgs: Vec<usize> = told.map(|message| message.pgs.len()).collect();
    assert_eq!(pgs, [8], "it makes PGs when it is told to");
    for command in [
        r#"{"prefix":"osd crush move","name":"osd.2","args":["root=default","host=host1"]}"#,
        r#"{"prefix":"osd crush move","name":"h2","args":["root=default"]}"#,
        r#"{"prefix":"osd crush set","id":0,"weight":1.0,"args":["root=other","host=h2"]}"#,
        r#"{"prefix":"osd pool set","pool":"t","var":"crush_rule","val":"replicated_rule"}"#,
    ] {
        let (code, said, _) = mon.command(admin, command);
        assert_eq!(
            (code, said.contains("which cannot replicate to each other")),
            (-22, true),
            "{command}: {said}"
        );
    }
    let other = r#"{"prefix":"osd crush rule create-replicated","name":"same","root":"other","type":"osd"}"#;
    mon.ok(admin, other);
    mon.ok(admin, r#"{"prefix":"osd pool set","pool":"t","var":"crush_rule","val":"same"}"#);
}

#[test]
fn rules_over_both_are_refused() {
    let (mut mon, third, admin) = cluster();
    mon.ok(admin, r#"{"prefix":"osd crush rm","name":"osd.2"}"#);
    mon.send(third, &boot(2, "bluestore"));
    assert!(mon.map().is_up(2), "nowhere in CRUSH");
    // Below a root that no pool uses both may be.
    for osd in [1, 2] {
        mon.ok(admin, &format!(r#"{{"prefix":"osd crush set","id":{osd},"weight":1.0,"args":["root=both","host=h{osd}"]}}"#));
    }
    let rule = r#"{"prefix":"osd crush rule create-replicated","name":"mixed","root":"both","type":"osd"}"#;
    let (code, said, _) = mon.command(admin, rule);
    assert_eq!(
        (code, said.starts_with("CRUSH rule mixed would place PGs on osd.1")),
        (-22, true),
        "{said}"
    );
}

#[test]
fn one_that_says_nothing_is_of_no_kind() {
    let (mut mon, third, _) = cluster();
    mon.send(third, &boot_message(2));
    assert!(mon.map().is_up(2));
}
