//! `config *` against a real monitor (16.2.15).

use crate::harness::*;

fn set(name: &str, value: &str) -> String {
    format!(r#"{{"prefix":"config set","who":"client.zz","name":"{name}","value":"{value}"}}"#)
}

#[test]
fn every_option_of_ceph_can_be_set() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    for (name, value, code, status) in [
        ("osd_max_backfills", "3", 0, ""),
        ("mds_cache_memory_limit", "5G", 0, ""),
        ("debug ms", "1", 0, ""),
        ("debug-ms", "1", -22, "unrecognized config option 'debug-ms'"),
        ("debug_ms", "100", -34, "error parsing value: value must be in range [0, 99]"),
        ("nosuch", "1", -22, "unrecognized config option 'nosuch'"),
        ("mgr/nosuch/x", "1", -22, "unrecognized config option 'mgr/nosuch/x'"),
        ("mon_host", "x", -22, "mon_host is special and cannot be stored by the mon"),
        ("fsid", "x", -22, "error parsing value: "),
        ("osd_data", "/x", -22, "osd_data is special and cannot be stored by the mon"),
    ] {
        let (r, rs, _) = mon.command(id, &set(name, value));
        assert_eq!((r, rs.as_str()), (code, status), "{name} = {value}");
    }
    let force =
        r#"{"prefix":"config set","who":"global","name":"mon_host","value":"x","force":true}"#;
    mon.ok(id, force);
    let shown = mon.ok(id, r#"{"prefix":"config dump"}"#);
    let rows: Vec<String> = shown.lines().map(words).collect();
    let want = [
        "WHO MASK LEVEL OPTION VALUE RO",
        "global basic mon_host x *",
        "mon advanced auth_allow_insecure_global_id_reclaim false",
        "client.zz advanced debug_ms 1/1",
        "client.zz basic mds_cache_memory_limit 5368709120",
        "client.zz advanced osd_max_backfills 3",
    ];
    assert_eq!(rows, want);
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn an_option_is_described_and_what_has_no_effect_says_so() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    let mut help =
        |name: &str| mon.ok(id, &format!(r#"{{"prefix":"config help","key":"{name}"}}"#));
    assert_eq!(
        help("osd_max_write_size"),
        "osd_max_write_size - largest write, in megabytes\n  (size, advanced)\n  Default: 90\n  \
         Minimum: 4\n  Maximum: \n  Can update at runtime: true\n"
    );
    assert_eq!(
        help("mon_lease_ack_timeout_factor"),
        "mon_lease_ack_timeout_factor - \n  (float, advanced)\n  Default: 2.000000\n  Minimum: \
         1.000100\n  Maximum: 100.000000\n  Can update at runtime: true\n  Services: [mon]\n  See also: [mon_lease]\n\n\
         No daemon of this cluster acts on it. It is kept, and handed out to clients.\n"
    );
    let names = mon.ok(id, r#"{"prefix":"config ls"}"#);
    assert!(names.starts_with("host\nfsid\npublic_addr\n"));
    assert_eq!(names.lines().count(), 1744);
    assert!(!names.contains("debug_osd"), "Ceph does not list debug levels");
}

#[test]
fn a_value_that_is_not_set_is_the_default() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    for (who, name, code, want) in [
        ("mon", "auth_mon_ticket_ttl", 0, "259200.000000\n"),
        ("osd.0", "log_to_stderr", 0, "false\n"),
        ("client.x", "log_to_stderr", 0, "true\n"),
        ("osd.0", "debug ms", 0, "0/0\n"),
        ("osd.0", "keyring", -22, "keyring is special and cannot be stored by the mon"),
        ("osd.0", "nosuch", -2, "unrecognized key 'nosuch'"),
    ] {
        let get = format!(r#"{{"prefix":"config get","who":"{who}","key":"{name}"}}"#);
        let (r, rs, out) = mon.command(id, &get);
        assert_eq!((r, if r == 0 { out } else { rs }.as_str()), (code, want), "{who} {name}");
    }
}

#[test]
fn a_file_is_taken_over_but_for_what_clients_need() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    let file = "[global]\nfsid = 1\nmon host = 1.2.3.4\nlog file = /l\ndebug-ms = 1\n\
                rbd_cache = yes\nnosuch = 1\n[client.zz]\nrbd_cache_size = 5K\nkeyring = /k\n";
    let ack = mon.command_with(id, r#"{"prefix":"config assimilate-conf"}"#, file.as_bytes());
    let want = "\n[client.zz]\n\tkeyring = /k\n\n[global]\n\tdebug-ms = 1\n\tfsid = 1\n\tmon_host = \
                1.2.3.4\n\tnosuch = 1\n\trbd_cache = yes\n";
    assert_eq!((ack.r, String::from_utf8_lossy(&ack.outbl).as_ref()), (0, want));
    let get = r#"{"prefix":"config get","who":"client.zz","key":"rbd_cache_size"}"#;
    assert_eq!(mon.ok(id, get), "5120\n");
}

fn key(command: &str, key: &str) -> String {
    format!(r#"{{"prefix":"config-key {command}","key":"{key}"}}"#)
}

#[test]
fn options_are_keys_too() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    mon.ok(
        id,
        r#"{"prefix":"config rm","who":"mon","name":"auth_allow_insecure_global_id_reclaim"}"#,
    );
    let before = mon.service.state().config.version;
    for value in ["3", "4"] {
        mon.ok(id, &set("debug_ms", value));
    }
    mon.ok(
        id,
        r#"{"prefix":"config set","who":"osd/class:ssd","name":"osd_max_backfills","value":"2"}"#,
    );
    assert_eq!(
        mon.ok(id, &key("dump", "config/")),
        "{\n    \"config/client.zz/debug_ms\": \"4/4\",\n    \
         \"config/osd/class:ssd/osd_max_backfills\": \"2\"\n}\n"
    );
    assert_eq!(mon.ok(id, &key("get", "config/osd/class:ssd/osd_max_backfills")), "2");
    let there = "key 'config/client.zz/debug_ms' exists";
    assert_eq!(mon.ok(id, &key("exists", "config/client.zz/debug_ms")), there);
    assert_eq!(mon.command(id, &key("get", "config/client.zz/debug_mon")).0, -2);
    let at = format!("config-history/{}/", before + 2);
    assert_eq!(
        mon.ok(id, &key("dump", &at)),
        format!(
            "{{\n    \"{at}\": \"<<< binary blob of length 12 >>>\",\n    \
             \"{at}+client.zz/debug_ms\": \"4/4\",\n    \
             \"{at}-client.zz/debug_ms\": \"3/3\"\n}}\n"
        )
    );
    let names = mon.ok(id, r#"{"prefix":"config-key ls"}"#);
    assert!(names.contains("\"config/client.zz/debug_ms\"") && names.contains(&at), "{names}");
}

#[test]
fn what_is_written_to_an_option_s_key_is_checked() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    let put = |key: &str, value: &str| {
        format!(r#"{{"prefix":"config-key set","key":"{key}","val":"{value}"}}"#)
    };
    let name = "config/global/debug_mon";
    assert_eq!(mon.ok(id, &put(name, "7")), format!("set {name}"));
    let get = r#"{"prefix":"config get","who":"mon.a","key":"debug_mon"}"#;
    assert_eq!(mon.ok(id, get), "7/7\n");
    for (key, code) in [(name, -22), ("config/weird/debug_mon", -22), ("config-history/1/", -1)] {
        assert_eq!(mon.command(id, &put(key, "junk")).0, code, "{key}");
    }
    mon.ok(id, &put("config/mgr/mgr/balancer/mode", "upmap"));
    let get_mgr = r#"{"prefix":"config get","who":"mgr.x","key":"mgr/balancer/mode"}"#;
    assert_eq!(mon.ok(id, get_mgr), "upmap\n");
    assert_eq!(mon.ok(id, &key("rm", name)), "key deleted");
    assert_eq!(mon.ok(id, get), "1/5\n");
}

#[test]
fn the_log_is_told_when_levels_may_have_changed() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    mon.ok(id, &set("debug_ms", "1"));
    assert_eq!(mon.log, ["levels"]);
    assert_eq!(mon.command(id, &set("debug_ms", "x")).0, -22);
    assert_eq!(mon.log, ["levels"], "nothing has changed");
}
