//! A client has many requests to one object under way, which wait for each other while its connections
//! break.
//!
//! Invariant: a request that is sent again while its first copy still waits is executed once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_sim::{Client, Cluster};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_xstream::sim::NetConfig;
use spirula_xstream::{Class, JoinHandle, spawn};

const TASKS: u64 = 64;
const APPENDS: u64 = 8;
const NAME: &str = "shared";

fn op(code: OpCode, args: OpArgs, data: Bytes) -> OsdOp {
    OsdOp::new(code, args, data)
}

/// Each append comes with a read, for which it waits until the earlier ones are durable.
async fn append(client: Client, who: u64) {
    for n in 0..APPENDS {
        let mark = Bytes::from(format!("{who}.{n};"));
        let read = op(OpCode::READ, OpArgs::extent(0, 1), Bytes::new());
        let append = op(OpCode::APPEND, OpArgs::extent(0, mark.len() as u64), mark);
        let reply = client.op(Cluster::POOL, NAME, vec![read, append], true).await;
        assert_eq!(reply.map(|reply| reply.result), Ok(0), "append {n} of {who}");
    }
}

async fn content(client: Client) -> Bytes {
    let read = op(OpCode::READ, OpArgs::extent(0, 0), Bytes::new());
    let reply = client.op(Cluster::POOL, NAME, vec![read], false).await;
    reply.map(|reply| reply.ops[0].outdata.concat().into()).unwrap_or_default()
}

fn play(seed: u64) {
    let cluster = Cluster::new(seed, 1);
    cluster.start_mon();
    cluster.start_osd();
    cluster.world.set_net(NetConfig {
        latency: Duration::from_micros(5)..Duration::from_micros(50),
        reset_per_million: 20_000,
        ..NetConfig::default()
    });
    let on_client = |work: JoinHandle<()>| {
        assert!(cluster.world.run_until(Duration::from_secs(300), || work.is_finished()));
    };
    let connector = cluster.connector();
    on_client(cluster.client.spawn(Class::Client, async move {
        let client = connector();
        let create = op(OpCode::WRITEFULL, OpArgs::extent(0, 1), ";".into());
        assert!(client.op(Cluster::POOL, NAME, vec![create], true).await.is_ok());
    }));
    let connector = cluster.connector();
    on_client(cluster.client.spawn(Class::Client, async move {
        let client = connector();
        let tasks = (0..TASKS).map(|who| spawn(Class::Client, append(client.clone(), who)));
        for task in tasks.collect::<Vec<_>>() {
            assert!(task.await.is_ok());
        }
    }));
    let (found, connector) = (Rc::new(Cell::new(Bytes::new())), cluster.connector());
    let into = found.clone();
    on_client(cluster.client.spawn(Class::Client, async move {
        into.set(content(connector()).await);
    }));
    let found = String::from_utf8(found.take().to_vec()).unwrap_or_default();
    let mut marks: Vec<_> = found.split(';').filter(|mark| !mark.is_empty()).collect();
    let count = marks.len();
    marks.sort_unstable();
    marks.dedup();
    assert_eq!((marks.len(), count), ((TASKS * APPENDS) as usize, (TASKS * APPENDS) as usize));
}

#[test]
fn requests_that_wait_are_executed_once() {
    for seed in 0..4 {
        let _named = crate::Seed(seed);
        play(seed);
    }
}
