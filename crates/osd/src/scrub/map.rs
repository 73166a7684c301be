//! What this copy has of a range of objects, as copies tell each other for a scrub.
//!
//! Of a light scrub versions, sizes and attributes; of a deep one also digests of data and omap, for which
//! all of it is read from the device and verified.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use spirula_store::{Store, StoreError};
use spirula_vos::{ContainerId, Extent, ObjectKey, ReadError, Vos};
use spirula_wire::types::{
    HObject, INFO_ATTR, SNAPSET_ATTR, ScrubObject, StoredClone, StoredInfo, StoredSnapSet,
    shard_error,
};
use spirula_wire::{Decode, Encode, Features};
use spirula_xstream::yield_now;

use crate::apply::name_of_akey;
use crate::copies::{list_objects, stored_version};
use crate::object::{AKEY, ObjectInfo, dkey};
use crate::shard::stored::key_of;
use crate::snap::{SnapClone, SnapHeader, clone_of_akey};

const F: Features = Features::PACIFIC;
/// The newest state.
const NOW: u64 = u64::MAX;
/// Objects told of at a time: a primary asks for fewer.
const OBJECTS_MAX: usize = 64;
/// Bytes of data (`osd_deep_scrub_stride`) and pairs of the omap read at a time.
const STRIDE: u64 = 512 << 10;
const PAIRS: usize = 256;

/// What is here of the objects behind `after` up to and with `upto`, and up to which these are all.
pub async fn build(
    store: &Store,
    cid: ContainerId,
    (after, upto): (&HObject, &HObject),
    deep: bool,
) -> Result<(Vec<(HObject, ScrubObject)>, HObject), StoreError> {
    let (listed, end) = list_objects(store, cid, after, OBJECTS_MAX).await?;
    let mut objects = Vec::new();
    for (head, _) in listed.into_iter().filter(|(head, _)| head <= upto) {
        let key = ObjectKey(key_of(cid, &head));
        let of = One { store, cid, key, head };
        for (object, epoch, mut found) in of.stat().await? {
            if deep && found.errors & shard_error::STAT == 0 {
                of.read(epoch, &mut found).await?;
            }
            objects.push((object, found));
        }
        yield_now().await;
    }
    Ok((objects, end.min(upto.clone())))
}

/// Whether the error is about what is read, and not about the store.
fn is_damage(e: &StoreError) -> bool {
    matches!(e, StoreError::Damaged(_) | StoreError::Read { .. } | StoreError::PoolTooSmall)
}

struct One<'a> {
    store: &'a Store,
    cid: ContainerId,
    key: ObjectKey,
    head: HObject,
}

/// A head or a clone, and the epoch at which it is read.
type Stat = (HObject, u64, ScrubObject);

impl One<'_> {
    async fn stat(&self) -> Result<Vec<Stat>, StoreError> {
        match self.store.read(|vos| self.try_stat(vos)).await {
            Err(e) if is_damage(&e) => {
                tracing::error!(object = %self.head, "a scrub cannot look at it: {e}");
                let found = ScrubObject { errors: shard_error::STAT, ..ScrubObject::default() };
                Ok(vec![(self.head.clone(), NOW, found)])
            }
            other => other,
        }
    }

    fn try_stat(&self, vos: &Vos) -> Result<Vec<Stat>, ReadError> {
        let Self { cid, key, head, .. } = self;
        // What is not here to its end is not here.
        let Some(stored) = stored_version(vos, *cid, key)? else {
            return Ok(Vec::new());
        };
        let records = vos.list_akeys(*cid, key, dkey::SNAPSET, Bound::Unbounded, usize::MAX)?;
        let mut found = Vec::new();
        let mut set = StoredSnapSet::default();
        let (mut corrupted, mut sum) = (false, 0);
        for (akey, raw) in &records {
            sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, akey), raw);
            let Some(id) = clone_of_akey(akey) else {
                match SnapHeader::from_bytes(raw) {
                    Ok(header) => set.seq = header.seq,
                    Err(_) => corrupted = true,
                }
                continue;
            };
            let Ok(clone) = SnapClone::from_bytes(raw) else {
                corrupted = true;
                continue;
            };
            set.clones.push(StoredClone {
                id,
                size: clone.size,
                snaps: clone.snaps,
                overlap: clone.overlap.as_slice().to_vec(),
            });
            let object = HObject { snap: id, ..head.clone() };
            let records = crc32c::crc32c(raw);
            let seen = ScrubObject { stored, records, ..ScrubObject::default() };
            found.push((object.clone(), clone.epoch, self.at(vos, &object, clone.epoch, seen)?));
        }
        let is_here = vos.at(NOW).open(*cid, key)?.map(|o| o.fetch(dkey::INFO, AKEY));
        if is_here.transpose()?.flatten().is_some() {
            let errors = if corrupted { shard_error::SNAPSET_CORRUPTED } else { 0 };
            let seen = ScrubObject { stored, records: sum, errors, ..ScrubObject::default() };
            let mut seen = self.at(vos, head, NOW, seen)?;
            seen.attrs.insert(Bytes::from_static(SNAPSET_ATTR), set.to_bytes(F).into());
            found.push((head.clone(), NOW, seen));
        }
        Ok(found)
    }

    fn at(
        &self,
        vos: &Vos,
        object: &HObject,
        epoch: u64,
        mut seen: ScrubObject,
    ) -> Result<ScrubObject, ReadError> {
        let view = vos.at(epoch);
        let Some(open) = view.open(self.cid, &self.key)? else {
            seen.errors |= shard_error::STAT;
            return Ok(seen);
        };
        seen.size = open.array_size(dkey::DATA, AKEY)?.unwrap_or(0);
        let pairs =
            view.list_akeys(self.cid, &self.key, dkey::XATTR, Bound::Unbounded, usize::MAX)?;
        let named = |(akey, value): (Bytes, Bytes)| {
            ([INFO_ATTR, &name_of_akey(&akey)].concat().into(), value)
        };
        seen.attrs = pairs.into_iter().map(named).collect::<BTreeMap<Bytes, Bytes>>();
        let Some(raw) = open.fetch(dkey::INFO, AKEY)? else {
            seen.errors |= shard_error::INFO_MISSING;
            return Ok(seen);
        };
        seen.records = crc32c::crc32c_append(seen.records, &raw);
        match ObjectInfo::from_bytes(&raw) {
            Ok(info) => {
                seen.version = info.version;
                seen.user_version = info.user_version;
                seen.info_size = info.size;
                let raw = stored_info(object, &info).to_bytes(F);
                seen.attrs.insert(Bytes::from_static(INFO_ATTR), raw.into());
            }
            Err(_) => {
                seen.errors |= shard_error::INFO_CORRUPTED;
                seen.attrs.insert(Bytes::from_static(INFO_ATTR), raw);
            }
        }
        Ok(seen)
    }

    /// Reads all that it holds.
    async fn read(&self, epoch: u64, seen: &mut ScrubObject) -> Result<(), StoreError> {
        let size = seen.size;
        let digests = async {
            let data = self.data(epoch, size).await?;
            Ok::<_, StoreError>((data, self.omap(epoch).await?))
        };
        match digests.await {
            Ok((data, omap)) => (seen.data_digest, seen.omap_digest) = (Some(data), Some(omap)),
            Err(e) if is_damage(&e) => {
                tracing::error!(object = %self.head, epoch, "a scrub cannot read it: {e}");
                seen.errors |= shard_error::READ;
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// As Ceph makes it: from all ones on, not inverted at the end.
    async fn data(&self, epoch: u64, size: u64) -> Result<u32, StoreError> {
        let Self { store, cid, key, .. } = self;
        let mut crc = 0;
        for at in (0..size).step_by(STRIDE as usize) {
            let extents = |vos: &Vos| match vos.at(epoch).open(*cid, key)? {
                Some(object) => object.extents(dkey::DATA, AKEY, at, STRIDE.min(size - at)),
                None => Ok(Vec::<Extent>::new()),
            };
            let extents = store.read(extents).await?;
            let data = store.read_data(&extents).await?;
            crc = data.pieces.iter().fold(crc, |crc, piece| crc32c::crc32c_append(crc, piece));
            yield_now().await;
        }
        Ok(!crc)
    }

    async fn omap(&self, epoch: u64) -> Result<u32, StoreError> {
        let Self { store, cid, key, .. } = self;
        let header = |vos: &Vos| match vos.at(epoch).open(*cid, key)? {
            Some(object) => object.fetch(dkey::OMAP_HEADER, AKEY),
            None => Ok(None),
        };
        let header = store.read(header).await?.unwrap_or_default();
        let (mut crc, mut last) = (crc32c::crc32c(&header), None::<Bytes>);
        loop {
            let page = |vos: &Vos| {
                let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                vos.at(epoch).list_akeys(*cid, key, dkey::OMAP, from, PAIRS)
            };
            let pairs = store.read(page).await?;
            let Some((akey, _)) = pairs.last() else {
                return Ok(!crc);
            };
            last = Some(akey.clone());
            for (akey, value) in &pairs {
                let pair = (name_of_akey(akey), value.clone()).to_bytes(F);
                crc = crc32c::crc32c_append(crc, &pair);
            }
            yield_now().await;
        }
    }
}

fn stored_info(object: &HObject, info: &ObjectInfo) -> StoredInfo {
    StoredInfo {
        object: object.clone(),
        version: info.version,
        user_version: info.user_version,
        size: info.size,
        mtime: info.mtime,
        truncate: info.truncate.unwrap_or_default(),
        dirty: !info.clean,
        omap: info.omap,
        alloc_hint: info.alloc_hint.unwrap_or_default(),
    }
}
