//! Counters of a PG, kept incrementally and stored with every log entry.

use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

/// The part of Ceph's `object_stat_sum_t` that changes at size 1 without snapshots; as a delta and
/// as a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StatDelta {
    pub num_bytes: i64,
    pub num_objects: i64,
    pub num_objects_omap: i64,
    pub num_rd: i64,
    pub num_rd_kb: i64,
    pub num_wr: i64,
    pub num_wr_kb: i64,
}

/// The counters of a whole PG.
pub type StatSum = StatDelta;

impl StatDelta {
    pub fn add(&mut self, d: &Self) {
        self.num_bytes += d.num_bytes;
        self.num_objects += d.num_objects;
        self.num_objects_omap += d.num_objects_omap;
        self.num_rd += d.num_rd;
        self.num_rd_kb += d.num_rd_kb;
        self.num_wr += d.num_wr;
        self.num_wr_kb += d.num_wr_kb;
    }

    /// What a request that changed nothing still counts.
    pub fn reads_only(self) -> Self {
        Self { num_rd: self.num_rd, num_rd_kb: self.num_rd_kb, ..Self::default() }
    }

    /// Whether applying it takes space: what a full pool refuses.
    pub fn grows(&self) -> bool {
        self.num_bytes > 0 || self.num_objects > 0
    }

    fn fields(&self) -> [i64; 7] {
        [
            self.num_bytes,
            self.num_objects,
            self.num_objects_omap,
            self.num_rd,
            self.num_rd_kb,
            self.num_wr,
            self.num_wr_kb,
        ]
    }
}

impl Encode for StatDelta {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.fields().iter().for_each(|v| v.encode(out, f));
    }
}

impl Decode for StatDelta {
    const MIN_SIZE: usize = 56;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            num_bytes: r.i64()?,
            num_objects: r.i64()?,
            num_objects_omap: r.i64()?,
            num_rd: r.i64()?,
            num_rd_kb: r.i64()?,
            num_wr: r.i64()?,
            num_wr_kb: r.i64()?,
        })
    }
}
