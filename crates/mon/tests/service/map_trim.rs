//! How many OSD maps are kept: bounded, but never fewer than what a PG or an OSD may still need.

use spirula_wire::msg::osd::OsdBeacon;

use crate::harness::Mon;

fn oldest(mon: &mut Mon) -> u32 {
    mon.pass(1);
    mon.service.state().osd.oldest()
}

#[test]
fn maps_are_kept_back_to_the_last_clean_epoch() {
    let mut mon = Mon::new(2);
    let (osd, other, admin) = (mon.boot(0), mon.boot(1), mon.admin());
    mon.churn(admin, 700);
    assert_eq!(oldest(&mut mon), 1, "nobody said anything of PGs");
    mon.send(other, &OsdBeacon { min_last_epoch_clean: 600, ..OsdBeacon::default() });
    assert_eq!(oldest(&mut mon), 1, "not of all");
    mon.beacon(osd, 120);
    assert_eq!(oldest(&mut mon), 1, "osd.1 has the map of epoch 0");
    mon.beacon(other, 100);
    assert_eq!(oldest(&mut mon), 100, "120, at a full map");
    mon.beacon(osd, 60);
    mon.beacon(osd, 690);
    assert_eq!(oldest(&mut mon), 200, "500 are always kept");
    mon.churn(admin, 100);
    assert_eq!(oldest(&mut mon), 300);
    let reopened = mon.restart();
    assert_eq!(reopened.service.state().osd.oldest(), 300);
}

#[test]
fn an_option_bounds_what_is_kept() {
    let mut mon = Mon::new(1);
    let (osd, admin) = (mon.boot(0), mon.admin());
    mon.churn(admin, 200);
    mon.beacon(osd, 190);
    assert_eq!(oldest(&mut mon), 1);
    let set = |name: &str, value: &str| {
        format!(r#"{{"prefix":"config set","who":"mon","name":"{name}","value":"{value}"}}"#)
    };
    mon.ok(admin, &set("mon_debug_block_osdmap_trim", "true"));
    mon.ok(admin, &set("mon_min_osdmap_epochs", "40"));
    assert_eq!(oldest(&mut mon), 1);
    mon.ok(admin, &set("mon_debug_block_osdmap_trim", "false"));
    assert_eq!(oldest(&mut mon), 150);
    assert!(mon.service.state().osd.map_at(149).is_none());
    assert!(mon.service.state().osd.map_at(151).is_some());
}
