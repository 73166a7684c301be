//! Turns what the interpreter decided into one store transaction.

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, Position, Tx, Vos};
use spirula_wire::types::SpgId;
use spirula_wire::{Encode, Features};

use crate::object::{AKEY, META_OBJECT, ObjectInfo, dkey, lowest_key};
use crate::pg::log::{LogEntry, Trim, version_key};
use crate::plan::{Effect, Rollback};

const F: Features = Features::PACIFIC;
/// Bytes under one checksum.
const CHUNK_LEN: usize = 4096;

/// Which of the containers of a PG shard. The PG's own records are at the lowest key that it can have, so
/// that its container can be one half of another; in old ones at the lowest key of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Old = 0,
    Splittable = 1,
    /// Ends with the transaction that makes it.
    Passing = 2,
    /// The same, where there are two.
    Rest = 3,
}

/// The container of a PG shard: pool, seed, shard; so containers sort by pool.
pub fn container_id(pgid: SpgId, layout: Layout) -> ContainerId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&pgid.pgid.pool.to_be_bytes());
    id[8..12].copy_from_slice(&pgid.pgid.seed.to_be_bytes());
    id[12] = pgid.shard.0 as u8;
    id[13] = layout as u8;
    ContainerId(id)
}

/// The container that a PG shard has, or shall have.
pub fn container_of(vos: &Vos, pgid: SpgId) -> ContainerId {
    let old = container_id(pgid, Layout::Old);
    if vos.container_exists(old) { old } else { container_id(pgid, Layout::Splittable) }
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

/// Makes the container of a PG of a pool with `pg_num` PGs.
pub fn create_container(tx: &mut Tx, cid: ContainerId, pg_num: u32) {
    tx.create_container(cid);
    set_pg_num(tx, cid, pg_num);
}

/// Notes how many PGs share the pool: so which objects are in the container.
pub fn set_pg_num(tx: &mut Tx, cid: ContainerId, pg_num: u32) {
    tx.set_container_property(cid, PG_NUM, Some(Bytes::copy_from_slice(&pg_num.to_be_bytes())));
}

/// What [`set_pg_num`] noted; `None` in containers made before that was done.
pub fn pg_num_of(vos: &Vos, cid: ContainerId) -> Option<u32> {
    let raw = vos.container_property(cid, PG_NUM)?;
    Some(u32::from_be_bytes(raw[..].try_into().ok()?))
}

/// A property of containers.
const PG_NUM: &[u8] = b"pg_num";

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

/// Adds a log entry.
pub fn apply_log(tx: &mut Tx, cid: ContainerId, entry: &LogEntry) {
    let meta = meta_object(cid);
    let mut raw = Vec::with_capacity(256);
    entry.encode(&mut raw, F);
    tx.update(cid, &meta, dkey::LOG, &version_key(entry.version), raw.into());
}

/// Adds a cut of the log.
pub fn apply_trim(tx: &mut Tx, cid: ContainerId, trim: &Trim) {
    let meta = meta_object(cid);
    tx.punch_akeys(cid, &meta, dkey::LOG, &[0], Some(&trim.log_to));
    tx.update(cid, &meta, dkey::DUPS, &trim.batch_key, trim.batch.clone());
    if let Some(to) = &trim.dups_to {
        tx.punch_akeys(cid, &meta, dkey::DUPS, &[0], Some(to));
    }
}

/// The object that holds the PG's own records.
pub fn meta_object(cid: ContainerId) -> ObjectKey {
    if cid.0[13] == Layout::Old as u8 {
        return ObjectKey(Bytes::from_static(META_OBJECT));
    }
    ObjectKey(lowest_key(container_pg(cid).pgid.seed))
}

/// The object that holds what peering knows. It is one of its own, so that it is written without regard to
/// the epochs of the primary's transactions.
pub fn peering_object(cid: ContainerId) -> ObjectKey {
    ObjectKey([&meta_object(cid).0[..], PEERING_KEY].concat().into())
}

/// Names no object: no string begins with it.
const PEERING_KEY: &[u8] = &[0, 2];

/// The akey of a name or omap key, which may be empty where an akey may not.
pub fn akey(name: &[u8]) -> Vec<u8> {
    [&[KEY_MARK], name].concat()
}

/// The name behind an akey.
pub fn name_of_akey(akey: &Bytes) -> Bytes {
    akey.slice(1.min(akey.len())..)
}

const KEY_MARK: u8 = b'.';
