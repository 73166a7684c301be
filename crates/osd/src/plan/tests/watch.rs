//! Tables: operations on watches and notifies, with Ceph's results.

use spirula_wire::Decode;
use spirula_wire::msg::ops::watch_op;
use spirula_wire::types::{EntityAddr, EntityName, ListWatchResponse, WatchItem};

use super::*;
use crate::watch::{WatchInfo, WatchKey, WatchState};

const NOTIFY_ID: u64 = 7 << 32;

fn me() -> EntityName {
    EntityName::client(4100)
}

fn addr() -> EntityAddr {
    "10.0.0.1:0/9".parse().unwrap()
}

fn key(cookie: u64) -> WatchKey {
    WatchKey { cookie, entity: me() }
}

fn info(timeout_seconds: u32) -> WatchInfo {
    WatchInfo { timeout_seconds, addr: addr() }
}

fn watch(op: u8, cookie: u64, timeout: u32) -> OsdOp {
    OsdOp::new(OpCode::WATCH, OpArgs::Watch { cookie, ver: 0, op, gen_: 0, timeout }, Bytes::new())
}

/// An object that this client watches with cookies 1, connected, and 2.
fn watched() -> Model {
    let mut m = Model::of("hello");
    let watchers = [(key(1), info(30)), (key(2), info(10))].into();
    m.info = m.info.map(|info| ObjectInfo { watchers, ..info });
    m
}

fn run(m: &mut Model, ops: &[OsdOp]) -> Executed {
    let connected = [key(1)];
    let caller = Caller { name: me(), addr: addr(), ..Caller::default() };
    let watch = WatchState { connected: &connected, notify_id: NOTIFY_ID };
    let may_write = crate::op::OpClass::of(ops).writes;
    let request = Request { ops, may_write, caller, watch, ..Request::default() };
    let Ok(done) = execute(&request, m);
    if let Some(change) = &done.change {
        m.info = change.info.clone();
    }
    done
}

fn cookies(m: &Model) -> Vec<u64> {
    m.info.iter().flat_map(|i| i.watchers.keys().map(|k| k.cookie)).collect()
}

#[test]
fn watches_come_and_go_without_a_new_version() {
    use WatchEffect::{Connect, Ping, Remove};
    use watch_op::*;
    let connect = |cookie, timeout, pings| Connect { key: key(cookie), info: info(timeout), pings };
    let removed = |cookie| Remove { key: key(cookie), tell: false };
    // Operation, result, effect, cookies afterwards; nothing but the info is written, if even that.
    let table = [
        (watch(WATCH, 3, 0), 0, Some(connect(3, 30, true)), vec![1, 2, 3], true),
        (watch(WATCH, 3, 5), 0, Some(connect(3, 5, true)), vec![1, 2, 3], true),
        (watch(LEGACY_WATCH, 3, 0), 0, Some(connect(3, 30, false)), vec![1, 2, 3], true),
        (watch(WATCH, 1, 5), 0, Some(connect(1, 5, true)), vec![1, 2], false),
        (watch(RECONNECT, 2, 0), 0, Some(connect(2, 30, true)), vec![1, 2], false),
        (watch(RECONNECT, 3, 0), -ENOTCONN, None, vec![1, 2], false),
        (watch(PING, 1, 0), 0, Some(Ping(key(1))), vec![1, 2], false),
        (watch(PING, 2, 0), -ETIMEDOUT, None, vec![1, 2], false),
        (watch(PING, 3, 0), -ENOTCONN, None, vec![1, 2], false),
        (watch(UNWATCH, 2, 0), 0, Some(removed(2)), vec![1], true),
        (watch(UNWATCH, 3, 0), 0, None, vec![1, 2], false),
        (watch(9, 1, 0), 0, None, vec![1, 2], false),
    ];
    for (op, result, effect, after, changes) in table {
        let mut m = watched();
        let done = run(&mut m, std::slice::from_ref(&op));
        assert_eq!((done.result, done.watching), (result, Vec::from_iter(effect)), "{op:?}");
        assert_eq!(cookies(&m), after, "{op:?}");
        assert_eq!(done.change.is_some(), changes, "{op:?}");
        let untouched = |c: &Change| c.effects.is_empty() && !c.user_modify;
        assert!(done.change.iter().all(untouched), "{op:?}");
    }
    let absent = run(&mut Model::default(), &[watch(WATCH, 1, 0)]);
    assert_eq!((absent.result, absent.watching), (-ENOENT, vec![]));
    let made = run(&mut Model::default(), &[plain(OpCode::CREATE), watch(WATCH, 1, 0)]);
    assert_eq!((made.result, made.watching), (0, vec![connect(1, 30, true)]));
}

#[test]
fn a_failed_list_touches_no_watch() {
    let mut m = watched();
    let done = run(&mut m, &[watch(watch_op::UNWATCH, 1, 0), plain(OpCode::MASKTRUNC)]);
    assert_eq!((done.result, done.watching, cookies(&m)), (-EOPNOTSUPP, vec![], vec![1, 2]));
}

#[test]
fn a_deleted_object_tells_its_watchers() {
    let mut m = watched();
    let done = run(&mut m, &[watch(watch_op::WATCH, 3, 0), plain(OpCode::DELETE)]);
    let told = |cookie| WatchEffect::Remove { key: key(cookie), tell: true };
    assert_eq!(done.watching, [told(1), told(2), told(3)]);
    let made_anew = run(&mut watched(), &[plain(OpCode::DELETE), plain(OpCode::CREATE)]);
    assert!(made_anew.change.unwrap().info.unwrap().watchers.is_empty());
    let written = run(&mut watched(), &[write_full("x")]);
    assert_eq!(written.change.unwrap().info.unwrap().watchers.len(), 2);
}

#[test]
fn notifies_get_ids_and_defaults() {
    let input = |timeout: u32, payload: &str| {
        let mut raw = 1u32.to_bytes(F);
        timeout.encode(&mut raw, F);
        payload.to_owned().encode(&mut raw, F);
        OsdOp::new(OpCode::NOTIFY, OpArgs::Notify { cookie: 5 }, raw.into())
    };
    let short = OsdOp::new(OpCode::NOTIFY, OpArgs::Notify { cookie: 5 }, "abc".into());
    let done = run(&mut watched(), &[input(2, "a"), input(0, "b"), short]);
    let notify = |n, timeout_seconds, payload: &str| WatchEffect::Notify {
        id: NOTIFY_ID + n,
        cookie: 5,
        timeout_seconds,
        payload: payload.to_owned().into(),
    };
    assert_eq!(done.watching, [notify(0, 2, "a"), notify(1, 30, "b"), notify(2, 30, "")]);
    let ids: Vec<_> = done.outputs.iter().map(|o| u64::from_bytes(&o.outdata.concat())).collect();
    assert_eq!(ids, [Ok(NOTIFY_ID), Ok(NOTIFY_ID + 1), Ok(NOTIFY_ID + 2)]);
}

#[test]
fn acknowledgements_have_an_old_and_a_new_form() {
    let raw = |fields: &[u64], reply: Option<&str>| {
        let mut raw = fields.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>();
        reply.inspect(|reply| (*reply).to_owned().encode(&mut raw, F));
        let mut args = [0; 28];
        args[..8].copy_from_slice(&44u64.to_le_bytes());
        OsdOp::new(OpCode::NOTIFY_ACK, OpArgs::Raw(args), raw.into())
    };
    let ack = |id, cookie, reply: &str| WatchEffect::Acknowledge {
        id,
        cookie,
        reply: reply.to_owned().into(),
    };
    let table = [
        (raw(&[8, 1], Some("yes")), ack(8, Some(1), "yes")),
        (raw(&[8, 1], None), ack(8, Some(1), "")),
        (raw(&[8], None), ack(44, None, "")),
        (raw(&[], None), ack(44, None, "")),
    ];
    for (op, effect) in table {
        let done = run(&mut watched(), std::slice::from_ref(&op));
        assert_eq!((done.result, done.watching), (0, vec![effect]), "{op:?}");
    }
}

/// What an OSD of Ceph 16.2.15 answered.
#[test]
fn a_watcher_is_listed_in_ceph_s_form() {
    let entity = EntityName::client(4448);
    let key = WatchKey { cookie: 94010200238720, entity };
    let info = WatchInfo { timeout_seconds: 30, addr: "127.0.0.1:0/321962736".parse().unwrap() };
    let mut m = Model::of("");
    m.info = m.info.map(|o| ObjectInfo { watchers: [(key, info)].into(), ..o });
    let done = run(&mut m, &[plain(OpCode::LIST_WATCHERS)]);
    let hex: String = done.outputs[0].outdata.concat().iter().map(|b| format!("{b:02x}")).collect();
    let captured = "01014200000001000000\
        0201380000000860110000000000\
        00802a9774805500001e000000\
        0101011c00000003000000f0c23013\
        10000000020000007f0000010000000000000000";
    assert_eq!(hex, captured);
}

#[test]
fn watchers_are_listed_by_cookie() {
    let done = run(&mut watched(), &[plain(OpCode::LIST_WATCHERS)]);
    let item =
        |cookie, timeout_seconds| WatchItem { name: me(), cookie, timeout_seconds, addr: addr() };
    let listed = ListWatchResponse::from_bytes(&done.outputs[0].outdata.concat());
    assert_eq!(listed, Ok(ListWatchResponse { entries: vec![item(1, 30), item(2, 10)] }));
}
