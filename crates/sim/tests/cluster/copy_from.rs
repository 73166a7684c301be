//! An object that is made a copy of another is that at every copy of its PG, wherever the other one lies, and
//! whoever of the PG has it.

use std::time::Duration;

use spirula_sim::{Client, Cluster, Spec};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{ObjectLocator, SnapId};
use spirula_wire::{Encode, Features};
use spirula_xstream::{Class, sleep};

const SOURCES: usize = 60;
/// Copies that are made while an OSD comes back, and after how long the next one.
const LATE: usize = 300;
const PAUSE: Duration = Duration::from_millis(8);
/// Enough for recovery, of the time of the world.
const LONG: Duration = Duration::from_secs(120);

fn write(offset: u64, data: String) -> OsdOp {
    OsdOp::new(OpCode::WRITE, OpArgs::extent(offset, data.len() as u64), data.into())
}

fn copy_from(name: &str) -> OsdOp {
    let mut input = name.to_owned().to_bytes(Features::PACIFIC);
    ObjectLocator::pool(Cluster::POOL).encode(&mut input, Features::PACIFIC);
    let args =
        OpArgs::CopyFrom { snapid: SnapId::HEAD, src_version: 0, flags: 0, src_fadvise_flags: 0 };
    OsdOp::new(OpCode::COPY_FROM, args, input.into())
}

async fn result(client: &Client, name: &str, op: OsdOp) -> i32 {
    client.op(Cluster::POOL, name, vec![op], true).await.map_or(1, |reply| reply.result)
}

async fn content(client: &Client, name: &str) -> Vec<u8> {
    let read = OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Default::default());
    let reply = client.op(Cluster::POOL, name, vec![read], false).await;
    reply.map(|reply| reply.ops[0].outdata.concat()).unwrap_or_default()
}

/// Small data, then nothing, then what lies in blocks of its own.
fn data_of(when: &str, i: usize) -> (String, u64, String) {
    (format!("{when} {i}"), 50_000, format!("{i:08}").repeat(1500))
}

/// The source of a late copy: those that are recovered last.
fn source_of(late: usize) -> usize {
    SOURCES - 1 - late % 20
}

fn run(cluster: &Cluster, what: &str, work: impl AsyncFnOnce(Client) + 'static) {
    let connector = cluster.connector();
    let done = cluster.client.spawn(Class::Client, async move { work(connector()).await });
    assert!(cluster.world.run_until(LONG, || done.is_finished()), "{what} hang");
    assert!(matches!(done.try_take(), Some(Ok(()))), "{what}");
}

async fn check(client: &Client) {
    let early = (0..SOURCES).map(|i| ("early", i, i));
    for (when, n, i) in early.chain((0..LATE).map(|n| ("later", n, source_of(n)))) {
        let (begin, at, end) = data_of(when, i);
        let mut want = begin.into_bytes();
        want.resize(at as usize, 0);
        want.extend(end.into_bytes());
        assert!(content(client, &format!("{when} {n}")).await == want, "{when} {n}");
    }
}

#[test]
fn every_copy_has_the_data_of_a_copied_object() {
    for pg_num in [1, 8] {
        let cluster = Cluster::with(&Spec { osds: 2, size: 2, ..Spec::new(5, pg_num) });
        cluster.start_mon();
        cluster.start_osds();
        run(&cluster, "copies at two OSDs", async |client| {
            for i in 0..SOURCES {
                let ((begin, at, end), source) = (data_of("early", i), format!("source {i}"));
                assert_eq!(result(&client, &source, write(0, begin)).await, 0);
                assert_eq!(result(&client, &source, write(at, end)).await, 0);
                assert_eq!(result(&client, &format!("early {i}"), copy_from(&source)).await, 0);
            }
        });
        cluster.osd_kill_of(1);
        run(&cluster, "writes at one OSD", async |client| {
            for i in 0..SOURCES {
                let source = format!("source {i}");
                assert_eq!(result(&client, &source, write(0, data_of("later", i).0)).await, 0);
            }
        });
        cluster.start_osd_of(1);
        run(&cluster, "copies in recovery", async |client| {
            for n in 0..LATE {
                let source = format!("source {}", source_of(n));
                assert_eq!(result(&client, &format!("later {n}"), copy_from(&source)).await, 0);
                sleep(PAUSE).await;
            }
        });
        cluster.world.run_for(LONG);
        cluster.osd_kill_of(0);
        run(&cluster, "reads at one OSD", async |client| check(&client).await);
        cluster.start_osd_of(0);
        cluster.world.run_for(LONG);
        cluster.osd_kill_of(1);
        run(&cluster, "reads at the other OSD", async |client| check(&client).await);
    }
}
