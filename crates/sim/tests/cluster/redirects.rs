//! What a request brings with it goes on where a redirect leads, and locks do not.

use std::time::Duration;

use spirula_sim::{Client, Cluster};
use spirula_wire::msg::ops::{OpArgs, OpCode, op_flag};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{ObjectLocator, SnapContext, SnapId};
use spirula_wire::{Encode, Features};
use spirula_xstream::Class;

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
