//! Copies of whole objects, inside a PG and from one to another.

use crate::support::{Client, Cluster, F, Op, POOL, text};
use spirula_wire::Encode;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{ObjectLocator, SnapId};

fn copy_from(name: &str, src_version: u64) -> OsdOp {
    let mut input = name.to_owned().to_bytes(F);
    ObjectLocator::pool(POOL).encode(&mut input, F);
    let args =
        OpArgs::CopyFrom { snapid: SnapId::HEAD, src_version, flags: 0, src_fadvise_flags: 0 };
    OsdOp::new(OpCode::COPY_FROM, args, input.into())
}

async fn result(c: &mut Client, name: &str, ops: &[OsdOp]) -> i32 {
    c.op(name, ops).await.result
}

#[test]
fn a_copy_is_what_its_source_was() {
    let cluster = Cluster::start(1);
    cluster.client(async |c| {
        let big = "x".repeat(300_000);
        let made = [Op::write_full(&big), Op::set_xattr("a", "1"), Op::set_omap(&[("k", "v")])];
        assert_eq!(result(c, "source", &made).await, 0);
        let version = c.op("source", &[Op::stat()]).await.user_version;
        for i in 0..8 {
            let name = format!("copy {i}");
            assert_eq!(
                result(c, &name, &[Op::write_full("old"), Op::set_xattr("b", "2")]).await,
                0
            );
            let reply = c.op(&name, &[copy_from("source", version)]).await;
            assert_eq!((reply.result, reply.user_version), (0, version));
        }
        assert_eq!(result(c, "source", &[Op::write_full("new")]).await, 0);
        for i in 0..8 {
            let name = format!("copy {i}");
            let reply = c.op(&name, &[Op::read(0, 0), Op::get_xattr("a")]).await;
            assert_eq!((text(&reply, 0), text(&reply, 1)), (big.clone(), "1".to_owned()));
            assert_eq!(result(c, &name, &[Op::get_xattr("b")]).await, -61);
            let keys = c.op(&name, &[Op::omap_keys("", 10)]).await;
            assert_eq!(keys.ops[0].outdata.concat().len(), 4 + 5 + 1);
        }
    });
}

#[test]
fn a_copy_that_cannot_be_made_changes_nothing() {
    let cluster = Cluster::start(1);
    cluster.client(async |c| {
        assert_eq!(result(c, "source", &[Op::write_full("s")]).await, 0);
        assert_eq!(result(c, "source", &[Op::write_full("t")]).await, 0);
        assert_eq!(result(c, "dest", &[Op::write_full("d")]).await, 0);
        let version = c.op("source", &[Op::stat()]).await.user_version;
        for (name, src_version, errno) in [
            ("none", 0, -2),
            ("dest", 0, -22),
            ("source", version - 1, -34),
            ("source", version + 1, -75),
        ] {
            let ops = [Op::set_xattr("a", "1"), copy_from(name, src_version)];
            assert_eq!(result(c, "dest", &ops).await, errno, "{name} at {src_version}");
        }
        let reply = c.op("dest", &[Op::read(0, 0)]).await;
        assert_eq!(text(&reply, 0), "d");
    });
}
