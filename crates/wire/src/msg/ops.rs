//! Operations inside an `osd_op`: the table of op codes, their arguments, and their flags.
//!
//! Source of the format: Ceph's `include/rados.h` (`ceph_osd_op`, 38 bytes: code, flags, a union of
//! 28 bytes, payload length). To add an op: one row in the table.

use std::fmt;

use crate::types::{SnapId, UTime};
use crate::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// Which member of the argument union an op uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    None,
    Extent,
    Xattr,
    Cls,
    Pgls,
    Snap,
    Watch,
    Notify,
    AssertVer,
    CopyGet,
    CopyFrom,
    HitSetGet,
    AllocHint,
    WriteSame,
    Checksum,
}

/// An op code; the numbers carry the op's mode (read, write) and kind (data, attr, exec, pg).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct OpCode(pub u16);

macro_rules! ops {
    ($($konst:ident = $code:literal, $name:literal, $layout:ident, $input:literal;)*) => {
        impl OpCode {
            $(pub const $konst: Self = Self($code);)*

            /// All that Ceph defines, in the order of the table.
            pub const ALL: &[Self] = &[$(Self($code)),*];

            /// The name in Ceph's logs.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($code => $name,)*
                    _ => "unknown",
                }
            }

            /// Whether Ceph defines this code.
            pub fn is_known(self) -> bool {
                matches!(self.0, $($code)|*)
            }

            /// Whether a request carries bytes for this op in its data segment.
            pub fn has_input(self) -> bool {
                match self.0 {
                    $($code => $input,)*
                    _ => false,
                }
            }

            fn layout(self) -> Layout {
                match self.0 {
                    $($code => Layout::$layout,)*
                    _ => Layout::None,
                }
            }
        }
    };
}

ops! {
    // Data, reading.
    READ = 0x1201, "read", Extent, false;
    STAT = 0x1202, "stat", None, false;
    MAPEXT = 0x1203, "mapext", Extent, false;
    MASKTRUNC = 0x1204, "masktrunc", Extent, false;
    SPARSE_READ = 0x1205, "sparse-read", Extent, false;
    NOTIFY = 0x1206, "notify", Notify, true;
    NOTIFY_ACK = 0x1207, "notify-ack", None, true;
    ASSERT_VER = 0x1208, "assert-version", AssertVer, false;
    LIST_WATCHERS = 0x1209, "list-watchers", None, false;
    LIST_SNAPS = 0x120a, "list-snaps", None, false;
    SYNC_READ = 0x120b, "sync_read", Extent, false;
    TMAPGET = 0x120c, "tmapget", None, false;
    OMAP_GET_KEYS = 0x1211, "omap-get-keys", None, true;
    OMAP_GET_VALS = 0x1212, "omap-get-vals", None, true;
    OMAP_GET_HEADER = 0x1213, "omap-get-header", None, false;
    OMAP_GET_VALS_BY_KEYS = 0x1214, "omap-get-vals-by-keys", None, true;
    OMAP_CMP = 0x1219, "omap-cmp", None, true;
    ISDIRTY = 0x121d, "isdirty", None, false;
    COPY_GET = 0x121e, "copy-get", CopyGet, true;
    CHECKSUM = 0x121f, "checksum", Checksum, true;
    CMPEXT = 0x1220, "cmpext", Extent, true;
    // Data, writing.
    WRITE = 0x2201, "write", Extent, true;
    WRITEFULL = 0x2202, "writefull", Extent, true;
    TRUNCATE = 0x2203, "truncate", Extent, false;
    ZERO = 0x2204, "zero", Extent, false;
    DELETE = 0x2205, "delete", None, false;
    APPEND = 0x2206, "append", Extent, true;
    STARTSYNC = 0x2207, "startsync", None, false;
    SETTRUNC = 0x2208, "settrunc", Extent, false;
    TRIMTRUNC = 0x2209, "trimtrunc", Extent, false;
    TMAPUP = 0x320a, "tmapup", None, true;
    TMAPPUT = 0x220b, "tmapput", None, true;
    CREATE = 0x220d, "create", None, true;
    ROLLBACK = 0x220e, "rollback", Snap, false;
    WATCH = 0x220f, "watch", Watch, false;
    OMAP_SET_VALS = 0x2215, "omap-set-vals", None, true;
    OMAP_SET_HEADER = 0x2216, "omap-set-header", None, true;
    OMAP_CLEAR = 0x2217, "omap-clear", None, false;
    OMAP_RM_KEYS = 0x2218, "omap-rm-keys", None, true;
    COPY_FROM = 0x221a, "copy-from", CopyFrom, true;
    UNDIRTY = 0x221c, "undirty", None, false;
    TMAP2OMAP = 0x3222, "tmap2omap", None, false;
    SET_ALLOC_HINT = 0x2223, "set-alloc-hint", AllocHint, false;
    CACHE_PIN = 0x2224, "cache-pin", None, false;
    CACHE_UNPIN = 0x2225, "cache-unpin", None, false;
    WRITESAME = 0x2226, "write-same", WriteSame, true;
    SET_REDIRECT = 0x2227, "set-redirect", CopyFrom, true;
    TIER_PROMOTE = 0x2229, "tier-promote", None, false;
    UNSET_MANIFEST = 0x222a, "unset-manifest", None, false;
    OMAP_RM_KEY_RANGE = 0x222c, "omap-rm-key-range", None, true;
    COPY_FROM2 = 0x222d, "copy-from2", CopyFrom, true;
    // Cache tier.
    CACHE_FLUSH = 0x821f, "cache-flush", None, false;
    CACHE_EVICT = 0x8220, "cache-evict", None, false;
    CACHE_TRY_FLUSH = 0x8221, "cache-try-flush", None, false;
    SET_CHUNK = 0x8228, "set-chunk", None, true;
    TIER_FLUSH = 0x822b, "tier-flush", None, false;
    TIER_EVICT = 0x822c, "tier-evict", None, false;
    // Extended attributes.
    GETXATTR = 0x1301, "getxattr", Xattr, true;
    GETXATTRS = 0x1302, "getxattrs", None, false;
    CMPXATTR = 0x1303, "cmpxattr", Xattr, true;
    SETXATTR = 0x2301, "setxattr", Xattr, true;
    SETXATTRS = 0x2302, "setxattrs", None, true;
    RESETXATTRS = 0x2303, "resetxattrs", Xattr, true;
    RMXATTR = 0x2304, "rmxattr", Xattr, true;
    // Object classes.
    CALL = 0x1401, "call", Cls, true;
    // Whole PGs.
    PGLS = 0x1501, "pgls", Pgls, true;
    PGLS_FILTER = 0x1502, "pgls-filter", Pgls, true;
    PG_HITSET_LS = 0x1503, "pg-hitset-ls", None, false;
    PG_HITSET_GET = 0x1504, "pg-hitset-get", HitSetGet, false;
    PGNLS = 0x1505, "pgnls", Pgls, true;
    PGNLS_FILTER = 0x1506, "pgnls-filter", Pgls, true;
    SCRUBLS = 0x1507, "scrubls", None, true;
}

impl OpCode {
    const MODE_READ: u16 = 0x1000;
    const MODE_WRITE: u16 = 0x2000;
    const MODE_CACHE: u16 = 0x8000;
    const KIND: u16 = 0x0f00;

    /// By its number. Of a class call neither this nor [`OpCode::writes`] is told: its method
    /// decides.
    pub fn reads(self) -> bool {
        self.0 & Self::MODE_READ != 0 && self != Self::CALL
    }

    pub fn writes(self) -> bool {
        self.0 & Self::MODE_WRITE != 0
    }

    pub fn is_cache_op(self) -> bool {
        self.0 & Self::MODE_CACHE != 0
    }

    /// About a PG, not an object.
    pub fn is_pg_op(self) -> bool {
        self.0 & Self::KIND == 0x0500
    }
}

impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#06x})", self.name(), self.0)
    }
}

/// Bytes of the argument union.
pub const ARGS_SIZE: usize = 28;

/// The arguments of an op: the member of the union that its code calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpArgs {
    /// No arguments (zeros), or those of an op this table does not know.
    Raw([u8; ARGS_SIZE]),
    Extent {
        offset: u64,
        length: u64,
        truncate_size: u64,
        truncate_seq: u32,
    },
    Xattr {
        name_len: u32,
        value_len: u32,
        cmp_op: u8,
        cmp_mode: u8,
    },
    Cls {
        class_len: u8,
        method_len: u8,
        argc: u8,
        indata_len: u32,
    },
    Pgls {
        count: u64,
        start_epoch: u32,
    },
    Snap {
        snapid: SnapId,
    },
    Watch {
        cookie: u64,
        ver: u64,
        op: u8,
        gen_: u32,
        timeout: u32,
    },
    Notify {
        cookie: u64,
    },
    AssertVer {
        ver: u64,
    },
    CopyGet {
        max: u64,
    },
    CopyFrom {
        snapid: SnapId,
        src_version: u64,
        flags: u8,
        src_fadvise_flags: u32,
    },
    HitSetGet {
        stamp: UTime,
    },
    AllocHint {
        expected_object_size: u64,
        expected_write_size: u64,
        flags: u32,
    },
    WriteSame {
        offset: u64,
        length: u64,
        data_length: u64,
    },
    Checksum {
        offset: u64,
        length: u64,
        chunk_size: u32,
        type_: u8,
    },
}

impl Default for OpArgs {
    fn default() -> Self {
        Self::Raw([0; ARGS_SIZE])
    }
}

impl OpArgs {
    pub fn extent(offset: u64, length: u64) -> Self {
        Self::Extent { offset, length, truncate_size: 0, truncate_seq: 0 }
    }

    pub(crate) fn decode(code: OpCode, raw: [u8; ARGS_SIZE]) -> Result<Self, DecodeError> {
        let r = &mut Reader::new(&raw);
        Ok(match code.layout() {
            Layout::None => Self::Raw(raw),
            Layout::Extent => Self::Extent {
                offset: r.u64()?,
                length: r.u64()?,
                truncate_size: r.u64()?,
                truncate_seq: r.u32()?,
            },
            Layout::Xattr => Self::Xattr {
                name_len: r.u32()?,
                value_len: r.u32()?,
                cmp_op: r.u8()?,
                cmp_mode: r.u8()?,
            },
            Layout::Cls => Self::Cls {
                class_len: r.u8()?,
                method_len: r.u8()?,
                argc: r.u8()?,
                indata_len: r.u32()?,
            },
            Layout::Pgls => Self::Pgls { count: r.u64()?, start_epoch: r.u32()? },
            Layout::Snap => Self::Snap { snapid: SnapId(r.u64()?) },
            Layout::Watch => Self::Watch {
                cookie: r.u64()?,
                ver: r.u64()?,
                op: r.u8()?,
                gen_: r.u32()?,
                timeout: r.u32()?,
            },
            Layout::Notify => Self::Notify { cookie: r.u64()? },
            Layout::AssertVer => {
                r.skip(8, "unused")?;
                Self::AssertVer { ver: r.u64()? }
            }
            Layout::CopyGet => Self::CopyGet { max: r.u64()? },
            Layout::CopyFrom => Self::CopyFrom {
                snapid: SnapId(r.u64()?),
                src_version: r.u64()?,
                flags: r.u8()?,
                src_fadvise_flags: r.u32()?,
            },
            Layout::HitSetGet => Self::HitSetGet { stamp: UTime::decode(r)? },
            Layout::AllocHint => Self::AllocHint {
                expected_object_size: r.u64()?,
                expected_write_size: r.u64()?,
                flags: r.u32()?,
            },
            Layout::WriteSame => {
                Self::WriteSame { offset: r.u64()?, length: r.u64()?, data_length: r.u64()? }
            }
            Layout::Checksum => Self::Checksum {
                offset: r.u64()?,
                length: r.u64()?,
                chunk_size: r.u32()?,
                type_: r.u8()?,
            },
        })
    }

    /// Always [`ARGS_SIZE`] bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        macro_rules! put {
            ($($field:expr),*) => {{ $($field.encode(out, Features::default());)* }};
        }
        let end = out.len() + ARGS_SIZE;
        match *self {
            Self::Raw(raw) => put!(raw),
            Self::Extent { offset, length, truncate_size, truncate_seq } => {
                put!(offset, length, truncate_size, truncate_seq);
            }
            Self::Xattr { name_len, value_len, cmp_op, cmp_mode } => {
                put!(name_len, value_len, cmp_op, cmp_mode);
            }
            Self::Cls { class_len, method_len, argc, indata_len } => {
                put!(class_len, method_len, argc, indata_len);
            }
            Self::Pgls { count, start_epoch } => put!(count, start_epoch),
            Self::Snap { snapid } => put!(snapid),
            Self::Watch { cookie, ver, op, gen_, timeout } => put!(cookie, ver, op, gen_, timeout),
            Self::Notify { cookie } => put!(cookie),
            Self::AssertVer { ver } => put!(0u64, ver),
            Self::CopyGet { max } => put!(max),
            Self::CopyFrom { snapid, src_version, flags, src_fadvise_flags } => {
                put!(snapid, src_version, flags, src_fadvise_flags);
            }
            Self::HitSetGet { stamp } => put!(stamp),
            Self::AllocHint { expected_object_size, expected_write_size, flags } => {
                put!(expected_object_size, expected_write_size, flags);
            }
            Self::WriteSame { offset, length, data_length } => put!(offset, length, data_length),
            Self::Checksum { offset, length, chunk_size, type_ } => {
                put!(offset, length, chunk_size, type_);
            }
        }
        out.resize(end, 0);
    }
}

/// Flags of one op (`CEPH_OSD_OP_FLAG_*`).
pub mod op_flag {
    /// A create that must make the object.
    pub const EXCL: u32 = 0x1;
    /// The ops after this one run even if it fails.
    pub const FAILOK: u32 = 0x2;
    pub const FADVISE_RANDOM: u32 = 0x4;
    pub const FADVISE_SEQUENTIAL: u32 = 0x8;
    pub const FADVISE_WILLNEED: u32 = 0x10;
    pub const FADVISE_DONTNEED: u32 = 0x20;
    pub const FADVISE_NOCACHE: u32 = 0x40;
    pub const WITH_REFERENCE: u32 = 0x80;
    pub const BYPASS_CLEAN_CACHE: u32 = 0x100;
}

/// `cmp_op` of a [`OpArgs::Xattr`].
pub mod cmpxattr_op {
    pub const EQ: u8 = 1;
    pub const NE: u8 = 2;
    pub const GT: u8 = 3;
    pub const GTE: u8 = 4;
    pub const LT: u8 = 5;
    pub const LTE: u8 = 6;
}

/// `cmp_mode` of a [`OpArgs::Xattr`].
pub mod cmpxattr_mode {
    pub const STRING: u8 = 1;
    pub const U64: u8 = 2;
}

/// `op` of a [`OpArgs::Watch`].
pub mod watch_op {
    pub const UNWATCH: u8 = 0;
    pub const LEGACY_WATCH: u8 = 1;
    pub const WATCH: u8 = 3;
    pub const RECONNECT: u8 = 5;
    pub const PING: u8 = 7;
}

/// `flags` of a [`OpArgs::CopyFrom`].
pub mod copy_from_flag {
    pub const FLUSH: u8 = 1;
    pub const IGNORE_OVERLAY: u8 = 2;
    pub const IGNORE_CACHE: u8 = 4;
    pub const MAP_SNAP_CLONE: u8 = 8;
    pub const RWORDERED: u8 = 16;
    /// `copy-from2` only: a truncation is in the input.
    pub const TRUNCATE_SEQ: u8 = 32;
}

/// `type_` of a [`OpArgs::Checksum`].
pub mod checksum_type {
    pub const XXHASH32: u8 = 0;
    pub const XXHASH64: u8 = 1;
    pub const CRC32C: u8 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_follow_from_the_code() {
        assert!(OpCode::READ.reads() && !OpCode::READ.writes());
        assert!(OpCode::WRITE.writes() && !OpCode::WRITE.reads());
        assert!(OpCode::TMAPUP.reads() && OpCode::TMAPUP.writes());
        assert!(!OpCode::CALL.reads() && !OpCode::CALL.writes());
        assert!(OpCode::PGNLS.is_pg_op() && !OpCode::GETXATTR.is_pg_op());
        assert_eq!(OpCode(0x1201).name(), "read");
        assert!(!OpCode(0x7777).is_known());
    }

    #[test]
    fn every_layout_fills_the_union() {
        let raw: [u8; ARGS_SIZE] = std::array::from_fn(|i| i as u8 + 1);
        for code in 0..=u16::MAX {
            let args = OpArgs::decode(OpCode(code), raw).unwrap();
            let mut out = Vec::new();
            args.encode(&mut out);
            assert_eq!(out.len(), ARGS_SIZE, "{:?}", OpCode(code));
            let again = OpArgs::decode(OpCode(code), out.try_into().unwrap()).unwrap();
            assert_eq!(again, args);
        }
    }
}
