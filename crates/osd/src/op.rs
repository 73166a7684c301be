//! What the operations of a request ask for, and the arguments that most of them share.

use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;

/// What the codes of a request ask for (Ceph's `rmw_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpClass {
    pub reads: bool,
    pub writes: bool,
    /// Reads bytes of the data array, perhaps from the device.
    pub reads_data: bool,
    pub pg: bool,
    pub calls: bool,
}

impl OpClass {
    pub fn of(ops: &[OsdOp]) -> Self {
        let mut class = Self::default();
        for OsdOp { code, .. } in ops {
            class.reads |= code.reads() || *code == OpCode::WATCH;
            class.writes |= code.writes() || code.is_cache_op();
            class.reads_data |= reads_data(*code);
            class.pg |= code.is_pg_op();
            class.calls |= *code == OpCode::CALL;
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
        OpCode::READ | OpCode::SYNC_READ | OpCode::SPARSE_READ | OpCode::CMPEXT | OpCode::CHECKSUM
    )
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
    use super::*;

    #[test]
    fn classes_follow_the_codes() {
        let class = |codes: &[OpCode]| {
            let ops = codes.iter().map(|&code| OsdOp { code, ..OsdOp::default() });
            OpClass::of(&ops.collect::<Vec<_>>())
        };
        let stat = OpClass { reads: true, ..OpClass::default() };
        assert_eq!(class(&[OpCode::STAT]), stat);
        assert_eq!(class(&[OpCode::READ]), OpClass { reads_data: true, ..stat });
        assert_eq!(class(&[OpCode::WRITE]), OpClass { writes: true, ..OpClass::default() });
        assert_eq!(class(&[OpCode::CMPXATTR, OpCode::APPEND]), OpClass { writes: true, ..stat });
        assert!(class(&[OpCode::PGNLS]).pg);
        assert!(!class(&[OpCode::CALL]).reads);
        assert!(class(&[]).is_empty());
    }
}
