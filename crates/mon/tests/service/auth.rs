//! `auth *` against a real monitor.

use spirula_wire::msg::types;

use crate::harness::{Mon, subscribe};

/// A command, its input, and what Ceph 16.2.15 answered: code and status. The commands were given in
/// this order.
const ANSWERS: &[(&str, &str, i32, &str)] = &[
    (
        r#"{"prefix":"auth caps","entity":"client.none","caps":["mon","allow r"]}"#,
        "",
        -2,
        "couldn't find entry client.none",
    ),
    (r#"{"prefix":"auth get-or-create","entity":"client.b0","caps":["mon","allow r"]}"#, "", 0, ""),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b0","caps":["mon","allow rw"]}"#,
        "",
        -22,
        "key for client.b0 exists but cap mon does not match",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b0","caps":["osd","allow rw"]}"#,
        "",
        -22,
        "key for client.b0 exists but cap osd does not match",
    ),
    (r#"{"prefix":"auth get-or-create","entity":"client.b0"}"#, "", 0, ""),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b0","caps":["mon","allow r","osd","allow rw"]}"#,
        "",
        -22,
        "key for client.b0 exists but cap osd does not match",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b0","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth get-or-create-key","entity":"client.b0","caps":["mon","allow w"]}"#,
        "",
        -22,
        "key for client.b0 exists but cap mon does not match",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b1","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b1","caps":["mon","allow r","osd"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b1","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b1","caps":["xyz","allow r"]}"#,
        "",
        -22,
        "unknown cap type 'xyz'",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b1","caps":["mon","allow r","mon","allow rw"]}"#,
        "",
        0,
        "",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b2","caps":["mon","allow r","mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b3","caps":["mon","allow bogus","mon","allow r"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b4","caps":["osd","allow bogus","mon","allow bogus"]}"#,
        "",
        -22,
        "osd capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b4","caps":["osd",""]}"#,
        "",
        -22,
        "osd capability parse failed, stopped at '' of ''",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b4","caps":["mon",""]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at end of ''",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b4","caps":["mgr","profile x, profile y"]}"#,
        "",
        -22,
        "mgr capability parse failed during profile evaluation: unrecognized profile 'x'unrecognized profile 'y'",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b4","caps":["mds","allow wr"]}"#,
        "",
        -22,
        "mds capability parse failed, stopped at 'allow wr' of 'allow wr'",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"b4","caps":["mon","allow r"]}"#,
        "",
        -22,
        "bad entity name",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"foo.b4","caps":["mon","allow r"]}"#,
        "",
        -22,
        "bad entity name",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client","caps":["mon","allow r"]}"#,
        "",
        -22,
        "bad entity name",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b5","caps":["",""]}"#,
        "",
        -22,
        "unknown cap type ''",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b5","caps":["","allow r"]}"#,
        "",
        -22,
        "unknown cap type ''",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b6","caps":["mon","allow r"]}"#,
        "[client.b6]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        0,
        "",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b7"}"#,
        "[client.b7]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        0,
        "",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"client.b8"}"#,
        "[client.b9]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        0,
        "",
    ),
    (
        r#"{"prefix":"auth get-or-create-key","entity":"client.c1","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth get-or-create-key","entity":"client.c1","caps":["bogus","allow r"]}"#,
        "",
        -22,
        "unknown cap type 'bogus'",
    ),
    (
        r#"{"prefix":"auth get-or-create-key","entity":"client.c1","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d1","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d1","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d1","caps":["zzz","x"]}"#,
        "",
        -22,
        "unknown cap type 'zzz'",
    ),
    (
        r#"{"prefix":"auth add","entity":"nope","caps":["mon","allow r"]}"#,
        "",
        -22,
        "bad entity name",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2","caps":["mon","allow r"]}"#,
        "[client.d2]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        -22,
        "caps cannot be specified both in keyring and in command",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2"}"#,
        "[client.d3]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        -22,
        "key for client.d2 not found in provided keyring",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2"}"#,
        "[client.d2]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        0,
        "added key for client.d2",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2"}"#,
        "[client.d2]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        0,
        "",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2","caps":["mon","allow rw"]}"#,
        "",
        -22,
        "entity client.d2 exists but cap mon does not match",
    ),
    (r#"{"prefix":"auth add","entity":"client.d2","caps":["mon","allow r"]}"#, "", 0, ""),
    (
        r#"{"prefix":"auth add","entity":"client.d2"}"#,
        "",
        -22,
        "entity client.d2 exists but caps do not match",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2","caps":["mon","allow r"]}"#,
        "[client.d2]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n",
        0,
        "",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2","caps":["mon","allow r"]}"#,
        "[client.d2]\n\tkey = AQBkAAAAAAAAABAAqqurqqurqqurqqurqqurqw==\n",
        -17,
        "entity client.d2 exists but key does not match",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2","caps":["mon","allow r","osd","allow r"]}"#,
        "",
        -22,
        "entity client.d2 exists but caps do not match",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2","caps":["osd","allow r"]}"#,
        "",
        -22,
        "entity client.d2 exists but cap osd does not match",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2"}"#,
        "[client.d2]\n\tkey = AQBkAAAAAAAAABAAqqurqqurqqurqqurqqurqw==\n\tcaps mon = \"allow r\"\n",
        -17,
        "entity client.d2 exists but key does not match",
    ),
    (
        r#"{"prefix":"auth add","entity":"client.d2"}"#,
        "[client.a1]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow r\"\n",
        -22,
        "key for client.d2 not found in provided keyring",
    ),
    (r#"{"prefix":"auth add","entity":"nope","caps":["mon","bogus"]}"#, "", -22, "bad entity name"),
    (
        r#"{"prefix":"auth add","entity":"nope","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth get-or-create","entity":"nope","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth caps","entity":"nope","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (r#"{"prefix":"auth rm","entity":"nope"}"#, "", -22, "bad entity name"),
    (
        r#"{"prefix":"auth get-or-create-key","entity":"nope","caps":["mon","allow r"]}"#,
        "",
        -22,
        "bad entity name",
    ),
    (r#"{"prefix":"auth get-key","entity":"nope"}"#, "", -22, "invalid entity_auth nope"),
    (r#"{"prefix":"auth export","entity":"nope"}"#, "", -22, "invalid entity_auth nope"),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["mon","allow r","osd"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["xyz","allow r"]}"#,
        "",
        -22,
        "unknown cap type 'xyz'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":[]}"#,
        "",
        0,
        "updated caps for client.d2",
    ),
    (r#"{"prefix":"auth caps","entity":"client.d2"}"#, "", 0, "updated caps for client.d2"),
    (
        r#"{"prefix":"auth caps","entity":"client.none","caps":["mon","allow bogus"]}"#,
        "",
        -2,
        "couldn't find entry client.none",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.none","caps":["mon"]}"#,
        "",
        -22,
        "bad capabilities request; odd number of arguments",
    ),
    (
        r#"{"prefix":"auth caps","entity":"bad","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "bad entity name",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["osd","allow rwx pool=x y","mon","allow bogus"]}"#,
        "",
        -22,
        "osd capability parse failed, stopped at 'y' of 'allow rwx pool=x y'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["osd","allow rwx pool=x","mon","allow r","osd","bogus"]}"#,
        "",
        -22,
        "osd capability parse failed, stopped at 'bogus' of 'bogus'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["mon","allow r","auth","allow r"]}"#,
        "",
        -22,
        "unknown cap type 'auth'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["MON","allow r"]}"#,
        "",
        -22,
        "unknown cap type 'MON'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"mon.","caps":["mon","allow bogus"]}"#,
        "",
        -22,
        "mon capability parse failed, stopped at 'allow bogus' of 'allow bogus'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["mgr","profile rbd foo=1"]}"#,
        "",
        -22,
        "mgr capability parse failed during profile evaluation: profile 'rbd' does not recognize key 'foo'",
    ),
    (
        r#"{"prefix":"auth caps","entity":"client.d2","caps":["mds","allow r uid=x"]}"#,
        "",
        -22,
        "mds capability parse failed, stopped at 'uid=x' of 'allow r uid=x'",
    ),
    (
        r#"{"prefix":"auth import"}"#,
        "[client.e1]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps mon = \"allow bogus\"\n",
        0,
        "imported keyring",
    ),
    (
        r#"{"prefix":"auth import"}"#,
        "[client.e3]\n\tkey = AQBkAAAAAAAAABAAq6urq6urq6urq6urq6urqw==\n\tcaps xyz = \"allow r\"\n",
        0,
        "imported keyring",
    ),
    (r#"{"prefix":"auth get","entity":"bogus"}"#, "", -22, "invalid entity_auth bogus"),
    (
        r#"{"prefix":"auth get","entity":"client.none"}"#,
        "",
        -2,
        "failed to find client.none in keyring",
    ),
    (r#"{"prefix":"auth get-key","entity":"client.none"}"#, "", -2, "don't have client.none"),
    (r#"{"prefix":"auth print-key","entity":"bogus"}"#, "", -22, "invalid entity_auth bogus"),
    (r#"{"prefix":"auth rm","entity":"client.none"}"#, "", 0, "entity client.none does not exist"),
    (r#"{"prefix":"auth rm","entity":"bogus"}"#, "", -22, "bad entity name"),
    (r#"{"prefix":"auth del","entity":"client.none"}"#, "", 0, "entity client.none does not exist"),
    (
        r#"{"prefix":"auth get","entity":"client.b2"}"#,
        "",
        -2,
        "failed to find client.b2 in keyring",
    ),
    (
        r#"{"prefix":"auth get","entity":"client.b5"}"#,
        "",
        -2,
        "failed to find client.b5 in keyring",
    ),
];

#[test]
fn mistakes_are_answered_as_by_ceph() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    for (command, input, code, status) in ANSWERS {
        let ack = mon.command_with(id, command, input.as_bytes());
        assert_eq!((ack.r, ack.rs.as_str()), (*code, *status), "{command} {input}");
    }
}

/// Ceph has that one in the monitors' keyring file, and its database does not know it.
#[test]
fn the_monitors_own_entity_is_found_by_name_alone() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    for listing in [
        r#"{"prefix":"auth ls"}"#,
        r#"{"prefix":"auth ls","format":"json"}"#,
        r#"{"prefix":"auth export"}"#,
        r#"{"prefix":"auth export","format":"json"}"#,
    ] {
        let shown = mon.ok(id, listing);
        assert!(shown.contains("client.admin"), "{listing}");
        assert!(!shown.contains("mon.\n") && !shown.contains("\"mon.\""), "{listing}: {shown}");
        assert!(!shown.contains("[mon.]"), "{listing}: {shown}");
    }
    assert!(mon.ok(id, r#"{"prefix":"auth get","entity":"mon."}"#).starts_with("[mon.]\n\tkey = "));
    let key = mon.ok(id, r#"{"prefix":"auth get-key","entity":"mon."}"#);
    for (command, code, status) in [
        (
            r#"{"prefix":"auth export","entity":"mon."}"#,
            -2,
            "no key for auth(key=AAAAAAAAAAAAAAAA)",
        ),
        (r#"{"prefix":"auth rm","entity":"mon."}"#, 0, "entity mon. does not exist"),
    ] {
        let (r, rs, _) = mon.command(id, command);
        assert_eq!((r, rs.as_str()), (code, status), "{command}");
    }
    assert_eq!(mon.ok(id, r#"{"prefix":"auth get-key","entity":"mon."}"#), key);
}

#[test]
fn a_network_is_that_of_the_socket() {
    let mut mon = Mon::new(1);
    let caps = "allow r network 10.0.0.0/8";
    let (inside, outside) = ("v2:10.0.0.1:0/7", "v2:11.0.0.1:0/7");
    for (at, from, code) in [(outside, inside, 0), (inside, outside, -13)] {
        let id = mon.session_from("client.n", caps, at, from);
        assert_eq!(mon.command(id, r#"{"prefix":"osd dump"}"#).0, code, "{at} from {from}");
    }
}

/// As measured with 16.2.15.
#[test]
fn subscriptions_need_capabilities() {
    let wanted = [
        ("monmap", types::MON_MAP),
        ("config", types::CONFIG),
        ("mgrmap", types::MGR_MAP),
        ("osdmap", types::OSD_MAP),
    ];
    for (caps, expected) in [
        ("allow command foo", "monmap config"),
        ("allow service osd r, allow service log r", "monmap config"),
        ("allow service mon r", "monmap config mgrmap"),
        ("allow service mon r, allow service osd r", "monmap config mgrmap osdmap"),
    ] {
        let mut mon = Mon::new(1);
        let id = mon.session("client.s", caps);
        mon.take(id);
        mon.send(id, &subscribe(&wanted.map(|(what, _)| (what, 0, true))));
        let got: Vec<u16> = mon.take(id).iter().map(|m| m.header.type_).collect();
        let told = wanted.iter().filter(|(_, t)| got.contains(t)).map(|(what, _)| *what);
        assert_eq!(told.collect::<Vec<_>>().join(" "), expected, "{caps}");
    }
}
