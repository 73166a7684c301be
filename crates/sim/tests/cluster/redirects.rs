//! What a request brings with it goes on where a redirect leads, and locks do not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use spirula_sim::{Client, Cluster};
use spirula_wire::msg::ops::{OpArgs, OpCode, op_flag};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{ObjectLocator, SnapContext, SnapId};
use spirula_wire::{Encode, Features};
use spirula_xstream::{Class, sleep, spawn};

fn write(data: &'static str) -> OsdOp {
    OsdOp::new(OpCode::WRITEFULL, OpArgs::extent(0, data.len() as u64), data.into())
}

fn naming(code: OpCode, name: &str) -> OsdOp {
    let mut input = name.to_owned().to_bytes(Features::PACIFIC);
    ObjectLocator::pool(Cluster::POOL).encode(&mut input, Features::PACIFIC);
    let args =
        OpArgs::CopyFrom { snapid: SnapId::HEAD, src_version: 0, flags: 0, src_fadvise_flags: 0 };
    OsdOp::new(code, args, input.into())
}

async fn result(client: &Client, name: &str, op: OsdOp) -> i32 {
    client.op(Cluster::POOL, name, vec![op], true).await.map_or(1, |reply| reply.result)
}

async fn content(client: &Client, name: &str, snap: SnapId) -> Vec<u8> {
    let read = OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Default::default());
    let at = (snap, SnapContext::default());
    let reply = client.op_at(Cluster::POOL, name, vec![read], false, at).await;
    reply.map(|reply| reply.ops[0].outdata.concat()).unwrap_or_default()
}

fn with_a_redirect(work: impl AsyncFnOnce(Client) + 'static) {
    let cluster = Cluster::new(1, 4);
    cluster.start_mon();
    cluster.start_osd();
    let connector = cluster.connector();
    let done = cluster.client.spawn(Class::Client, async move {
        let client = connector();
        assert_eq!(result(&client, "a", write("a")).await, 0);
        assert_eq!(result(&client, "b", write("old")).await, 0);
        assert_eq!(result(&client, "a", naming(OpCode::SET_REDIRECT, "b")).await, 0);
        work(client).await;
    });
    let ended = cluster.world.run_until(Duration::from_secs(60), || done.is_finished());
    assert!(ended, "a request was not answered");
    assert!(matches!(done.try_take(), Some(Ok(()))));
}

/// The OSD of some targets goes and comes back while writes are on their way to it.
#[test]
fn writes_that_are_sent_again_keep_their_order() {
    for seed in 1..4 {
        let cluster = Cluster::with_osds(seed, 8, 2);
        cluster.start_mon();
        cluster.start_osds();
        let begun = Rc::new(Cell::new(false));
        let (connector, started) = (cluster.connector(), begun.clone());
        let done = cluster.client.spawn(Class::Client, async move {
            let client = Rc::new(connector());
            for i in 0..OBJECTS {
                let (from, to) = (format!("from {i}"), format!("to {i}"));
                assert_eq!(result(&client, &from, write("")).await, 0);
                assert_eq!(result(&client, &from, naming(OpCode::SET_REDIRECT, &to)).await, 0);
            }
            started.set(true);
            append_all(&client).await;
        });
        let within = Duration::from_secs(60);
        assert!(cluster.world.run_until(within, || begun.get()), "no redirects");
        cluster.world.run_for(Duration::from_millis(100));
        cluster.osd_kill_of(1);
        cluster.world.run_for(Duration::from_secs(1));
        cluster.start_osd_of(1);
        assert!(cluster.world.run_until(within, || done.is_finished()), "seed {seed}: writes hang");
        assert!(matches!(done.try_take(), Some(Ok(()))), "seed {seed}");
    }
}

/// More requests than an OSD takes in of a connection at a time go from one OSD to the other and back.
#[test]
fn a_way_over_many_redirects_does_not_fill_up() {
    const STEPS: usize = 6;
    let cluster = Cluster::with_osds(1, 8, 2);
    cluster.start_mon();
    cluster.start_osds();
    let connector = cluster.connector();
    let done = cluster.client.spawn(Class::Client, async move {
        let client = Rc::new(connector());
        for way in 0..OBJECTS {
            for step in 0..STEPS {
                let (from, to) = (format!("{way} {step}"), format!("{way} {}", step + 1));
                assert_eq!(result(&client, &from, write("")).await, 0);
                assert_eq!(result(&client, &from, naming(OpCode::SET_REDIRECT, &to)).await, 0);
            }
        }
        let writes = (0..1200).map(|n| {
            let client = client.clone();
            spawn(Class::Client, async move {
                result(&client, &format!("{} 0", n % OBJECTS), write("x")).await
            })
        });
        for write in writes.collect::<Vec<_>>() {
            assert_eq!(write.await.ok(), Some(0));
        }
    });
    let ended = cluster.world.run_until(Duration::from_secs(60), || done.is_finished());
    assert!(ended, "writes hang");
    assert!(matches!(done.try_take(), Some(Ok(()))));
}

const OBJECTS: usize = 8;

/// Appends the numbers to each object, by requests that do not wait for each other.
async fn append_all(client: &Rc<Client>) {
    let (mut writes, mut whole) = (Vec::new(), String::new());
    for n in 0..60 {
        let line = format!("{n} ");
        whole.push_str(&line);
        for i in 0..OBJECTS {
            let (client, line) = (client.clone(), line.clone());
            writes.push(spawn(Class::Client, async move {
                let args = OpArgs::extent(0, line.len() as u64);
                let append = OsdOp::new(OpCode::APPEND, args, line.into());
                result(&client, &format!("from {i}"), append).await
            }));
        }
        sleep(Duration::from_millis(50)).await;
    }
    for write in writes {
        assert_eq!(write.await.ok(), Some(0));
    }
    for i in 0..OBJECTS {
        let found = content(client, &format!("to {i}"), SnapId::HEAD).await;
        assert_eq!(String::from_utf8_lossy(&found), whole, "object {i}");
    }
}

#[test]
fn a_write_keeps_its_snapshot_context() {
    with_a_redirect(async |client| {
        let context = SnapContext { seq: SnapId(1), snaps: vec![SnapId(1)] };
        let at = (SnapId::HEAD, context);
        let reply = client.op_at(Cluster::POOL, "a", vec![write("new")], true, at).await;
        assert_eq!(reply.map_or(1, |reply| reply.result), 0);
        assert_eq!(content(&client, "b", SnapId::HEAD).await, b"new");
        assert_eq!(content(&client, "b", SnapId(1)).await, b"old");
    });
}

/// The copy holds its source, which is where the redirect leads.
#[test]
fn a_copy_of_the_target_is_answered() {
    with_a_redirect(async |client| {
        assert_eq!(result(&client, "a", naming(OpCode::COPY_FROM, "b")).await, -22);
        assert_eq!(result(&client, "b", write("new")).await, 0);
    });
}

#[test]
fn nothing_counts_references_to_itself() {
    with_a_redirect(async |client| {
        let mut op = naming(OpCode::SET_REDIRECT, "b");
        // As if it were another object.
        if let OpArgs::CopyFrom { snapid, .. } = &mut op.args {
            *snapid = SnapId(5);
        }
        op.flags |= op_flag::WITH_REFERENCE;
        assert_eq!(result(&client, "b", op).await, -22);
        assert_eq!(result(&client, "b", write("new")).await, 0);
    });
}
