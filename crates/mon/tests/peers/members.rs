//! Monitors that are added, removed, out of the quorum, or of another opinion about the time. The
//! texts are those of a real 16.2 cluster.

use std::time::Duration;

use crate::harness::{Mons, addr_of, name_of};

const SECOND: Duration = Duration::from_secs(1);

fn command(prefix: &str, args: &[(&str, &str)]) -> String {
    let args: String = args.iter().map(|(k, v)| format!(r#", "{k}": "{v}""#)).collect();
    format!(r#"{{"prefix": "{prefix}"{args}}}"#)
}

fn add(name: &str, addr: &str) -> String {
    command("mon add", &[("name", name), ("addr", addr)])
}

fn rm(name: &str) -> String {
    command("mon rm", &[("name", name)])
}

fn refused(mons: &mut Mons, json: &str) -> (i32, String) {
    let leader = mons.leader();
    let (r, rs, _) = mons.command(leader, json);
    (r, rs)
}

#[test]
fn what_is_wrong_with_an_added_monitor_is_said() {
    let mut mons = Mons::new(1);
    let there = addr_of(0);
    for (name, addr, code, text) in [
        ("a", "10.0.0.9", -17, format!("mon.a already exists at address {there}")),
        ("z", "10.0.0.1:3300", -17, format!("mon.a already exists at address {there}")),
        ("a", "10.0.0.1", 0, format!("mon.a at {there} already exists")),
        ("z", "bogus", -22, "addr bogus does not parse".into()),
        (
            "z",
            "10.0.0.9:6789",
            -22,
            "addr 10.0.0.9:6789 is of messenger v1; monitors speak v2 only".into(),
        ),
    ] {
        assert_eq!(refused(&mut mons, &add(name, addr)), (code, text));
    }
    let epoch = mons.service(0).state().monmap.epoch();
    let gone = "mon.q does not exist or has already been removed".to_owned();
    assert_eq!(refused(&mut mons, &rm("q")), (0, gone));
    let last = "error: refusing removal of last monitor a".to_owned();
    assert_eq!(refused(&mut mons, &rm("a")), (-22, last));
    assert_eq!(mons.service(0).state().monmap.epoch(), epoch);
    let at = r#""location": ["rack=r1", "host=h"]"#;
    let added = add("z", "10.0.0.9").replace('}', &format!(", {at}}}"));
    assert_eq!(refused(&mut mons, &added).0, 0);
    let shown = mons.ok(0, &command("mon dump", &[("format", "json")]));
    assert!(shown.contains(r#""crush_location":"{host=h,rack=r1}"}"#), "{shown}");
}

/// From one monitor to three, and back to the two that the first is not among.
#[test]
fn monitors_come_and_go() {
    let mut mons = Mons::new(1);
    for n in 1..3 {
        let leader = mons.leader();
        let name = name_of(n);
        let said = mons.ok(leader, &add(&name, &format!("10.0.0.{}", n + 1)));
        assert_eq!(said, format!("adding mon.{name} at {}", addr_of(n)));
        let number = mons.blank(n);
        mons.start(n);
        let let_in = |m: &mut Mons| {
            (0..=n).all(|i| m.service(i).state().members.get(&number) == Some(&name))
        };
        assert!(mons.run_until(SECOND * 20, let_in), "mon.{name} is not let in");
        assert_eq!(mons.service(0).voters().len(), n + 1);
        // Its snapshot is of before it was added; only its log names it.
        mons.crash(n, true);
        mons.start(n);
        assert_eq!(mons.service(n).monmap().rank_of(&name), Some(n));
    }
    assert_eq!(mons.service(0).state().monmap.epoch(), 3);
    let first = mons.leader();
    let name = name_of(first);
    assert_eq!(mons.ok(first, &rm(&name)), "");
    assert!(mons.run_until(SECOND * 5, |m| m.nodes[first].removed), "it stays");
    let leader = mons.leader();
    let two = |m: &mut Mons| {
        let service = m.service(leader);
        service.voters().len() == 2 && service.state().members.len() == 2
    };
    assert!(mons.run_until(SECOND * 20, two));
    let stat = mons.ok(leader, &command("mon stat", &[]));
    assert!(stat.contains("e4: 2 mons at {"), "{stat}");
    assert!(stat.contains(&format!("removed_ranks: {{{first}}}")), "{stat}");
    // The other one may go without a vote of its own, and is not in the quorum from then on.
    let other = 3 - first - leader;
    mons.ok(leader, &rm(&name_of(other)));
    assert_eq!(mons.service(leader).live().quorum.names, [name_of(leader)]);
    assert!(mons.run_until(SECOND * 20, |m| m.service(leader).voters().len() == 1));
    mons.ok(leader, &command("osd set", &[("key", "noout")]));
}

/// The others must not count on one that left while it was away.
#[test]
fn a_monitor_that_is_away_can_be_removed() {
    let mut mons = Mons::new(3);
    let leader = mons.leader();
    let away = (leader + 1) % 3;
    mons.crash(away, true);
    mons.ok(leader, &rm(&name_of(away)));
    let two = |m: &mut Mons| m.service(leader).voters().len() == 2;
    assert!(mons.run_until(SECOND * 20, two));
    // The others do not count it in any more, so nobody brings it up to date; it finds out itself.
    mons.start(away);
    assert!(
        mons.run_until(SECOND * 20, |m| m.nodes[away].removed),
        "it looks for a quorum for ever"
    );
}

/// Without a quorum nobody is taken for removed.
#[test]
fn who_waits_for_a_quorum_stays() {
    let mut mons = Mons::new(3);
    mons.leader();
    mons.crash(1, true);
    mons.crash(2, true);
    mons.run_for(SECOND * 30);
    mons.start(1);
    mons.leader();
    assert!(!mons.nodes[0].removed);
}

#[test]
fn what_may_be_stopped_added_and_removed() {
    let mut mons = Mons::new(3);
    let leader = mons.leader();
    let ids = |ids: &str| format!(r#"{{"prefix": "mon ok-to-stop", "ids": [{ids}]}}"#);
    let quorum = |m: &mut Mons, names: &str| {
        let all = |m: &mut Mons| m.service(leader).live().quorum.names.join(",") == names;
        assert!(m.run_until(SECOND * 10, all), "not {names}");
    };
    quorum(&mut mons, "a,b,c");
    let to_rm = |id: &str| command("mon ok-to-rm", &[("id", id)]);
    for (json, said) in [
        (ids(r#""a""#), (0, "quorum should be preserved (b,c) after stopping [a]")),
        (ids(r#""x""#), (0, "quorum should be preserved (a,b,c) after stopping [x]")),
        (
            ids(r#""a", "b""#),
            (-16, "not enough monitors would be available (c) after stopping mons [a,b]"),
        ),
        (to_rm("c"), (0, "safe to remove mon.c")),
        (to_rm("x"), (0, "mon.x does not exist")),
        (
            command("mon ok-to-add-offline", &[]),
            (0, "adding another mon that is not yet online will not break quorum"),
        ),
    ] {
        assert_eq!(refused(&mut mons, &json), (said.0, said.1.to_owned()), "{json}");
    }
    let others: Vec<String> = (0..3).filter(|n| *n != leader).map(name_of).collect();
    let down = (leader + 1) % 3;
    mons.crash(down, true);
    let mut left: Vec<String> = (0..3).filter(|n| *n != down).map(name_of).collect();
    quorum(&mut mons, &left.join(","));
    let text = "adding a monitor may break quorum (until that monitor starts)".to_owned();
    assert_eq!(refused(&mut mons, &command("mon ok-to-add-offline", &[])), (-16, text));
    left.retain(|name| *name != name_of(leader));
    let text = format!("removing mon.{} would break quorum", left[0]);
    assert_eq!(refused(&mut mons, &to_rm(&left[0])), (-16, text));
    assert_eq!(others.len(), 2);
}

/// All that the leader keeps of the monitors it was told by themselves.
#[test]
fn every_monitor_is_described() {
    let mut mons = Mons::new(3);
    let leader = mons.leader();
    let known = |m: &mut Mons| {
        let kept = &m.service(leader).state().metadata;
        ["mon.a", "mon.b", "mon.c"].iter().all(|name| kept.contains_key(*name))
    };
    assert!(mons.run_until(SECOND * 10, known));
    let all = mons.ok(leader, &command("mon metadata", &[("format", "json")]));
    let each = |n| format!(r#"{{"name":"{}","hostname":"host{n}"}}"#, name_of(n));
    assert_eq!(all, format!("[{},{},{}]\n", each(0), each(1), each(2)));
    let other = (leader + 1) % 3;
    let one = command("mon metadata", &[("id", &name_of(other)), ("format", "json")]);
    assert_eq!(mons.ok(leader, &one), format!("{{\"hostname\":\"host{other}\"}}\n"));
    let text = "requested mon not found".to_owned();
    assert_eq!(refused(&mut mons, &command("mon metadata", &[("id", "x")])), (-2, text));
    for prefix in ["mon versions", "versions"] {
        let said = mons.ok(leader, &command(prefix, &[("format", "json")]));
        assert!(said.contains(r#"{"unknown":3}"#), "{said}");
    }
    let said = mons.ok(leader, &command("features", &[("format", "json")]));
    assert!(
        said.starts_with(
            r#"{"mon":[{"features":"0x3f01cfbdfffdffff","release":"luminous","num":3}]"#
        ),
        "{said}"
    );
    let said = command("mon count-metadata", &[("property", "hostname"), ("format", "json")]);
    assert_eq!(mons.ok(leader, &said), "{\"host0\":1,\"host1\":1,\"host2\":1}\n");
}

fn health(mons: &mut Mons, n: usize) -> String {
    mons.ok(n, &command("health", &[("detail", "detail")]))
}

#[test]
fn a_monitor_that_is_down_is_named() {
    let mut mons = Mons::new(3);
    let leader = mons.leader();
    // A new cluster's monitors may be on their way.
    mons.run_for(SECOND * 61);
    assert!(!health(&mut mons, leader).contains("MON_DOWN"));
    let down = (leader + 1) % 3;
    mons.crash(down, true);
    let left: Vec<String> = (0..3).filter(|n| *n != down).map(name_of).collect();
    let text = format!(
        "[WRN] MON_DOWN: 1/3 mons down, quorum {}\n    mon.{} (rank {down}) addr {} is down (out of quorum)\n",
        left.join(","),
        name_of(down),
        addr_of(down)
    );
    let told = mons.run_until(SECOND * 10, |m| {
        m.service(leader).live().checks.checks.contains_key("MON_DOWN")
    });
    assert!(told);
    let said = health(&mut mons, leader);
    assert!(said.contains(&text), "{said}");
    mons.start(down);
    let well = |m: &mut Mons| !m.service(leader).live().checks.checks.contains_key("MON_DOWN");
    assert!(mons.run_until(SECOND * 10, well));
}

#[test]
fn clocks_that_differ_are_named() {
    let mut mons = Mons::new(3);
    let leader = mons.leader();
    let (fast, slow) = ((leader + 1) % 3, (leader + 2) % 3);
    let skewed = |m: &Mons| {
        let checks = &m.service(leader).live().checks.checks;
        checks.get("MON_CLOCK_SKEW").map(|c| (c.summary.clone(), c.detail.clone()))
    };
    let round = |m: &Mons| m.service(leader).live().clocks.round;
    assert!(mons.run_until(SECOND * 10, |m| round(m) == 2), "no round");
    assert_eq!(skewed(&mons), None);
    let said = mons.ok(leader, &command("time-sync-status", &[("format", "json")]));
    let expected = r#""skew":0,"latency":0,"health":"HEALTH_OK"}"#;
    assert!(said.starts_with(r#"{"time_skew_status":{"a":{"skew":0"#), "{said}");
    assert!(said.contains(expected) && said.contains(r#""round":2,"round_status":"finished"}}"#));

    mons.nodes[fast].ahead = Duration::from_millis(570);
    mons.run_for(SECOND * 310);
    let (summary, detail) = skewed(&mons).expect("a skew");
    let name = name_of(fast);
    assert_eq!(summary, format!("clock skew detected on mon.{name}"));
    // The way there and back took 20 ms, of which the way back counts for the other clock.
    assert_eq!(detail, [format!("mon.{name} clock skew 0.54s > max 0.05s (latency 0.02s)")]);
    let said = mons.ok(leader, &command("time-sync-status", &[("format", "json")]));
    let expected = r#""health":"HEALTH_WARN","details":"clock skew 0.54s > max 0.05s"}"#;
    assert!(said.contains(expected), "{said}");

    // Looked at again in half a minute, then a minute, ..., as long as it is so.
    mons.nodes[slow].ahead = Duration::from_millis(570);
    mons.run_for(SECOND * 35);
    assert_eq!(skewed(&mons).map(|(_, detail)| detail.len()), Some(2));
    mons.nodes[fast].ahead = Duration::ZERO;
    mons.nodes[slow].ahead = Duration::ZERO;
    mons.run_for(SECOND * 65);
    assert_eq!(skewed(&mons), None);
}
