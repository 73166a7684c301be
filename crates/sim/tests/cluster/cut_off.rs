//! Requests that the death of an OSD cuts off.

use std::rc::Rc;
use std::time::Duration;

use spirula_sim::{Client, Cluster, Spec};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_xstream::{Class, spawn};

fn write(data: &str) -> OsdOp {
    OsdOp::new(OpCode::WRITEFULL, OpArgs::extent(0, data.len() as u64), data.to_owned().into())
}

fn play(cluster: &Cluster, work: impl AsyncFnOnce(Client) + 'static) {
    let connector = cluster.connector();
    let done = cluster.client.spawn(Class::Client, async move { work(connector()).await });
    let ended = cluster.world.run_until(Duration::from_secs(200), || done.is_finished());
    assert!(ended, "a request was not answered");
    assert!(matches!(done.try_take(), Some(Ok(()))));
}

/// Its primary waits for an OSD that is dead, until a map says so; the client sends nothing again by itself
/// where the primary stays.
#[test]
fn a_write_that_waits_for_a_dead_osd_is_answered() {
    let cluster = Cluster::with(&Spec { osds: 4, size: 3, ..Spec::new(2, 8) });
    cluster.start_mon();
    cluster.start_osds();
    play(&cluster, async |client| {
        let reply = client.op(Cluster::POOL, "first", vec![write("1")], true).await;
        assert_eq!(reply.map(|reply| reply.result).ok(), Some(0));
    });
    cluster.osd_kill_of(1);
    play(&cluster, async |client| {
        let client = Rc::new(client);
        let begin = |n: usize| {
            let (client, name) = (client.clone(), format!("object{n}"));
            spawn(Class::Client, async move {
                let reply = client.op(Cluster::POOL, &name, vec![write(&name)], true).await;
                reply.map_or(1, |reply| reply.result)
            })
        };
        let begun: Vec<_> = (0..32).map(begin).collect();
        for (n, one) in begun.into_iter().enumerate() {
            assert_eq!(one.await.unwrap(), 0, "object{n}");
        }
    });
}
