//! Metrics that daemons report to the manager: performance counters and dynamic per-key queries.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::denc::Opaque;
use crate::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// Bits of [`PerfCounterType::type_`] (`perfcounter_type_d`).
pub mod counter_type {
    pub const TIME: u8 = 0x1;
    pub const U64: u8 = 0x2;
    /// A sum with a count: three numbers are packed, not one.
    pub const LONGRUNAVG: u8 = 0x4;
    pub const COUNTER: u8 = 0x8;
    pub const HISTOGRAM: u8 = 0x10;
}

/// Priorities of counters: below 5 (`USEFUL`) a manager usually does not ask for them.
pub mod counter_priority {
    pub const CRITICAL: u8 = 10;
    pub const INTERESTING: u8 = 8;
    pub const USEFUL: u8 = 5;
    pub const UNINTERESTING: u8 = 2;
    pub const DEBUGONLY: u8 = 0;
}

/// The schema of one counter, sent once before its values.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 3, compat = 1)]
pub struct PerfCounterType {
    pub path: String,
    pub description: String,
    pub nick: String,
    pub type_: u8,
    #[denc(since = 2)]
    pub priority: u8,
    /// 0 none, 1 bytes.
    #[denc(since = 3)]
    pub unit: u8,
}

/// A value in [`MgrReport::packed`](crate::msg::mgr::MgrReport::packed), which holds one for each
/// declared counter in the order of their declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerfValue {
    Single(u64),
    /// `LONGRUNAVG`: sum, count, and the count again.
    Average {
        sum: u64,
        count: u64,
        count2: u64,
    },
}

impl PerfValue {
    pub fn pack(&self, out: &mut Vec<u8>) {
        let f = Features::default();
        match self {
            Self::Single(value) => value.encode(out, f),
            Self::Average { sum, count, count2 } => {
                sum.encode(out, f);
                count.encode(out, f);
                count2.encode(out, f);
            }
        }
    }

    pub fn unpack(type_: u8, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if type_ & counter_type::LONGRUNAVG == 0 {
            return r.u64().map(Self::Single);
        }
        Ok(Self::Average { sum: r.u64()?, count: r.u64()?, count2: r.u64()? })
    }
}

/// A vector whose count is a varint (7 bits a byte, lowest first).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct VarVec<T>(pub Vec<T>);

impl<T: Encode> Encode for VarVec<T> {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let mut n = self.0.len();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        self.0.iter().for_each(|v| v.encode(out, f));
    }
}

impl<T: Decode> Decode for VarVec<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut n = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = r.u8()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Self::items(n, r);
            }
        }
        Err(DecodeError::Invalid { what: "varint count", value: n })
    }
}

impl<T: Decode> VarVec<T> {
    fn items(n: u64, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let needed = (n as usize).saturating_mul(T::MIN_SIZE);
        if needed > r.remaining() {
            let (what, remaining) = ("varint vector", r.remaining());
            return Err(DecodeError::Truncated { what, needed, remaining });
        }
        (0..n).map(|_| T::decode(r)).collect::<Result<_, _>>().map(Self)
    }
}

/// One component of a query's key: what it is taken from, and the regex that cuts it out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct OsdPerfSubKey {
    pub type_: u8,
    pub regex: String,
}

/// Which number a query counts (`PerformanceCounterType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct OsdPerfCounter {
    pub type_: u8,
}

/// `OSDPerfMetricQuery`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct OsdPerfQuery {
    pub key_descriptor: VarVec<OsdPerfSubKey>,
    pub counters: VarVec<OsdPerfCounter>,
}

/// `OSDPerfMetricLimit`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct OsdPerfLimit {
    pub order_by: OsdPerfCounter,
    pub max_count: u64,
}

/// `OSDPerfMetricReport`: packed counters by key.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct OsdPerfReport {
    pub counters: VarVec<OsdPerfCounter>,
    pub groups: BTreeMap<Vec<Vec<String>>, Bytes>,
}

pub type OsdPerfQueries = BTreeMap<OsdPerfQuery, BTreeSet<OsdPerfLimit>>;
pub type OsdPerfReports = BTreeMap<OsdPerfQuery, OsdPerfReport>;

/// `MetricConfigMessage`, `MetricReportMessage`: 0 is for OSDs, 1 for MDSs, each with its own
/// contents.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct MetricMessage {
    pub type_: u32,
    pub payload: Opaque,
}

/// Kinds of [`DaemonHealthMetric`].
pub mod health_metric {
    pub const SLOW_OPS: u8 = 0;
    pub const PENDING_CREATING_PGS: u8 = 1;
    pub const NONE: u8 = 2;
}

/// `DaemonHealthMetric`: for slow ops the count is in the low and the oldest age (seconds) in the
/// high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct DaemonHealthMetric {
    pub type_: u8,
    pub value: u64,
}
