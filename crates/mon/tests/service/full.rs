//! Full OSDs and what they do to pools and health; texts are those of a 16.2.15 cluster.

use spirula_maps::osd_state::{BACKFILLFULL, FULL, NEARFULL};
use spirula_maps::pool_flags;
use spirula_wire::msg::osd::OsdFull;

use crate::harness::Mon;

fn tell(mon: &mut Mon, session: u64, state: u32) {
    let map_epoch = mon.map().epoch;
    mon.send(session, &OsdFull { map_epoch, state, ..OsdFull::default() });
}

fn flags(mon: &Mon, pool: i64) -> String {
    pool_flags::names(mon.map().pools[&pool].flags & !pool_flags::CREATING)
}

/// The checks about fullness.
fn health(mon: &mut Mon, admin: u64) -> String {
    let all = mon.ok(admin, r#"{"prefix":"health","detail":"detail"}"#);
    let (mut out, mut wanted) = (String::new(), false);
    for line in all.lines().skip(1) {
        if !line.starts_with(' ') {
            wanted = line.contains("FULL");
        }
        if wanted {
            out += line;
            out += "\n";
        }
    }
    out
}

#[test]
fn a_pool_is_as_full_as_its_fullest_osd() {
    let mut mon = Mon::new(2);
    let admin = mon.admin();
    let osds = [mon.boot(0), mon.boot(1)];
    let rows = [
        ([0, 0], "", ""),
        (
            [NEARFULL, 0],
            ",nearfull",
            "[WRN] OSD_NEARFULL: 1 nearfull osd(s)\n    osd.0 is near full\n\
             [WRN] POOL_NEARFULL: 1 pool(s) nearfull\n    pool 'rbd' is nearfull\n",
        ),
        (
            [NEARFULL, BACKFILLFULL],
            ",backfillfull",
            "[WRN] OSD_BACKFILLFULL: 1 backfillfull osd(s)\n    osd.1 is backfill full\n\
             [WRN] OSD_NEARFULL: 1 nearfull osd(s)\n    osd.0 is near full\n\
             [WRN] POOL_BACKFILLFULL: 1 pool(s) backfillfull\n    pool 'rbd' is backfillfull\n",
        ),
        (
            [FULL, FULL],
            ",full",
            "[ERR] OSD_FULL: 2 full osd(s)\n    osd.0 is full\n    osd.1 is full\n\
             [WRN] POOL_FULL: 1 pool(s) full\n    pool 'rbd' is full (no space)\n",
        ),
        (
            [0, NEARFULL],
            ",nearfull",
            "[WRN] OSD_NEARFULL: 1 nearfull osd(s)\n    osd.1 is near full\n\
             [WRN] POOL_NEARFULL: 1 pool(s) nearfull\n    pool 'rbd' is nearfull\n",
        ),
        ([0, 0], "", ""),
    ];
    for (states, more, want) in rows {
        for (session, state) in osds.into_iter().zip(states) {
            tell(&mut mon, session, state);
        }
        assert_eq!(flags(&mon, 1), format!("hashpspool{more}"), "{states:?}");
        assert_eq!(health(&mut mon, admin), want, "{states:?}");
        let epoch = mon.map().epoch;
        tell(&mut mon, osds[0], states[0]);
        assert_eq!(mon.map().epoch, epoch, "what is known changes nothing");
    }
    tell(&mut mon, osds[0], FULL);
    let dump = mon.ok(admin, r#"{"prefix":"osd dump"}"#);
    assert!(dump.contains(" exists,full,up "), "{dump}");
    // One that is down does not count.
    mon.ok(admin, r#"{"prefix":"osd down","ids":["0"]}"#);
    assert_eq!(flags(&mon, 1), "hashpspool");
}

#[test]
fn only_pools_whose_rule_reaches_a_full_osd_are_full() {
    let mut mon = Mon::new(2);
    let admin = mon.admin();
    let osds = [mon.boot(0), mon.boot(1)];
    for command in [
        r#"{"prefix":"osd crush add-bucket","name":"other","type":"root"}"#,
        r#"{"prefix":"osd crush move","name":"osd.1","args":["root=other"]}"#,
        r#"{"prefix":"osd crush rule create-replicated","name":"r","root":"other","type":"osd"}"#,
        r#"{"prefix":"osd pool create","pool":"p","pg_num":4,"rule":"r"}"#,
    ] {
        mon.ok(admin, command);
    }
    let is_full = |mon: &Mon| [1, 2].map(|pool| flags(mon, pool).contains("full"));
    tell(&mut mon, osds[0], FULL);
    assert_eq!(is_full(&mon), [true, false]);
    tell(&mut mon, osds[1], FULL);
    assert_eq!(is_full(&mon), [true, true]);
    // A new pool is full at once.
    mon.ok(admin, r#"{"prefix":"osd pool create","pool":"q","pg_num":4,"rule":"r"}"#);
    assert!(flags(&mon, 3).contains("full"));
    tell(&mut mon, osds[0], 0);
    assert_eq!(is_full(&mon), [false, true]);
}

#[test]
fn only_the_process_in_the_map_says_how_full_it_is() {
    let mut mon = Mon::new(1);
    let osd = mon.boot(0);
    let epoch = mon.map().epoch;
    let strangers = [
        mon.admin(),
        mon.session("osd.1", "allow profile osd"),
        mon.session_at("osd.0", "allow r", "v2:127.0.0.1:7000/1"),
        mon.session_at("osd.0", "allow profile osd", "v2:127.0.0.1:7009/1"),
    ];
    for session in strangers {
        tell(&mut mon, session, FULL);
    }
    assert_eq!(mon.map().epoch, epoch);
    // Nothing but fullness is taken.
    tell(&mut mon, osd, NEARFULL | 3);
    assert_eq!(mon.map().osds[0].state & (NEARFULL | 3), NEARFULL | 3);
}

#[test]
fn ratios_out_of_order_are_an_error() {
    let mut mon = Mon::new(1);
    let admin = mon.admin();
    assert_eq!(health(&mut mon, admin), "");
    for (prefix, ratio) in [("osd set-nearfull-ratio", 0.96), ("osd set-full-ratio", 0.98)] {
        mon.ok(admin, &format!(r#"{{"prefix":"{prefix}","ratio":{ratio}}}"#));
    }
    let want = "[ERR] OSD_OUT_OF_ORDER_FULL: full ratio(s) out of order\n    \
                backfillfull_ratio (0.9) < nearfull_ratio (0.96), increased\n    \
                osd_failsafe_full_ratio (0.97) < full_ratio (0.98), increased\n";
    assert_eq!(health(&mut mon, admin), want);
}
