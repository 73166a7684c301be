//! Turns what the interpreter decided into one store transaction.

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, Position, Tx};
use spirula_wire::types::SpgId;
use spirula_wire::{Encode, Features};

use crate::object::{AKEY, META_OBJECT, ObjectInfo, dkey};
use crate::pg::log::{LogEntry, Trim, version_key};
use crate::plan::{Effect, Rollback};

const F: Features = Features::PACIFIC;
/// Bytes under one checksum.
const CHUNK_LEN: usize = 4096;

/// The container of a PG shard: pool, bit-reversed seed, shard; so containers sort by pool.
pub fn container_id(pgid: SpgId) -> ContainerId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&pgid.pgid.pool.to_be_bytes());
    id[8..12].copy_from_slice(&pgid.pgid.seed.to_be_bytes());
    id[12] = pgid.shard.0 as u8;
    ContainerId(id)
}

/// The PG shard whose container this is.
pub fn container_pg(cid: ContainerId) -> SpgId {
    use spirula_wire::types::{PgId, ShardId};
    let [p0, p1, p2, p3, p4, p5, p6, p7, s0, s1, s2, s3, shard, ..] = cid.0;
    SpgId {
        pgid: PgId::new(
            i64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            u32::from_be_bytes([s0, s1, s2, s3]),
        ),
        shard: ShardId(shard as i8),
    }
}

/// Checksums that the messenger made of the request's data segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct DataCrcs<'a> {
    /// Per 4 KiB of the segment; empty when it was not checked by chunks.
    pub chunks: &'a [u32],
    /// The one input that is the whole segment, if so.
    pub input: Option<&'a Bytes>,
}

impl DataCrcs<'_> {
    /// Those of `data` if it is the segment itself: what an operation makes of its input has others.
    fn of(&self, data: &Bytes) -> Option<Vec<u32>> {
        let input = self.input?;
        let same = (input.as_ptr(), input.len()) == (data.as_ptr(), data.len());
        (same && self.chunks.len() == data.len().div_ceil(CHUNK_LEN)).then(|| self.chunks.to_vec())
    }
}

/// Adds the changes of one object to `tx`.
pub fn apply_effects(
    tx: &mut Tx,
    cid: ContainerId,
    oid: &ObjectKey,
    effects: Vec<Effect>,
    info: Option<&ObjectInfo>,
    crcs: DataCrcs<'_>,
    has_clones: bool,
) {
    for effect in effects {
        match effect {
            Effect::Remove if has_clones => {
                dkey::HEAD.iter().for_each(|dkey| tx.punch_dkey(cid, oid, dkey));
            }
            Effect::Remove => tx.punch_object(cid, oid),
            Effect::Rollback(to) => roll_back(tx, cid, oid, to),
            Effect::Write { offset, data } => {
                let crcs = crcs.of(&data);
                tx.write(cid, oid, dkey::DATA, AKEY, offset, data, crcs);
            }
            Effect::Truncate(size) => tx.truncate(cid, oid, dkey::DATA, AKEY, size),
            Effect::Zero { offset, length } => {
                tx.punch_range(cid, oid, dkey::DATA, AKEY, offset, length);
            }
            Effect::SetXattr { name, value } => {
                tx.update(cid, oid, dkey::XATTR, &akey(&name), value);
            }
            Effect::RemoveXattr(name) => tx.punch_akey(cid, oid, dkey::XATTR, &akey(&name)),
            Effect::SetOmap(pairs) => {
                for (key, value) in pairs {
                    tx.update(cid, oid, dkey::OMAP, &akey(&key), value);
                }
            }
            Effect::SetOmapHeader(header) => {
                tx.update(cid, oid, dkey::OMAP_HEADER, AKEY, header);
            }
            Effect::RemoveOmapKeys(keys) => {
                keys.iter().for_each(|k| tx.punch_akey(cid, oid, dkey::OMAP, &akey(k)));
            }
            Effect::RemoveOmapRange { from, to } => {
                if from < to {
                    tx.punch_akeys(cid, oid, dkey::OMAP, &akey(&from), Some(&akey(&to)));
                }
            }
            Effect::Clone { cid: from, oid: source, epoch, length } => {
                let data =
                    |cid, oid| Position { cid, oid, dkey: dkey::DATA, akey: AKEY, offset: 0 };
                tx.clone_range(data(from, &source), epoch, length, data(cid, oid));
            }
            Effect::ClearOmap => {
                tx.punch_dkey(cid, oid, dkey::OMAP);
                tx.punch_dkey(cid, oid, dkey::OMAP_HEADER);
            }
        }
    }
    if let Some(info) = info {
        let mut raw = Vec::with_capacity(64);
        info.encode(&mut raw, F);
        tx.update(cid, oid, dkey::INFO, AKEY, raw.into());
    }
}

/// The data of a clone becomes the head's by shared extents.
fn roll_back(tx: &mut Tx, cid: ContainerId, oid: &ObjectKey, to: Rollback) {
    if to.whole {
        let parts = [dkey::XATTR, dkey::OMAP_HEADER, dkey::OMAP];
        parts.iter().for_each(|dkey| tx.punch_dkey(cid, oid, dkey));
    }
    if to.size > 0 {
        let data = Position { cid, oid, dkey: dkey::DATA, akey: AKEY, offset: 0 };
        tx.clone_range(data, to.epoch, to.size, data);
    }
    tx.truncate(cid, oid, dkey::DATA, AKEY, to.size);
}

/// Adds a log entry, and the cut that is due with it.
pub fn apply_log(tx: &mut Tx, cid: ContainerId, entry: &LogEntry, trim: Option<&Trim>) {
    let meta = meta_object();
    let mut raw = Vec::with_capacity(256);
    entry.encode(&mut raw, F);
    tx.update(cid, &meta, dkey::LOG, &version_key(entry.version), raw.into());
    if let Some(trim) = trim {
        tx.punch_akeys(cid, &meta, dkey::LOG, &[0], Some(&trim.log_to));
        tx.update(cid, &meta, dkey::DUPS, &trim.batch_key, trim.batch.clone());
        if let Some(to) = &trim.dups_to {
            tx.punch_akeys(cid, &meta, dkey::DUPS, &[0], Some(to));
        }
    }
}

/// The object that holds the PG's own records.
pub fn meta_object() -> ObjectKey {
    ObjectKey(Bytes::from_static(META_OBJECT))
}

/// The akey of a name or omap key, which may be empty where an akey may not.
pub fn akey(name: &[u8]) -> Vec<u8> {
    [&[KEY_MARK], name].concat()
}

/// The name behind an akey.
pub fn name_of_akey(akey: &Bytes) -> Bytes {
    akey.slice(1.min(akey.len())..)
}

const KEY_MARK: u8 = b'.';
