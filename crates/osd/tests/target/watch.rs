//! Watches and notifies through sessions, restarts, deletes and maps that blocklist.

use std::time::Duration;

use spirula_wire::msg::ops::{OpArgs, OpCode, watch_op};
use spirula_wire::msg::osd::{WatchNotify, watch_event};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::msg::types;
use spirula_wire::types::ListWatchResponse;
use spirula_wire::{Decode, Encode};
use spirula_xstream::sleep;

use crate::support::{Client, Cluster, F, Op};

const ENOTCONN: i32 = -107;
const ETIMEDOUT: i32 = -110;

fn watch(op: u8, cookie: u64, timeout: u32) -> OsdOp {
    Op::with(OpCode::WATCH, OpArgs::Watch { cookie, ver: 0, op, gen_: 0, timeout }, "")
}

fn notify(timeout: u32, payload: &str) -> OsdOp {
    let mut input = 1u32.to_bytes(F);
    timeout.encode(&mut input, F);
    payload.to_owned().encode(&mut input, F);
    OsdOp::new(OpCode::NOTIFY, OpArgs::Notify { cookie: 500 }, input.into())
}

fn ack(event: &WatchNotify, reply: &str) -> OsdOp {
    let mut input = event.notify_id.to_bytes(F);
    event.cookie.encode(&mut input, F);
    reply.to_owned().encode(&mut input, F);
    OsdOp::new(OpCode::NOTIFY_ACK, OpArgs::default(), input.into())
}

/// Acknowledged and missed watches of a finished notify, by cookie.
fn outcome(event: &WatchNotify) -> (Vec<(u64, String)>, Vec<u64>) {
    assert_eq!(event.opcode, watch_event::NOTIFY_COMPLETE);
    type Acks = std::collections::BTreeMap<(u64, u64), bytes::Bytes>;
    let mut r = spirula_wire::Reader::new(&event.acks);
    let acks = Acks::decode(&mut r).unwrap();
    let missed = Vec::<(u64, u64)>::decode(&mut r).unwrap();
    let text = |raw: &bytes::Bytes| String::from_utf8_lossy(raw).into_owned();
    let acks = acks.iter().map(|((_, cookie), reply)| (*cookie, text(reply))).collect();
    (acks, missed.iter().map(|(_, cookie)| *cookie).collect())
}

async fn cookies(c: &mut Client) -> Vec<u64> {
    let reply = c.op("o", &[Op::plain(OpCode::LIST_WATCHERS)]).await;
    let raw = reply.ops[0].outdata.concat();
    ListWatchResponse::from_bytes(&raw).unwrap().entries.iter().map(|e| e.cookie).collect()
}

#[test]
fn watchers_are_told_and_their_answers_come_back() {
    let cluster = Cluster::start(41);
    cluster.client(async |c| {
        assert_eq!(c.op("o", &[watch(watch_op::WATCH, 1, 0)]).await.result, -2);
        assert_eq!(c.op("o", &[notify(0, "")]).await.result, -2);
        let made = c.op("o", &[Op::write_full("x")]).await;
        c.op("o", &[notify(0, "nobody")]).await;
        assert_eq!(outcome(&c.event().await), (vec![], vec![]));

        for cookie in [1, 2] {
            let reply = c.op("o", &[watch(watch_op::WATCH, cookie, 0)]).await;
            assert_eq!((reply.result, reply.user_version), (0, made.user_version));
        }
        assert_eq!(cookies(c).await, [1, 2]);
        let id = c.op("o", &[notify(0, "hi")]).await.ops[0].outdata.concat();
        for cookie in [1, 2] {
            let event = c.event().await;
            assert_eq!((event.opcode, event.cookie), (watch_event::NOTIFY, cookie));
            assert_eq!(event.notify_id.to_bytes(F), id);
            assert_eq!((&event.payload[..], event.ver), (&b"hi"[..], made.user_version));
            c.op("o", &[ack(&event, &format!("from {cookie}"))]).await;
        }
        let event = c.event().await;
        let acks = vec![(1, "from 1".to_owned()), (2, "from 2".to_owned())];
        assert_eq!((outcome(&event), event.return_code, event.cookie), ((acks, vec![]), 0, 500));

        c.op("o", &[notify(2, "silence")]).await;
        c.event().await;
        let event = c.event().await;
        c.op("o", &[ack(&event, "")]).await;
        let event = c.event().await;
        assert_eq!(outcome(&event), (vec![(2, String::new())], vec![1]));
        assert_eq!(event.return_code, ETIMEDOUT);

        assert_eq!(c.op("o", &[watch(watch_op::UNWATCH, 1, 0)]).await.result, 0);
        assert_eq!(c.op("o", &[watch(watch_op::PING, 1, 0)]).await.result, ENOTCONN);
        assert_eq!(c.op("o", &[watch(watch_op::PING, 2, 0)]).await.result, 0);
        assert_eq!(c.op("o", &[Op::plain(OpCode::DELETE)]).await.result, 0);
        let event = c.event().await;
        assert_eq!((event.opcode, event.cookie), (watch_event::DISCONNECT, 2));
    });
}

#[test]
fn a_silent_watch_is_taken_away_and_its_client_told() {
    let cluster = Cluster::start(42);
    cluster.client(async |c| {
        c.op("o", &[Op::plain(OpCode::CREATE)]).await;
        c.op("o", &[watch(watch_op::WATCH, 1, 10)]).await;
        c.op("o", &[watch(watch_op::WATCH, 2, 0)]).await;
        sleep(Duration::from_secs(8)).await;
        assert_eq!(c.op("o", &[watch(watch_op::PING, 1, 0)]).await.result, 0);
        sleep(Duration::from_secs(8)).await;
        assert_eq!(cookies(c).await, [1, 2]);
        let event = c.event().await;
        assert_eq!((event.opcode, event.cookie), (watch_event::DISCONNECT, 1));
        assert_eq!(cookies(c).await, [2]);
        assert_eq!(c.op("o", &[watch(watch_op::PING, 1, 0)]).await.result, ENOTCONN);
        // The PG's log goes on after the OSD's own entry.
        assert_eq!(c.op("o", &[Op::write_full("x")]).await.result, 0);
    });
    cluster.restart();
    cluster.client(async |c| assert_eq!(cookies(c).await, [2]));
}

#[test]
fn what_a_write_tells_its_client_follows_its_reply() {
    const REPLY: u16 = types::OSD_OP_REPLY;
    const EVENT: u16 = types::WATCH_NOTIFY;
    let cluster = Cluster::start(46);
    cluster.client(async |c| {
        c.op("o", &[Op::plain(OpCode::CREATE)]).await;
        c.heard();
        // As a real Ceph answered.
        let (set, unset) = (watch(watch_op::WATCH, 1, 0), watch(watch_op::UNWATCH, 1, 0));
        let table: [(&[OsdOp], &[u16]); 5] = [
            (&[set.clone(), notify(20, "")], &[REPLY, EVENT]),
            (&[unset], &[REPLY, EVENT]),
            (&[set], &[REPLY]),
            (&[notify(20, "")], &[EVENT, REPLY]),
            (&[Op::plain(OpCode::DELETE)], &[REPLY, EVENT, EVENT]),
        ];
        for (ops, want) in table {
            assert_eq!(c.op("o", ops).await.result, 0);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(c.heard(), want, "{ops:?}");
        }
    });
}

#[test]
fn watches_outlive_a_restart_for_their_time() {
    let cluster = Cluster::start(43);
    cluster.client(async |c| {
        c.op("o", &[Op::plain(OpCode::CREATE)]).await;
        c.op("o", &[watch(watch_op::WATCH, 1, 10)]).await;
        c.op("o", &[watch(watch_op::WATCH, 2, 10)]).await;
    });
    cluster.restart();
    cluster.client(async |c| {
        // Their time-out begins when somebody comes.
        sleep(Duration::from_secs(60)).await;
        assert_eq!(cookies(c).await, [1, 2]);
        assert_eq!(c.op("o", &[watch(watch_op::PING, 1, 0)]).await.result, ETIMEDOUT);
        c.op("o", &[notify(20, "wait for me")]).await;
        assert_eq!(c.op("o", &[watch(watch_op::RECONNECT, 1, 10)]).await.result, 0);
        assert_eq!(c.op("o", &[watch(watch_op::RECONNECT, 3, 10)]).await.result, ENOTCONN);
        let event = c.event().await;
        assert_eq!((event.opcode, &event.payload[..]), (watch_event::NOTIFY, &b"wait for me"[..]));
        c.op("o", &[ack(&event, "here")]).await;
        sleep(Duration::from_secs(8)).await;
        assert_eq!(c.op("o", &[watch(watch_op::PING, 1, 0)]).await.result, 0);
        // The other one did not come back; the notify waited for it until then.
        assert_eq!(outcome(&c.event().await), (vec![(1, "here".to_owned())], vec![]));
        assert_eq!(cookies(c).await, [1]);
    });
}

#[test]
fn a_blocklisted_client_loses_its_watches() {
    let cluster = Cluster::start(44);
    cluster.client(async |c| {
        c.op("o", &[Op::plain(OpCode::CREATE)]).await;
        c.op("o", &[watch(watch_op::WATCH, 1, 0)]).await;
    });
    // That client is gone; a map blocklists it well before its watch would time out.
    cluster.client(async |c| assert_eq!(cookies(c).await, [1]));
    cluster.blocklist_clients();
    cluster.client_of_nonce(10, async |c| {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(cookies(c).await, [0u64; 0]);
    });
}

#[test]
fn a_ping_from_before_the_target_was_down_gets_no_answer() {
    let cluster = Cluster::start(45);
    let up_again = |map: &mut spirula_maps::OsdMap| map.osds[0].info.up_from = map.epoch;
    let new = cluster.change_map(Duration::from_secs(1), up_again);
    cluster.client(async move |c| {
        c.op("o", &[Op::plain(OpCode::CREATE)]).await;
        c.op("o", &[watch(watch_op::WATCH, 1, 0)]).await;
        sleep(Duration::from_secs(2)).await;
        c.send("o", &[watch(watch_op::PING, 1, 0)]);
        c.learn(new);
        // The next answer is that to this.
        assert_eq!(c.op("o", &[watch(watch_op::RECONNECT, 1, 0)]).await.result, 0);
        assert_eq!(c.op("o", &[watch(watch_op::PING, 1, 0)]).await.result, 0);
    });
}
