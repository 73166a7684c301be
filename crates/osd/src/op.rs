//! What the operations of a request ask for, and the arguments that most of them share.

use spirula_wire::msg::ops::{OpArgs, OpCode, watch_op};
use spirula_wire::msg::osd_op::OsdOp;

use crate::class::calls;

/// What the codes of a request ask for (Ceph's `rmw_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpClass {
    /// By an operation or by a method that it calls.
    pub reads: bool,
    pub writes: bool,
    /// By an operation itself; methods have capabilities of their own.
    pub own_reads: bool,
    pub own_writes: bool,
    /// Reads bytes of the data array, perhaps from the device, or what shows only when published.
    pub reads_data: bool,
    pub pg: bool,
    pub watches: bool,
    pub notifies: bool,
}

impl OpClass {
    pub fn of(ops: &[OsdOp]) -> Self {
        let mut class = Self::default();
        for OsdOp { code, args, .. } in ops {
            class.own_reads |= code.reads() || *code == OpCode::WATCH;
            class.own_writes |= code.writes() && !is_ping(args) || code.is_cache_op();
            class.watches |= *code == OpCode::WATCH;
            class.notifies |= *code == OpCode::NOTIFY;
            class.reads_data |= reads_data(*code);
            class.pg |= code.is_pg_op();
        }
        (class.reads, class.writes) = (class.own_reads, class.own_writes);
        for access in calls(ops).flatten().map(|call| call.method.access) {
            class.reads |= access.reads();
            class.reads_data |= access.reads();
            class.writes |= access.writes();
        }
        class
    }

    /// A request that asks for nothing is invalid.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

fn reads_data(code: OpCode) -> bool {
    matches!(
        code,
        OpCode::READ
            | OpCode::SYNC_READ
            | OpCode::SPARSE_READ
            | OpCode::CMPEXT
            | OpCode::CHECKSUM
            | OpCode::COPY_GET
            | OpCode::TMAPGET
            | OpCode::TMAPUP
            | OpCode::TMAP2OMAP
            | OpCode::WATCH
    )
}

/// A ping has a write's code, but changes nothing that is stored.
fn is_ping(args: &OpArgs) -> bool {
    matches!(args, OpArgs::Watch { op: watch_op::PING, .. })
}

/// Arguments of the operations that name a byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
    pub truncate_size: u64,
    pub truncate_seq: u32,
}

impl Extent {
    pub fn of(args: &OpArgs) -> Self {
        match *args {
            OpArgs::Extent { offset, length, truncate_size, truncate_seq } => {
                Self { offset, length, truncate_size, truncate_seq }
            }
            _ => Self::default(),
        }
    }
}

impl From<Extent> for OpArgs {
    fn from(e: Extent) -> Self {
        let Extent { offset, length, truncate_size, truncate_seq } = e;
        Self::Extent { offset, length, truncate_size, truncate_seq }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn classes_follow_the_codes() {
        let class = |codes: &[OpCode]| {
            let ops = codes.iter().map(|&code| OsdOp { code, ..OsdOp::default() });
            OpClass::of(&ops.collect::<Vec<_>>())
        };
        let stat = OpClass { reads: true, own_reads: true, ..OpClass::default() };
        let write = OpClass { writes: true, own_writes: true, ..OpClass::default() };
        assert_eq!(class(&[OpCode::STAT]), stat);
        assert_eq!(class(&[OpCode::READ]), OpClass { reads_data: true, ..stat });
        assert_eq!(class(&[OpCode::WRITE]), write);
        let both = OpClass { reads: true, own_reads: true, ..write };
        assert_eq!(class(&[OpCode::CMPXATTR, OpCode::APPEND]), both);
        assert!(class(&[OpCode::PGNLS]).pg);
        assert!(class(&[]).is_empty());
    }

    #[test]
    fn a_method_says_what_a_call_does() {
        let indata = Bytes::from_static(b"hellosay_hello");
        let args = OpArgs::Cls { class_len: 5, method_len: 9, argc: 0, indata_len: 0 };
        let class = OpClass::of(&[OsdOp::new(OpCode::CALL, args, indata)]);
        assert_eq!(class, OpClass { reads: true, reads_data: true, ..OpClass::default() });
    }

    #[test]
    fn a_ping_is_no_write() {
        let class = |op| {
            let args = OpArgs::Watch { cookie: 1, ver: 0, op, gen_: 0, timeout: 0 };
            OpClass::of(&[OsdOp::new(OpCode::WATCH, args, Bytes::new())])
        };
        let ping = OpClass {
            reads: true,
            own_reads: true,
            reads_data: true,
            watches: true,
            ..OpClass::default()
        };
        let write = OpClass { writes: true, own_writes: true, ..ping };
        assert_eq!(class(watch_op::PING), ping);
        assert_eq!(class(watch_op::WATCH), write);
        assert_eq!(class(watch_op::UNWATCH), write);
    }
}
