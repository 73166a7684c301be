//! Devices without room for more.

use std::time::Duration;

use spirula_maps::{OsdMap, osd_state, pool_flags};
use spirula_wire::msg::ops::OpCode;
use spirula_wire::msg::osd_op::flag;
use spirula_xstream::sleep;

use crate::support::{Cluster, Op, POOL};

const ENOSPC: i32 = -28;

fn mark_full(map: &mut OsdMap) {
    map.osds[0].state |= osd_state::FULL;
    map.pools.get_mut(&POOL).unwrap().flags |= pool_flags::FULL;
}

#[test]
fn a_full_device_takes_deletions_and_then_writes_again() {
    let cluster = Cluster::start(1);
    cluster.client(async |c| {
        let body = "x".repeat(1 << 20);
        c.flags = flag::FULL_TRY;
        let mut written = 0;
        let refusal = loop {
            match c.op(&format!("o{written}"), &[Op::write_full(&body)]).await.result {
                0 => written += 1,
                refusal => break refusal,
            }
        };
        assert_eq!(refusal, ENOSPC);
        assert!(written > 100, "{written}");
        assert_eq!(c.op("small", &[Op::write_full("y")]).await.result, ENOSPC);
        // Who would wait has no answer; there is room for this one, but one before it was dropped.
        c.flags = 0;
        c.send("waits", &[Op::write_full("y")]);
        c.send("o0", &[Op::set_xattr("a", "1")]);
        assert_eq!(c.op("o0", &[Op::stat()]).await.result, 0);
        c.flags = flag::FULL_FORCE;
        for i in 0..written {
            assert_eq!(c.op(&format!("o{i}"), &[Op::plain(OpCode::DELETE)]).await.result, 0);
        }
        // Not before everybody has seen that it was full.
        sleep(Duration::from_secs(3)).await;
        c.flags = 0;
        c.send("waits", &[Op::write_full("y")]);
        assert_eq!(c.op("o0", &[Op::stat()]).await.result, -2);
    });
    let full = cluster.change_map(Duration::ZERO, mark_full);
    cluster.client(async |_| sleep(Duration::from_secs(3)).await);
    let free = cluster.change_map(Duration::ZERO, |map| map.epoch = full.epoch + 1);
    cluster.client(async |c| {
        c.send("early", &[Op::write_full("y")]);
        c.learn(free);
        assert_eq!(c.op("o", &[Op::write_full("y")]).await.result, 0);
        assert_eq!(c.op("early", &[Op::stat()]).await.result, -2);
        assert_eq!(c.op("waits", &[Op::stat()]).await.result, -2);
    });
}

#[test]
fn a_full_pool_is_filled_only_by_who_insists() {
    let cluster = Cluster::start(2);
    cluster.client(async |c| {
        assert_eq!(c.op("old", &[Op::write_full("old")]).await.result, 0);
    });
    let full = cluster.change_map(Duration::ZERO, mark_full);
    cluster.client(async move |c| {
        c.send("early", &[Op::set_xattr("a", "1")]);
        c.learn(full);
        c.send("new", &[Op::write_full("y")]);
        let (tries, forces) = (flag::FULL_TRY, flag::FULL_FORCE);
        let both = tries | forces;
        for (flags, name, op, result) in [
            (tries, "new", Op::write_full("y"), ENOSPC),
            (tries, "old", Op::set_xattr("a", "1"), 0),
            (0, "old", Op::set_xattr("a", "1"), 0),
            (forces, "forced", Op::write_full("y"), 0),
            (both, "both", Op::write_full("y"), 0),
            (tries, "old", Op::plain(OpCode::DELETE), 0),
            (0, "early", Op::stat(), -2),
        ] {
            c.flags = flags;
            assert_eq!(c.op(name, &[op]).await.result, result, "{name} {flags:#x}");
        }
    });
}
