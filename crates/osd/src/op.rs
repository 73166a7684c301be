//! One operation of an `osd_op` request: its code, flags, 28 bytes of arguments and input data,
//! and what the codes say about reading and writing.
//!
//! Source of the numbers: Ceph's `include/rados.h`. The arguments stay as the bytes that came in,
//! since a reply carries them back; the accessors read and write fields in place.

use bytes::Bytes;

const MODE_RD: u16 = 0x1000;
const MODE_WR: u16 = 0x2000;
const MODE_CACHE: u16 = 0x8000;
const TYPE_MASK: u16 = 0x0f00;
const TYPE_DATA: u16 = 0x0200;
const TYPE_PG: u16 = 0x0500;

macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        /// Operation codes (`CEPH_OSD_OP_*`).
        pub mod code {
            $(pub const $name: u16 = $value;)*
        }

        /// Ceph's name of an operation code, as its logs print it.
        pub fn name(code: u16) -> &'static str {
            match code {
                $(code::$name => $text,)*
                _ => "???",
            }
        }
    };
}

codes! {
    READ = 0x1201, "read";
    STAT = 0x1202, "stat";
    MAPEXT = 0x1203, "mapext";
    SPARSE_READ = 0x1205, "sparse-read";
    NOTIFY = 0x1206, "notify";
    NOTIFY_ACK = 0x1207, "notify-ack";
    ASSERT_VER = 0x1208, "assert-version";
    LIST_WATCHERS = 0x1209, "list-watchers";
    LIST_SNAPS = 0x120a, "list-snaps";
    SYNC_READ = 0x120b, "sync_read";
    OMAP_GET_KEYS = 0x1211, "omap-get-keys";
    OMAP_GET_VALS = 0x1212, "omap-get-vals";
    OMAP_GET_HEADER = 0x1213, "omap-get-header";
    OMAP_GET_VALS_BY_KEYS = 0x1214, "omap-get-vals-by-keys";
    OMAP_CMP = 0x1219, "omap-cmp";
    COPY_GET = 0x121e, "copy-get";
    CHECKSUM = 0x121f, "checksum";
    CMPEXT = 0x1220, "cmpext";
    GETXATTR = 0x1301, "getxattr";
    GETXATTRS = 0x1302, "getxattrs";
    CMPXATTR = 0x1303, "cmpxattr";
    CALL = 0x1401, "call";
    PGLS = 0x1501, "pgls";
    PGLS_FILTER = 0x1502, "pgls-filter";
    PGNLS = 0x1505, "pgnls";
    PGNLS_FILTER = 0x1506, "pgnls-filter";
    SCRUBLS = 0x1507, "scrubls";
    WRITE = 0x2201, "write";
    WRITEFULL = 0x2202, "writefull";
    TRUNCATE = 0x2203, "truncate";
    ZERO = 0x2204, "zero";
    DELETE = 0x2205, "delete";
    APPEND = 0x2206, "append";
    TRIMTRUNC = 0x2209, "trimtrunc";
    CREATE = 0x220d, "create";
    ROLLBACK = 0x220e, "rollback";
    WATCH = 0x220f, "watch";
    OMAP_SET_VALS = 0x2215, "omap-set-vals";
    OMAP_SET_HEADER = 0x2216, "omap-set-header";
    OMAP_CLEAR = 0x2217, "omap-clear";
    OMAP_RM_KEYS = 0x2218, "omap-rm-keys";
    COPY_FROM = 0x221a, "copy-from";
    SET_ALLOC_HINT = 0x2223, "set-alloc-hint";
    WRITESAME = 0x2226, "write-same";
    OMAP_RM_KEY_RANGE = 0x222c, "omap-rm-key-range";
    SETXATTR = 0x2301, "setxattr";
    SETXATTRS = 0x2302, "setxattrs";
    RESETXATTRS = 0x2303, "resetxattrs";
    RMXATTR = 0x2304, "rmxattr";
    TMAPUP = 0x320a, "tmapup";
}

/// Flags of a whole request (`CEPH_OSD_FLAG_*`).
pub mod flag {
    pub const ACK: u64 = 0x1;
    pub const ONNVRAM: u64 = 0x2;
    pub const ONDISK: u64 = 0x4;
    pub const READ: u64 = 0x10;
    pub const WRITE: u64 = 0x20;
    pub const PARALLELEXEC: u64 = 0x200;
    pub const PGOP: u64 = 0x400;
    pub const RWORDERED: u64 = 0x4000;
    pub const FULL_TRY: u64 = 0x80_0000;
    pub const FULL_FORCE: u64 = 0x100_0000;
    pub const RETURNVEC: u64 = 0x400_0000;
}

/// Flags of one operation (`CEPH_OSD_OP_FLAG_*`).
pub mod op_flag {
    pub const EXCL: u32 = 0x1;
    pub const FAILOK: u32 = 0x2;
}

/// Arguments of the operations that name a byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
    pub truncate_size: u64,
    pub truncate_seq: u32,
}

/// Arguments of the xattr operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct XattrArgs {
    pub name_len: u32,
    pub value_len: u32,
    pub cmp_op: u8,
    pub cmp_mode: u8,
}

/// Arguments of CHECKSUM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ChecksumArgs {
    pub offset: u64,
    pub length: u64,
    pub chunk_size: u32,
    pub type_: u8,
}

/// One operation of a request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SubOp {
    pub code: u16,
    pub flags: u32,
    pub args: [u8; 28],
    pub indata: Bytes,
}

impl SubOp {
    pub fn new(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    pub fn reads(&self) -> bool {
        self.code & MODE_RD != 0 && self.code != code::CALL
    }

    pub fn modifies(&self) -> bool {
        self.code & MODE_WR != 0
    }

    pub fn caches(&self) -> bool {
        self.code & MODE_CACHE != 0
    }

    pub fn is_pg_op(&self) -> bool {
        self.code & TYPE_MASK == TYPE_PG
    }

    /// Whether a failure of this operation lets the request go on.
    pub fn fail_ok(&self) -> bool {
        self.flags & op_flag::FAILOK != 0
    }

    /// Whether the arguments are an [`Extent`].
    pub fn uses_extent(&self) -> bool {
        use code::*;
        self.code & TYPE_MASK == TYPE_DATA
            && matches!(
                self.code,
                READ | MAPEXT
                    | SPARSE_READ
                    | SYNC_READ
                    | CMPEXT
                    | WRITE
                    | WRITEFULL
                    | TRUNCATE
                    | ZERO
                    | APPEND
                    | TRIMTRUNC
            )
    }

    pub fn extent(&self) -> Extent {
        Extent {
            offset: self.u64_at(0),
            length: self.u64_at(8),
            truncate_size: self.u64_at(16),
            truncate_seq: self.u32_at(24),
        }
    }

    pub fn set_extent(&mut self, e: Extent) {
        self.args[..8].copy_from_slice(&e.offset.to_le_bytes());
        self.args[8..16].copy_from_slice(&e.length.to_le_bytes());
        self.args[16..24].copy_from_slice(&e.truncate_size.to_le_bytes());
        self.args[24..28].copy_from_slice(&e.truncate_seq.to_le_bytes());
    }

    pub fn set_extent_length(&mut self, length: u64) {
        self.args[8..16].copy_from_slice(&length.to_le_bytes());
    }

    pub fn xattr(&self) -> XattrArgs {
        XattrArgs {
            name_len: self.u32_at(0),
            value_len: self.u32_at(4),
            cmp_op: self.args[8],
            cmp_mode: self.args[9],
        }
    }

    pub fn set_xattr(&mut self, x: XattrArgs) {
        self.args[..4].copy_from_slice(&x.name_len.to_le_bytes());
        self.args[4..8].copy_from_slice(&x.value_len.to_le_bytes());
        self.args[8] = x.cmp_op;
        self.args[9] = x.cmp_mode;
    }

    pub fn checksum(&self) -> ChecksumArgs {
        ChecksumArgs {
            offset: self.u64_at(0),
            length: self.u64_at(8),
            chunk_size: self.u32_at(16),
            type_: self.args[20],
        }
    }

    /// ASSERT_VER: the version that the object must have (after 8 unused bytes).
    pub fn assert_ver(&self) -> u64 {
        self.u64_at(8)
    }

    /// PGLS and PGNLS: the most entries wanted (after the cookie).
    pub fn list_count(&self) -> u64 {
        self.u64_at(8)
    }

    /// WRITESAME: offset, total length, length of the repeated data.
    pub fn writesame(&self) -> (u64, u64, u64) {
        (self.u64_at(0), self.u64_at(8), self.u64_at(16))
    }

    /// SET_ALLOC_HINT: expected object size, expected write size, flags.
    pub fn alloc_hint(&self) -> (u64, u64, u32) {
        (self.u64_at(0), self.u64_at(8), self.u32_at(16))
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut b = [0; 8];
        b.copy_from_slice(&self.args[at..at + 8]);
        u64::from_le_bytes(b)
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut b = [0; 4];
        b.copy_from_slice(&self.args[at..at + 4]);
        u32::from_le_bytes(b)
    }
}

/// What the codes of a request ask for (Ceph's `rmw_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpClass {
    pub reads: bool,
    pub writes: bool,
    pub pg: bool,
    pub calls: bool,
}

impl OpClass {
    pub fn of(ops: &[SubOp]) -> Self {
        let mut class = Self::default();
        for op in ops {
            class.reads |= op.reads() || op.code == code::WATCH;
            class.writes |= op.modifies() || op.caches();
            class.pg |= op.is_pg_op();
            class.calls |= op.code == code::CALL;
        }
        class
    }

    /// A request that asks for nothing is invalid.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_code_bits() {
        let class = |codes: &[u16]| {
            OpClass::of(&codes.iter().map(|&c| SubOp::new(c)).collect::<Vec<_>>())
        };
        assert_eq!(class(&[code::READ]), OpClass { reads: true, ..OpClass::default() });
        assert_eq!(class(&[code::WRITE]), OpClass { writes: true, ..OpClass::default() });
        let both = OpClass { reads: true, writes: true, ..OpClass::default() };
        assert_eq!(class(&[code::CMPXATTR, code::APPEND]), both);
        assert!(class(&[code::PGNLS]).pg);
        assert!(!class(&[code::CALL]).reads);
        assert!(class(&[]).is_empty());
    }

    #[test]
    fn arguments_are_read_back_as_written() {
        let mut op = SubOp::new(code::WRITE);
        let e = Extent { offset: 1, length: u64::MAX, truncate_size: 3, truncate_seq: 4 };
        op.set_extent(e);
        assert_eq!(op.extent(), e);
        let x = XattrArgs { name_len: 5, value_len: 6, cmp_op: 1, cmp_mode: 2 };
        op.set_xattr(x);
        assert_eq!(op.xattr(), x);
    }
}
