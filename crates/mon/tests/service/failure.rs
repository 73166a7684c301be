//! OSDs that are reported, refuse connections, come back, and are given up. Lines and map fields as a
//! monitor of 16.2.15 gives them (three OSDs on one host, `mon_osd_reporter_subtree_level` `osd`).

use spirula_maps::{flags, osd_state};
use spirula_wire::msg::osd::{OsdAlive, OsdBeacon, OsdFailure, OsdMarkMeDead, OsdMarkMeDown};

use super::harness::*;

const FAILED: u8 = OsdFailure::FAILED;
const REFUSED: u8 = OsdFailure::FAILED | OsdFailure::IMMEDIATE;

fn report(osd: u8, failed_for: i32, flags: u8) -> OsdFailure {
    OsdFailure {
        fsid: FSID,
        target_osd: osd.into(),
        target_addrs: addr(&format!("v2:127.0.0.1:{}/1", 7000 + u32::from(osd))),
        failed_for,
        flags,
        ..OsdFailure::default()
    }
}

/// A monitor with this many OSDs up, their sessions, and one of the administrator's.
fn cluster(osds: u8) -> (Mon, Vec<u64>, u64) {
    let mut mon = Mon::new(osds);
    let sessions = (0..osds).map(|n| mon.boot(n)).collect();
    // Time to have been silent in.
    mon.pass(60);
    let admin = mon.admin();
    (mon, sessions, admin)
}

/// 700 seconds in which all say that they live.
fn pass_long(mon: &mut Mon, osds: &[u64]) {
    for _ in 0..7 {
        osds.iter().for_each(|id| mon.send(*id, &OsdBeacon::default()));
        mon.pass(100);
    }
}

/// The newest lines of the cluster's log, oldest first.
fn log(mon: &mut Mon, admin: u64, num: usize) -> Vec<String> {
    mon.pass(1);
    let ask = format!(r#"{{"prefix":"log last","num":{num},"level":"debug","channel":"cluster"}}"#);
    let text = mon.ok(admin, &ask);
    let line = |l: &str| l.split_once("cluster ").map_or(l.to_owned(), |(_, rest)| rest.to_owned());
    text.lines().map(line).collect()
}

#[test]
fn a_refused_connection_is_immediate_proof() {
    let (mut mon, osds, admin) = cluster(3);
    mon.send(osds[1], &report(2, 21, REFUSED));
    let (epoch, osd) = (mon.map().epoch, mon.map().osd(2).unwrap().clone());
    assert!(!osd.is_up() && osd.is_in());
    // It was not slow: nothing is noted that would make it so.
    assert_eq!((osd.xinfo.dead_epoch, osd.info.down_at), (epoch, epoch));
    assert_eq!(osd.xinfo.down_stamp, Default::default());
    let lines = log(&mut mon, admin, 20);
    let has = |line: &str| assert!(lines.iter().any(|l| l.contains(line)), "{line}: {lines:#?}");
    has("[DBG] osd.2 reported immediately failed by osd.1");
    has("[INF] osd.2 failed (root=default,host=host1) (connection refused reported by osd.1)");
    has("[WRN] Health check failed: 1 osds down (OSD_DOWN)");
    let detail = mon.ok(admin, r#"{"prefix":"health","detail":"detail"}"#);
    let want = "[WRN] OSD_DOWN: 1 osds down\n    osd.2 (root=default,host=host1) is down";
    assert!(detail.contains(want), "{detail}");
    // A second one about a process that is down changes nothing.
    mon.send(osds[0], &report(2, 21, REFUSED));
    assert_eq!(mon.map().epoch, epoch);
}

#[test]
fn silence_takes_enough_reporters_and_the_grace() {
    let (mut mon, osds, admin) = cluster(4);
    mon.send(osds[0], &report(3, 60, FAILED));
    mon.pass(30);
    assert!(mon.map().is_up(3), "one reporter");
    mon.send(osds[1], &report(3, 15, FAILED));
    mon.pass(3);
    assert!(mon.map().is_up(3), "18 seconds");
    // Taken back: the other one alone does not count.
    mon.send(osds[1], &report(3, 19, 0));
    mon.pass(10);
    assert!(mon.map().is_up(3));
    mon.send(osds[1], &report(3, 15, FAILED));
    mon.pass(6);
    assert!(!mon.map().is_up(3));
    assert!(mon.map().osd(3).unwrap().xinfo.down_stamp > Default::default());
    let lines = log(&mut mon, admin, 40);
    let has = |line: &str| assert!(lines.iter().any(|l| l.contains(line)), "{line}: {lines:#?}");
    has("[DBG] osd.3 reported failed by osd.0");
    has("[DBG] osd.3 failure report canceled by osd.1");
    has("[INF] osd.3 failed (root=default,host=host1) (2 reporters from different osd after 20.");
    has(">= grace 20.000000)");
}

#[test]
fn a_slow_osd_gets_more_time() {
    let (mut mon, osds, _) = cluster(3);
    let silence = |mon: &mut Mon| {
        mon.send(osds[0], &report(2, 20, FAILED));
        mon.send(osds[1], &report(2, 20, FAILED));
    };
    silence(&mut mon);
    assert!(!mon.map().is_up(2));
    mon.pass(100);
    let again = mon.session_at("osd.2", "allow profile osd", "v2:127.0.0.1:7002/1");
    let mut boot = boot_message(2);
    boot.boot_epoch = 3;
    let dead = OsdMarkMeDead { fsid: FSID, target_osd: 2, epoch: 5, ..OsdMarkMeDead::default() };
    mon.send(again, &dead);
    assert_eq!(mon.map().osd(2).unwrap().xinfo.dead_epoch, 5);
    mon.send(again, &boot);
    // The same process was called dead for 100 seconds: 0.3 of that, with probability 0.3.
    let xinfo = mon.map().osd(2).unwrap().xinfo;
    assert_eq!((xinfo.laggy_interval, xinfo.laggy_probability), (30, 1_288_490_188));
    silence(&mut mon);
    mon.pass(8);
    assert!(mon.map().is_up(2), "the grace is 9 seconds longer");
    mon.pass(3);
    assert!(!mon.map().is_up(2));
    // A new process is less suspected.
    let fresh = mon.session_at("osd.2", "allow profile osd", "v2:127.0.0.1:7002/2");
    mon.send(fresh, &boot_message(2));
    let xinfo = mon.map().osd(2).unwrap().xinfo;
    assert_eq!((xinfo.laggy_interval, xinfo.laggy_probability), (21, 901_943_131));
    // Up, so not dead by its own word.
    mon.send(fresh, &OsdMarkMeDead { epoch: 6, ..dead });
    assert_eq!(mon.map().osd(2).unwrap().xinfo.dead_epoch, 5);
}

#[test]
fn what_is_down_for_long_goes_out_and_comes_back_in() {
    let (mut mon, osds, admin) = cluster(4);
    mon.send(osds[0], &report(3, 21, REFUSED));
    mon.pass(595);
    assert!(mon.map().is_in(3));
    mon.pass(10);
    let osd = mon.map().osd(3).unwrap().clone();
    assert!(!osd.is_in() && osd.state & osd_state::AUTOOUT != 0);
    assert_eq!(osd.xinfo.old_weight, 0x10000);
    let dump = mon.ok(admin, r#"{"prefix":"osd dump"}"#);
    assert!(dump.contains(" autoout,exists "), "{dump}");
    let lines = log(&mut mon, admin, 10);
    let marked = "Marking osd.3 out (has been down for 600 seconds)";
    assert!(lines.iter().any(|l| l.contains(marked)), "{lines:#?}");
    // Three of four are in: no more of them.
    mon.send(osds[0], &report(2, 21, REFUSED));
    pass_long(&mut mon, &osds);
    assert!(!mon.map().is_in(2), "0.75 are in before it goes");
    mon.send(osds[0], &report(1, 21, REFUSED));
    pass_long(&mut mon, &osds);
    assert!(mon.map().is_in(1));
    mon.boot(3);
    let osd = mon.map().osd(3).unwrap();
    assert_eq!((osd.weight, osd.state & osd_state::AUTOOUT), (0x10000, 0));
}

#[test]
fn flags_hold_what_they_name() {
    let (mut mon, osds, admin) = cluster(3);
    let set = |mon: &mut Mon, flag: &str, on: bool| {
        let prefix = if on { "osd set" } else { "osd unset" };
        mon.ok(admin, &format!(r#"{{"prefix":"{prefix}","key":"{flag}"}}"#));
    };
    set(&mut mon, "nodown", true);
    mon.send(osds[0], &report(2, 21, REFUSED));
    assert!(mon.map().is_up(2));
    set(&mut mon, "nodown", false);
    set(&mut mon, "noout", true);
    mon.send(osds[0], &report(2, 21, REFUSED));
    pass_long(&mut mon, &osds);
    assert!(!mon.map().is_up(2) && mon.map().is_in(2));
    set(&mut mon, "noout", false);
    mon.pass(2);
    assert!(!mon.map().is_in(2), "it was down all the time");
    set(&mut mon, "noup", true);
    mon.boot(2);
    assert!(!mon.map().is_up(2));
    set(&mut mon, "noup", false);
    set(&mut mon, "noin", true);
    mon.boot(2);
    assert!(mon.map().is_up(2) && !mon.map().is_in(2));
    assert!(mon.map().has_flag(flags::NOIN));
}

#[test]
fn few_left_up_are_not_believed() {
    let (mut mon, osds, _) = cluster(4);
    for osd in [3, 2, 1] {
        mon.send(osds[0], &report(osd, 21, REFUSED));
    }
    assert!(!mon.map().is_up(1), "half of them are up before it goes");
    let (mut mon, osds, _) = cluster(10);
    for osd in (1..10).rev() {
        mon.send(osds[0], &report(osd, 21, REFUSED));
    }
    let up = mon.map().existing_osds().filter(|(_, o)| o.is_up()).count();
    assert_eq!(up, 2, "at 0.2 no more go (mon_osd_min_up_ratio 0.3)");
}

#[test]
fn a_clean_stop_is_down_and_dead() {
    let (mut mon, osds, admin) = cluster(3);
    let epoch = mon.map().epoch;
    let stop = OsdMarkMeDown {
        fsid: FSID,
        target_osd: 0,
        target_addrs: addr("v2:127.0.0.1:7000/1"),
        request_ack: true,
        down_and_dead: true,
        epoch,
        ..OsdMarkMeDown::default()
    };
    mon.send(osds[0], &stop);
    let osd = mon.map().osd(0).unwrap();
    assert_eq!((osd.is_up(), osd.xinfo.dead_epoch), (false, epoch));
    let lines = log(&mut mon, admin, 10);
    assert!(lines.iter().any(|l| l.contains("osd.0 marked itself down and dead")), "{lines:#?}");
}

#[test]
fn up_thru_is_what_the_osd_knows() {
    let (mut mon, osds, _) = cluster(2);
    let mut alive = OsdAlive { want: 2, ..OsdAlive::default() };
    alive.paxos.version = 3;
    mon.send(osds[0], &alive);
    assert_eq!(mon.map().osd(0).unwrap().info.up_thru, 3);
    // Never more than there is.
    alive.want = 900;
    mon.send(osds[0], &alive);
    assert_eq!(mon.map().osd(0).unwrap().info.up_thru, 4);
}

/// One that lost several OSDs at once asks for the next map, which tells of one of them.
#[test]
fn who_asks_for_the_map_of_a_loss_hears_of_more_losses() {
    for (loss, later, want) in [(true, 1, 1), (true, 20, 0), (false, 1, 0)] {
        let (mut mon, osds, admin) = cluster(3);
        let client = mon.admin();
        let next = u64::from(mon.map().epoch) + 1;
        mon.send(client, &subscribe(&[("osdmap", next, true)]));
        if loss {
            mon.send(osds[0], &report(2, 21, REFUSED));
        } else {
            mon.ok(admin, r#"{"prefix":"osd set","key":"noout"}"#);
        }
        assert_eq!(mon.take(client).len(), 1, "the one that was asked for");
        mon.pass(later);
        mon.send(osds[0], &report(1, 21, REFUSED));
        assert!(!mon.map().is_up(1));
        assert_eq!(mon.take(client).len(), want, "{loss} {later}");
    }
}
