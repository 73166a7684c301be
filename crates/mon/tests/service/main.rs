//! The service with sessions in memory: what clients, OSDs and managers see of a monitor.

mod auth;
mod config;
mod crush;
mod failure;
mod full;
mod harness;
mod kinds;
mod map_trim;
mod osd_remove;
mod pg_place;
mod pools;
mod prime;

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_maps::{Incremental, MgrMap, MonMap, OsdMap, PgMapDigest};
use spirula_mon::State;
use spirula_wire::msg::command::{Command, CommandReply, Ping};
use spirula_wire::msg::mgr::{MgrMapMsg, MonMgrReport};
use spirula_wire::msg::mon::{
    Config, GetPoolStats, GetPoolStatsReply, Log, MonCommand, MonCommandAck, MonGetMap,
    MonGetVersion, MonGetVersionReply, MonMapMsg, PoolOp, PoolOpReply, Statfs, StatfsReply,
    pool_op,
};
use spirula_wire::msg::osd::{OsdBeacon, OsdFailure, OsdMapMsg, OsdMarkMeDown};
use spirula_wire::msg::types;
use spirula_wire::types::{PoolStat, Uuid};
use spirula_wire::{Decode, Encode, Message, RawMessage};

use harness::*;

#[test]
fn a_client_starts_as_measured() {
    let mut mon = Mon::new(3);
    let id = mon.admin();
    mon.send(id, &MonGetMap {});
    mon.send(id, &subscribe(&[("config", 0, false), ("monmap", 0, false)]));
    let got = mon.take(id);
    assert_eq!(types_of(&got), [types::MON_MAP, types::CONFIG, types::MON_MAP]);
    let monmap = MonMap::from_bytes(&MonMapMsg::from_raw(&got[0]).unwrap().monmap).unwrap();
    assert_eq!((monmap.epoch, monmap.fsid), (1, FSID));
    assert_eq!(Config::from_raw(&got[1]).unwrap().config, BTreeMap::new());

    mon.send(id, &subscribe(&[("mgrmap", 0, false)]));
    let mgrmap: MgrMapMsg = mon.take_one(id);
    assert_eq!(MgrMap::from_bytes(&mgrmap.map).unwrap().active_gid, 0);

    mon.send(id, &subscribe(&[("osdmap", 0, true)]));
    let maps: OsdMapMsg = mon.take_one(id);
    assert_eq!((maps.oldest_map, maps.newest_map), (1, 1));
    let map = OsdMap::from_bytes(&maps.maps[&1]).unwrap();
    assert_eq!((map.epoch, map.pool_by_name("rbd"), map.max_osd()), (1, Some(1), 3));

    // One-time: the next epoch is not sent.
    mon.boot(0);
    assert!(!types_of(&mon.take(id)).contains(&types::OSD_MAP));
    let (_, _, descriptions) = mon.command(id, r#"{"prefix":"get_command_descriptions"}"#);
    assert!(descriptions.starts_with(r#"{"cmd000":{"sig":["fsid"],"help":"#), "{descriptions:.80}");
}

#[test]
fn osds_boot_and_everybody_hears_of_it() {
    let mut mon = Mon::new(2);
    let client = mon.admin();
    mon.send(client, &subscribe(&[("osdmap", 0, false)]));
    let first: OsdMapMsg = mon.take_one(client);
    let mut map = OsdMap::from_bytes(&first.maps[&1]).unwrap();

    mon.boot(0);
    mon.boot(1);
    for raw in mon.take(client) {
        let maps = OsdMapMsg::from_raw(&raw).unwrap();
        for inc in maps.incremental_maps.values() {
            let inc = Incremental::from_bytes(inc).unwrap();
            map.apply(&inc).unwrap();
            assert_eq!(map.encode_with_crc(F).1, inc.full_crc);
        }
    }
    assert_eq!(map.epoch, 3);
    assert!(map.is_up(0) && map.is_up(1) && map.is_in(0));
    assert_eq!(map.client_addrs(1).unwrap().to_string(), "v2:127.0.0.1:7001/1");
    assert_eq!(map.last_up_change, START.into());

    // The same boot again changes nothing; a new process of the same OSD goes down and up.
    mon.boot(1);
    assert_eq!(mon.map().epoch, 3);
    let again = mon.session_at("osd.1", "allow profile osd", "v2:127.0.0.1:7001/2");
    mon.send(again, &boot_message(1));
    assert_eq!(mon.map().epoch, 5);
    assert_eq!(mon.map().osd(1).unwrap().info.up_from, 5);

    // Wrong uuid, wrong cluster, another's id: refused.
    let stranger = mon.session_at("osd.1", "allow profile osd", "v2:127.0.0.1:7001/3");
    let mut wrong = boot_message(1);
    wrong.sb.osd_fsid = Uuid([99; 16]);
    mon.send(stranger, &wrong);
    mon.send(stranger, &boot_message(0));
    assert_eq!(mon.map().epoch, 5);
}

#[test]
fn an_osd_that_stops_or_falls_silent_is_marked_down() {
    let mut mon = Mon::new(3);
    let sessions: Vec<u64> = (0..3).map(|n| mon.boot(n)).collect();
    let stop = OsdMarkMeDown {
        fsid: FSID,
        target_osd: 0,
        target_addrs: addr("v2:127.0.0.1:7000/1"),
        request_ack: true,
        ..OsdMarkMeDown::default()
    };
    mon.send(sessions[0], &stop);
    assert!(!mon.take_one::<OsdMarkMeDown>(sessions[0]).request_ack);
    assert!(!mon.map().is_up(0));

    // A lost session counts after the heartbeat grace, not before.
    mon.service.session_closed(mon.now, sessions[1]);
    mon.pass(19);
    assert!(mon.map().is_up(1));
    mon.pass(3);
    assert!(!mon.map().is_up(1));

    // A peer that knows for certain is believed at once.
    let reporter = mon.boot(0);
    let report = OsdFailure {
        fsid: FSID,
        target_osd: 2,
        target_addrs: addr("v2:127.0.0.1:7002/1"),
        flags: OsdFailure::FAILED | OsdFailure::IMMEDIATE,
        ..OsdFailure::default()
    };
    mon.send(reporter, &report);
    assert!(!mon.map().is_up(2));
    assert!(mon.map().is_in(2), "down is not out");

    // Without beacons for longer than the report timeout.
    mon.send(reporter, &OsdBeacon::default());
    mon.pass(890);
    assert!(mon.map().is_up(0));
    mon.pass(20);
    assert!(!mon.map().is_up(0));
}

#[test]
fn a_pool_is_acknowledged_after_its_commit_only() {
    let mut mon = Mon::new(1);
    mon.boot(0);
    let id = mon.admin();
    let epoch = mon.map().epoch;
    mon.stalled = true;
    let create = r#"{"prefix":"osd pool create","pool":"p1","pg_num":16}"#;
    let message = MonCommand { fsid: FSID, cmd: vec![create.into()], ..MonCommand::default() };
    mon.send(id, &message);
    // A read is answered meanwhile, from the state before; a second write waits.
    assert_eq!(mon.ok(id, r#"{"prefix":"osd pool ls"}"#), "rbd\n");
    let second = MonCommand { cmd: vec![create.replace("p1", "p2")], ..message };
    mon.send(id, &second);
    assert_eq!(mon.take(id), []);
    mon.unstall();
    let acks: Vec<MonCommandAck> =
        mon.take(id).iter().map(|raw| MonCommandAck::from_raw(raw).unwrap()).collect();
    let said: Vec<(&str, u64)> = acks.iter().map(|a| (a.rs.as_str(), a.paxos.version)).collect();
    let epoch = u64::from(epoch);
    assert_eq!(said, [("pool 'p1' created", epoch + 1), ("pool 'p2' created", epoch + 2)]);
    assert_eq!(mon.ok(id, create), "pool 'p1' already exists");
    let (id1, pool) = mon.map().pools.iter().nth(1).unwrap();
    assert_eq!((*id1, pool.pg_num, pool.size), (2, 16, 1));
}

#[test]
fn what_was_acknowledged_survives_a_restart() {
    let mut mon = Mon::new(2);
    mon.boot(0);
    let id = mon.admin();
    mon.ok(id, r#"{"prefix":"osd pool create","pool":"p1"}"#);
    mon.ok(id, r#"{"prefix":"auth get-or-create","entity":"client.x","caps":["mon","allow r"]}"#);
    mon.ok(id, r#"{"prefix":"config set","who":"client","name":"rbd_cache","value":"0"}"#);
    mon.ok(id, r#"{"prefix":"config-key set","key":"a/b","val":"c"}"#);
    mon.ok(id, r#"{"prefix":"log","logtext":["hello"]}"#);
    let before = mon.service.state().to_bytes(F);
    let mon = mon.restart();
    let state = mon.service.state();
    assert_eq!(State::from_bytes(&before).unwrap().osd.epoch(), state.osd.epoch());
    assert!(state.osd.map().pool_by_name("p1").is_some());
    assert!(state.auth.get(&"client.x".parse().unwrap()).is_some());
    assert_eq!(state.keys["a/b"], Bytes::from_static(b"c"));
    assert!(state.log.entries().any(|e| e.msg == "hello"));

    // Through many proposals, snapshots included.
    let mut mon = mon;
    let id = mon.admin();
    for n in 0..1200 {
        mon.ok(id, &format!(r#"{{"prefix":"config-key set","key":"k","val":"{n}"}}"#));
    }
    let mon = mon.restart();
    assert_eq!(mon.service.state().keys["k"], Bytes::from_static(b"1199"));
}

#[test]
fn capabilities_are_enforced() {
    let mut mon = Mon::new(1);
    let reader = mon.session("client.ro", "allow r");
    assert_eq!(mon.command(reader, r#"{"prefix":"osd ls"}"#).0, 0);
    let denied = mon.command(reader, r#"{"prefix":"osd pool create","pool":"p1"}"#);
    assert_eq!((denied.0, denied.1.as_str()), (-13, "access denied"));
    assert_eq!(mon.command(reader, r#"{"prefix":"auth ls"}"#).0, -13);
    let none = mon.session("client.none", "profile bootstrap-osd");
    assert_eq!(mon.command(none, r#"{"prefix":"auth ls"}"#).0, -13);
    mon.send(none, &subscribe(&[("osdmap", 0, false), ("mgrmap", 0, false)]));
    assert!(mon.take(none).len() <= 2);

    let op = PoolOp { fsid: FSID, op: pool_op::CREATE, name: "p9".into(), ..PoolOp::default() };
    mon.send(reader, &op);
    assert_eq!(mon.take_one::<PoolOpReply>(reader).reply_code, -1);
    // A client may not boot an OSD nor pose as a manager.
    let epoch = mon.map().epoch;
    let admin = mon.admin();
    mon.send(admin, &boot_message(0));
    mon.send(admin, &beacon(1));
    assert_eq!(mon.map().epoch, epoch);
    assert_eq!(mon.service.state().mgr.map().active_gid, 0);
}

#[test]
fn pool_ops_and_versions() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    let op = PoolOp { fsid: FSID, op: pool_op::CREATE, name: "p1".into(), ..PoolOp::default() };
    mon.send(id, &op);
    let reply: PoolOpReply = mon.take_one(id);
    assert_eq!((reply.reply_code, reply.epoch), (0, mon.map().epoch));
    mon.send(id, &PoolOp { op: pool_op::DELETE, pool: 2, ..op });
    assert_eq!(mon.take_one::<PoolOpReply>(id).reply_code, 0);
    assert_eq!(mon.map().pool_by_name("p1"), None);

    mon.send(id, &MonGetVersion { handle: 5, what: "osdmap".into() });
    let version: MonGetVersionReply = mon.take_one(id);
    assert_eq!((version.handle, version.version), (5, mon.map().epoch.into()));
}

#[test]
fn a_manager_becomes_active_reports_and_is_replaced() {
    let mut mon = Mon::new(1);
    mon.boot(0);
    let client = mon.admin();
    mon.send(client, &subscribe(&[("mgrmap", 0, false)]));
    mon.take(client);
    let mgr = mon.manager();
    let map = MgrMap::from_bytes(&mon.take_one::<MgrMapMsg>(client).map).unwrap();
    assert_eq!((map.active_gid, map.active_name.as_str(), map.available), (4711, "x", true));

    let mut digest = PgMapDigest { num_pg: 8, num_pg_active: 8, ..PgMapDigest::default() };
    digest.osd_sum.statfs.total = 1 << 30;
    digest.osd_sum.statfs.available = 1 << 29;
    let mut stat = PoolStat::default();
    stat.stats.sum.num_objects = 3;
    digest.pg_pool_sum.insert(1, stat);
    digest.num_pg_by_state.insert(6, 8);
    let report =
        MonMgrReport { digest: digest.to_bytes(F).into(), gid: 4711, ..MonMgrReport::default() };
    mon.send(mgr, &report);
    mon.send(client, &Statfs { fsid: FSID, ..Statfs::default() });
    let statfs: StatfsReply = mon.take_one(client);
    assert_eq!((statfs.kb, statfs.kb_avail), (1 << 20, 1 << 19));
    mon.send(
        client,
        &GetPoolStats {
            fsid: FSID,
            pools: vec!["rbd".into(), "nope".into()],
            ..Default::default()
        },
    );
    let stats: GetPoolStatsReply = mon.take_one(client);
    assert_eq!(stats.pool_stats["rbd"].stats.sum.num_objects, 3);
    assert_eq!(stats.pool_stats.len(), 1);
    let status = mon.ok(client, r#"{"prefix":"status"}"#);
    assert!(status.contains("pgs:     8 active+clean\n"), "{status}");
    assert!(status.contains("health: HEALTH_OK\n"), "{status}");

    mon.pass(32);
    assert_eq!(mon.service.state().mgr.map().active_gid, 0);
    assert!(mon.ok(client, r#"{"prefix":"health"}"#).contains("no active mgr"));
}

#[test]
fn options_reach_whom_they_concern() {
    let mut mon = Mon::new(1);
    let admin = mon.admin();
    let client = mon.session("client.vm", "allow r");
    mon.send(client, &subscribe(&[("config", 0, false)]));
    mon.take(client);
    mon.ok(
        admin,
        r#"{"prefix":"config set","who":"client.vm","name":"rbd_cache","value":"false"}"#,
    );
    let config: Config = mon.take_one(client);
    assert_eq!(config.config, [("rbd_cache".to_owned(), "false".to_owned())].into());
    // The monitor itself listens too.
    let refused = r#"{"prefix":"osd pool create","pool":"big","pg_num":64}"#;
    mon.ok(
        admin,
        r#"{"prefix":"config set","who":"mon","name":"mon_max_pool_pg_num","value":"32"}"#,
    );
    assert_eq!(mon.command(admin, refused).0, -34);
    mon.ok(admin, r#"{"prefix":"config rm","who":"mon","name":"mon_max_pool_pg_num"}"#);
    assert_eq!(mon.command(admin, refused).0, 0);
    let (r, rs, _) =
        mon.command(admin, r#"{"prefix":"config set","who":"global","name":"nope","value":"1"}"#);
    assert_eq!((r, rs.as_str()), (-22, "unrecognized config option 'nope'"));
}

#[test]
fn the_log_is_followed() {
    let mut mon = Mon::new(1);
    let (admin, watcher) = (mon.admin(), mon.admin());
    mon.send(watcher, &subscribe(&[("log-info", 0, false)]));
    mon.take(watcher);
    mon.ok(admin, r#"{"prefix":"log","logtext":["hello","world"]}"#);
    let log: Log = mon.take_one(watcher);
    assert_eq!(log.entries.last().unwrap().msg, "hello world");
    assert_eq!(log.paxos.version, mon.service.state().log.version);
    let (_, _, out) = mon.command(admin, r#"{"prefix":"log last","num":1}"#);
    assert!(out.ends_with(" client.admin (client.?) 0 : cluster [INF] hello world\n"), "{out}");
    let (_, _, audit) = mon.command(admin, r#"{"prefix":"log last","num":1,"channel":"audit"}"#);
    assert!(audit.contains("entity='client.admin' cmd='[{\"prefix\":\"log\""), "{audit}");
}

#[test]
fn auth_commands_print_as_in_ceph() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    let create = r#"{"prefix":"auth get-or-create","entity":"client.ro","caps":["mon","allow r","osd","allow r pool=p1"]}"#;
    let text = mon.ok(id, create);
    assert!(text.starts_with("[client.ro]\n\tkey = ") && text.lines().count() == 2, "{text}");
    assert_eq!(mon.ok(id, create), text);
    let (r, rs, _) = mon.command(
        id,
        r#"{"prefix":"auth get-or-create","entity":"client.ro","caps":["mon","allow rw"]}"#,
    );
    assert_eq!((r, rs.as_str()), (-22, "key for client.ro exists but cap mon does not match"));
    let (r, rs, _) =
        mon.command(id, r#"{"prefix":"auth add","entity":"client.z","caps":["mon","foo bar"]}"#);
    assert_eq!(
        (r, rs.as_str()),
        (-22, "mon capability parse failed, stopped at 'foo bar' of 'foo bar'")
    );
    let exported = mon.ok(id, r#"{"prefix":"auth export","entity":"client.ro"}"#);
    assert!(
        exported.ends_with("\tcaps mon = \"allow r\"\n\tcaps osd = \"allow r pool=p1\"\n"),
        "{exported}"
    );
    mon.ok(id, r#"{"prefix":"auth rm","entity":"client.ro"}"#);
    let keyring = b"[client.ro]\n\tkey = AQBSZwJrv5E1MRAARicQ7deYL0lxtnNqjRQdVw==\n\tcaps mon = \"allow r\"\n";
    let ack = mon.command_with(id, r#"{"prefix":"auth import"}"#, keyring);
    assert_eq!((ack.r, ack.rs.as_str()), (0, "imported keyring"));
    assert_eq!(
        mon.ok(id, r#"{"prefix":"auth get-key","entity":"client.ro"}"#),
        "AQBSZwJrv5E1MRAARicQ7deYL0lxtnNqjRQdVw=="
    );
}

#[test]
fn blocklist_flags_and_old_epochs() {
    let mut mon = Mon::new(2);
    mon.boot(0);
    mon.boot(1);
    let id = mon.admin();
    let said = mon.ok(
        id,
        r#"{"prefix":"osd blocklist","blocklistop":"add","addr":"1.2.3.4:5/6","expire":60.0}"#,
    );
    assert!(
        said.starts_with("blocklisting 1.2.3.4:5/6 until ") && said.ends_with(" (60 sec)"),
        "{said}"
    );
    assert!(mon.ok(id, r#"{"prefix":"osd blocklist ls"}"#).starts_with("1.2.3.4:5/6 "));
    let range = |op: &str, addr: &str| {
        format!(
            r#"{{"prefix":"osd blocklist","range":"range","blocklistop":"{op}","addr":"{addr}","expire":60.0}}"#
        )
    };
    let said = mon.ok(id, &range("add", "10.1.0.0/16"));
    assert!(said.starts_with("blocklisting cidr:10.1.0.0:0/16 until "), "{said}");
    mon.ok(id, &range("add", "[2001:db8::]:0/32"));
    assert!(
        mon.ok(id, r#"{"prefix":"osd dump"}"#).contains("\nrange blocklist cidr:10.1.0.0:0/16 ")
    );
    let listed = mon.command(id, r#"{"prefix":"osd blocklist ls","format":"json"}"#);
    assert_eq!(listed.1, "listed 3 entries");
    assert!(listed.2.contains(r#"][{"range":"10.1.0.0:0/16","until":"#), "{}", listed.2);
    let bits = "Too many bits in range for that protocol!".to_owned();
    assert_eq!(mon.command(id, &range("add", "10.1.0.0:0/33")), (-22, bits, String::new()));
    let plain = "You specified a range command, but v2:10.1.0.0:0/0 does not parse as a CIDR range";
    assert_eq!(mon.command(id, &range("add", "10.1.0.0")).1, plain);
    assert_eq!(mon.ok(id, &range("rm", "10.2.0.0/16")), "cidr:10.2.0.0:0/16 isn't blocklisted");
    assert_eq!(mon.ok(id, &range("rm", "10.1.0.0/16")), "un-blocklisting cidr:10.1.0.0:0/16");
    mon.pass(62);
    assert!(mon.map().blocklist.is_empty(), "bans run out");
    assert!(mon.map().range_blocklist.is_empty(), "of networks too");
    assert_eq!(mon.ok(id, r#"{"prefix":"osd set","key":"noout"}"#), "noout is set");
    assert_eq!(mon.ok(id, r#"{"prefix":"health"}"#), "HEALTH_WARN noout flag(s) set\n");
    assert_eq!(mon.ok(id, r#"{"prefix":"osd out","ids":["1"]}"#), "marked out osd.1. ");
    assert_eq!(mon.ok(id, r#"{"prefix":"osd out","ids":["1"]}"#), "osd.1 is already out. ");
    let old = mon.ok(id, r#"{"prefix":"osd dump","epoch":4}"#);
    assert!(
        old.starts_with("epoch 4\n") && old.contains("blocklist 1.2.3.4:5/6 expires "),
        "{old}"
    );
    let (r, rs, _) = mon.command(id, r#"{"prefix":"osd dump","epoch":99}"#);
    assert_eq!((r, rs.as_str()), (-2, "there is no map for epoch 99"));
}

/// As `monmaptool --print` and `osdmaptool --print` (16.2.15) print the same maps.
#[test]
fn a_single_address_has_no_brackets() {
    let mut mon = Mon::new(1);
    mon.boot(0);
    let id = mon.admin();
    let monmap = mon.ok(id, r#"{"prefix":"mon dump"}"#);
    assert!(monmap.contains("\n0: v2:") && !monmap.contains('['), "{monmap}");
    assert!(mon.ok(id, r#"{"prefix":"mon stat"}"#).contains("{a=v2:"));
    let osdmap = mon.ok(id, r#"{"prefix":"osd dump"}"#);
    assert!(osdmap.contains(") v2:") && !osdmap.contains("[v2:"), "{osdmap}");
}

#[test]
fn a_subscriber_far_behind_gets_all_increments() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    for n in 0..150 {
        let key = if n % 2 == 0 { "set" } else { "unset" };
        mon.ok(id, &format!(r#"{{"prefix":"osd {key}","key":"noin"}}"#));
    }
    mon.take(id);
    mon.send(id, &subscribe(&[("osdmap", 2, false)]));
    let mut next = 2;
    for raw in mon.take(id) {
        for epoch in OsdMapMsg::from_raw(&raw).unwrap().incremental_maps.into_keys() {
            assert_eq!(epoch, next);
            next += 1;
        }
    }
    assert_eq!(next, mon.map().epoch + 1);
    // Any kept epoch can be had whole, also one between the kept full maps.
    let ack = mon.command_with(id, r#"{"prefix":"osd getmap","epoch":77}"#, b"");
    assert_eq!(OsdMap::from_bytes(&ack.outbl).unwrap().epoch, 77);
}

#[test]
fn unknown_and_hostile_input() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    let (r, rs, _) = mon.command(id, r#"{"prefix":"osd pol ls"}"#);
    assert_eq!(r, -22);
    assert!(rs.starts_with("no valid command found; 10 closest matches:\nosd stat\n"), "{rs}");
    assert_eq!(mon.command(id, "not json").0, -22);
    assert_eq!(mon.command(id, r#"{"prefix":7}"#).0, -22);
    assert_eq!(mon.command(id, r#"{"prefix":"osd find","id":-1}"#).0, -22);
    assert_eq!(mon.command(id, r#"{"prefix":"status","format":"xml"}"#).0, -22);
    mon.service.message(
        mon.now,
        id,
        RawMessage {
            header: spirula_wire::Header {
                type_: types::MON_COMMAND,
                version: 1,
                ..Default::default()
            },
            ..RawMessage::default()
        },
    );
    mon.pump();
    assert_eq!(mon.closed, [id], "an undecodable message ends the session");
}

#[test]
fn tell_and_ping() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    let tell = |json: &str| Command { fsid: FSID, cmd: vec![json.into()], ..Command::default() };
    mon.send(id, &tell(r#"{"prefix":"version"}"#));
    let reply: CommandReply = mon.take_one(id);
    assert!(reply.r == 0 && reply.outbl.starts_with(b"{\n    \"version\": \"16.2.15\""));
    mon.send(id, &tell(r#"{"prefix":"get_command_descriptions"}"#));
    assert!(mon.take_one::<CommandReply>(id).outbl.starts_with(b"{\"cmd000\""));
    mon.send(id, &tell(r#"{"prefix":"config set","var":"debug_mon","val":["20"]}"#));
    mon.take(id);
    mon.send(id, &tell(r#"{"prefix":"config get","var":"debug_mon","format":"json"}"#));
    assert_eq!(mon.take_one::<CommandReply>(id).outbl, r#"{"debug_mon":"20/20"}"#);
    let mut check = |json: &str, want: (i32, &str, &str)| {
        mon.send(id, &tell(json));
        let reply: CommandReply = mon.take_one(id);
        let out = String::from_utf8_lossy(&reply.outbl).into_owned();
        assert_eq!((reply.r, reply.rs.as_str(), out.as_str()), want, "{json}");
    };
    check(r#"{"prefix":"config unset","var":"debug_mon"}"#, (0, "", "{}\n"));
    check(r#"{"prefix":"injectargs","injected_args":["--debug_ms=1"]}"#, (0, "", "{}\n"));
    let absent = "error setting 'nope' to '1': (2) No such file or directory";
    check(r#"{"prefix":"config set","var":"nope","val":["1"]}"#, (-2, absent, ""));
    let invalid = "error setting 'debug_ms' to 'loud': (22) Invalid argument";
    check(r#"{"prefix":"config set","var":"debug_ms","val":["loud"]}"#, (-22, invalid, ""));
    let unset = "error unsetting 'nope': (22) Invalid argument";
    check(r#"{"prefix":"config unset","var":"nope"}"#, (-22, unset, ""));
    check(r#"{"prefix":"config help","var":"nope"}"#, (-2, "Setting not found: 'nope'", ""));
    mon.send(id, &tell(r#"{"prefix":"log flush","format":"json"}"#));
    assert_eq!(mon.take_one::<CommandReply>(id).outbl, "{}");
    assert_eq!(mon.log, ["levels", "levels", "levels", "log flush"]);
    let weak = mon.session("client.weak", "allow r");
    mon.send(weak, &tell(r#"{"prefix":"log dump"}"#));
    assert_eq!(mon.take_one::<CommandReply>(weak).r, -13);
    assert_eq!(mon.log.len(), 4, "what was refused is not done");
    mon.send(id, &Ping::default());
    assert!(!mon.take_one::<Ping>(id).payload.is_empty());
}
