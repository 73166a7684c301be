//! Reads at copies that are not the primary: answered there, and never older than what was acknowledged.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_sim::{Client, Cluster, Spec};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_xstream::{Class, random_u64, sleep, spawn};

use crate::Seed;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const READS: u64 = 400;

fn number(data: &[u8]) -> u64 {
    std::str::from_utf8(data).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Counts the object up until the readers are done.
async fn write(client: Client, name: &'static str, done: Rc<Cell<u64>>, readers: Rc<Cell<usize>>) {
    let mut next = 1;
    while readers.get() > 0 {
        let data = Bytes::from(next.to_string());
        let op = OsdOp::new(OpCode::WRITEFULL, OpArgs::extent(0, data.len() as u64), data);
        let reply = client.op(Cluster::POOL, name, vec![op], true).await;
        assert_eq!(reply.map(|reply| reply.result), Ok(0));
        done.set(next);
        next += 1;
        // Now and then long enough for the copies to hear that it is everywhere.
        sleep(Duration::from_millis([1, 20, 3000][random_u64() as usize % 3])).await;
    }
}

async fn read(client: Client, name: &'static str, done: Rc<Cell<u64>>, readers: Rc<Cell<usize>>) {
    let mut newest = 0;
    for _ in 0..READS {
        newest = done.get().max(newest);
        let op = OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Bytes::new());
        let reply = client.op(Cluster::POOL, name, vec![op], false).await;
        let found = reply.map_or(0, |reply| number(&reply.ops[0].outdata.concat()));
        assert!(found >= newest, "{name} was {found} when {newest} had been seen");
        newest = found;
        sleep(Duration::from_millis(random_u64() % 200)).await;
    }
    readers.set(readers.get() - 1);
}

/// Whether any OSD that is not the primary answered.
fn play(seed: u64) -> u64 {
    let cluster = Cluster::with(&Spec { osds: 3, size: 3, ..Spec::new(seed, 1) });
    cluster.start_mon();
    cluster.start_osds();
    let readers = Rc::new(Cell::new(2 * NAMES.len()));
    let (connector, left) = (cluster.connector(), readers.clone());
    let all = cluster.client.spawn(Class::Client, async move {
        let client = connector();
        client.read_anywhere();
        let tasks = NAMES.map(|name| {
            let done = Rc::new(Cell::new(0));
            let (a, b) = (client.clone(), client.clone());
            drop(spawn(Class::Client, write(client.clone(), name, done.clone(), left.clone())));
            [
                spawn(Class::Client, read(a, name, done.clone(), left.clone())),
                spawn(Class::Client, read(b, name, done, left.clone())),
            ]
        });
        for task in tasks.into_iter().flatten() {
            assert!(task.await.is_ok());
        }
    });
    let finished = cluster.world.run_until(Duration::from_secs(600), || all.is_finished());
    let served: Vec<u64> =
        (0..3).filter_map(|id| cluster.target(id)).map(|t| t.reads_at_copies()).collect();
    assert!(finished, "{} readers, {served:?}\n{}", readers.get(), cluster.describe());
    served.into_iter().sum()
}

#[test]
fn a_read_at_a_copy_is_never_old() {
    for seed in 0..3 {
        let _named = Seed(seed);
        let served = play(seed);
        assert!(served > READS, "only {served} reads were answered by copies");
    }
}
