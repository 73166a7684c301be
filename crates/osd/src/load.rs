//! Brings what a request needs into memory: the object lock, room in the store, metadata pages and
//! data from the device. The interpreter sees the result as an [`ObjectView`].

use std::cell::{Cell, OnceCell};
use std::ops::Bound;

use bytes::Bytes;
use spirula_store::{Data, Store, StoreError};
use spirula_vos::{ContainerId, Damage, Extent, ObjectKey, OpenObject, PageId, ReadError, Vos};
use spirula_wire::Decode;
use spirula_wire::types::SnapId;

use crate::apply::{akey, name_of_akey};
use crate::errno::EIO;
use crate::object::{AKEY, ObjectInfo, dkey};
use crate::snap::{Clones, SnapClone, SnapHeader, SnapSet, clone_akey, clone_of_akey};
use crate::view::{Fault, ObjectView, Past, Viewed};

/// What has to be brought in before planning can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    Pages(Vec<PageId>),
    Data { offset: u64, len: u64, extents: Vec<Extent> },
}

/// Data read from the device for the request, kept until it is answered.
#[derive(Debug, Default)]
pub struct LoadedData {
    pieces: Vec<(u64, u64, Data)>,
    /// The object's info at an epoch, once it is known: the request's lock keeps it as it is.
    info: OnceCell<(u64, Option<ObjectInfo>)>,
}

impl LoadedData {
    /// Fetches `need`. Data is asked of the store in the same turn that found its place, so that
    /// the place still holds it.
    pub async fn fill(&mut self, store: &Store, need: Need) -> Result<(), StoreError> {
        match need {
            Need::Pages(pages) => store.load(pages).await,
            Need::Data { offset, len, extents } => {
                let mut data = store.read_data(&extents).await?;
                let have = data.len() as u64;
                zeroes(len.saturating_sub(have)).for_each(|piece| data.push(piece));
                self.pieces.push((offset, len, data));
                Ok(())
            }
        }
    }

    /// The object's info if the request has asked for it, and the object exists.
    pub fn info(&self) -> Option<&ObjectInfo> {
        self.info.get()?.1.as_ref()
    }

    fn find(&self, offset: u64, len: u64) -> Option<&Data> {
        self.pieces.iter().find(|p| p.0 == offset && p.1 == len).map(|p| &p.2)
    }
}

/// One object in the store, by default as it is now.
pub struct StoreView<'a> {
    store: &'a Store,
    pub vos: &'a Vos,
    pub cid: ContainerId,
    pub oid: &'a ObjectKey,
    pub data: &'a LoadedData,
    epoch: u64,
    object: OnceCell<Option<OpenObject<'a>>>,
    /// The last read that the cache answered: offset, length, checksum.
    cached: Cell<Option<(u64, u64, u32)>>,
}

impl<'a> StoreView<'a> {
    pub fn new(
        store: &'a Store,
        vos: &'a Vos,
        cid: ContainerId,
        oid: &'a ObjectKey,
        data: &'a LoadedData,
    ) -> Self {
        let (object, cached) = (OnceCell::new(), Cell::new(None));
        Self { store, vos, cid, oid, data, epoch: NOW, object, cached }
    }

    /// The object as it was at a retained epoch.
    pub fn at(self, epoch: u64) -> Self {
        Self { epoch, object: OnceCell::new(), ..self }
    }

    fn newest(&self) -> StoreView<'a> {
        StoreView::new(self.store, self.vos, self.cid, self.oid, self.data)
    }

    fn object(&self) -> Viewed<Option<&OpenObject<'a>>, Need> {
        if let Some(object) = self.object.get() {
            return Ok(object.as_ref());
        }
        let object = self.vos.at(self.epoch).open(self.cid, self.oid).map_err(fault)?;
        Ok(self.object.get_or_init(|| object).as_ref())
    }

    fn fetch(&self, dkey: &[u8], akey: &[u8]) -> Viewed<Option<Bytes>, Need> {
        self.object()?.map_or(Ok(None), |object| object.fetch(dkey, akey).map_err(fault))
    }

    fn list(
        &self,
        dkey: &[u8],
        from: Bound<&[u8]>,
        max: usize,
    ) -> Viewed<Vec<(Bytes, Bytes)>, Need> {
        let listed = self.vos.at(self.epoch).list_akeys(self.cid, self.oid, dkey, from, max);
        let listed = listed.map_err(fault)?;
        Ok(listed.into_iter().map(|(k, v)| (name_of_akey(&k), v)).collect())
    }

    /// Up to `max` clones, by their akeys.
    fn clones(&self, from: Bound<&[u8]>, max: usize) -> Viewed<Vec<SnapClone>, Need> {
        let listed = self.vos.at(NOW).list_akeys(self.cid, self.oid, dkey::SNAPSET, from, max);
        let clone = |(akey, raw): &(Bytes, Bytes)| {
            clone_of_record(clone_of_akey(akey).ok_or_else(damaged)?, raw)
        };
        listed.map_err(fault)?.iter().map(clone).collect()
    }

    fn pieces(&self, offset: u64, len: u64) -> Viewed<Vec<Extent>, Need> {
        let Some(object) = self.object()? else {
            return Ok(Vec::new());
        };
        object.extents(dkey::DATA, AKEY, offset, len).map_err(fault)
    }
}

impl ObjectView for StoreView<'_> {
    type Missing = Need;

    fn info(&self) -> Viewed<Option<ObjectInfo>, Need> {
        if let Some((epoch, info)) = self.data.info.get()
            && *epoch == self.epoch
        {
            return Ok(info.clone());
        }
        let info = match self.fetch(dkey::INFO, AKEY)? {
            Some(raw) => {
                let mut info = ObjectInfo::from_bytes(&raw).map_err(|_| damaged())?;
                if self.epoch != NOW {
                    // Only the head is watched.
                    info.watchers.clear();
                }
                Some(info)
            }
            None => None,
        };
        // A request is about one epoch; whoever asks for another one has to look again.
        let _ = self.data.info.set((self.epoch, info.clone()));
        Ok(info)
    }

    fn xattr(&self, name: &[u8]) -> Viewed<Option<Bytes>, Need> {
        self.fetch(dkey::XATTR, &akey(name))
    }

    fn xattrs(&self) -> Viewed<Vec<(Bytes, Bytes)>, Need> {
        self.list(dkey::XATTR, Bound::Unbounded, usize::MAX)
    }

    fn omap_header(&self) -> Viewed<Bytes, Need> {
        Ok(self.fetch(dkey::OMAP_HEADER, AKEY)?.unwrap_or_default())
    }

    fn omap_value(&self, key: &[u8]) -> Viewed<Option<Bytes>, Need> {
        self.fetch(dkey::OMAP, &akey(key))
    }

    fn omap_range(
        &self,
        from: &[u8],
        after: bool,
        max: usize,
    ) -> Viewed<Vec<(Bytes, Bytes)>, Need> {
        let from = akey(from);
        let from = if after { Bound::Excluded(&from[..]) } else { Bound::Included(&from[..]) };
        self.list(dkey::OMAP, from, max)
    }

    fn read(&self, offset: u64, len: u64) -> Viewed<Vec<Bytes>, Need> {
        if let Some(data) = self.data.find(offset, len) {
            return Ok(data.pieces.clone());
        }
        let extents = self.pieces(offset, len)?;
        if extents.iter().any(|e| matches!(e, Extent::Device(_))) {
            let Some(mut data) = self.store.cached_data(&extents) else {
                return Err(Fault::Missing(Need::Data { offset, len, extents }));
            };
            let have = data.len() as u64;
            zeroes(len.saturating_sub(have)).for_each(|piece| data.push(piece));
            self.cached.set(Some((offset, len, data.crc)));
            return Ok(data.pieces);
        }
        let mut bytes = Vec::with_capacity(extents.len());
        for extent in extents {
            match extent {
                Extent::Inline { data, .. } => bytes.push(data),
                other => bytes.extend(zeroes(other.byte_len())),
            }
        }
        let have = bytes.iter().map(|b| b.len() as u64).sum();
        bytes.extend(zeroes(len.saturating_sub(have)));
        Ok(bytes)
    }

    fn known_crc(&self, offset: u64, len: u64) -> Option<u32> {
        match self.cached.get() {
            Some((at, n, crc)) if (at, n) == (offset, len) => Some(crc),
            _ => self.data.find(offset, len).map(|data| data.crc),
        }
    }

    fn extents(&self, offset: u64, len: u64) -> Viewed<Vec<(u64, u64)>, Need> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        for extent in self.pieces(offset, len)? {
            let (at, len) = match &extent {
                Extent::Hole { .. } => continue,
                Extent::Inline { offset, data } => (*offset, data.len() as u64),
                Extent::Device(d) => (d.offset, u64::from(d.len)),
            };
            match out.last_mut() {
                Some(last) if last.0 + last.1 == at => last.1 += len,
                _ => out.push((at, len)),
            }
        }
        Ok(out)
    }

    fn snapset(&self, clones: Clones) -> Viewed<SnapSet, Need> {
        if self.epoch != NOW {
            return self.newest().snapset(clones);
        }
        let Some(raw) = self.fetch(dkey::SNAPSET, AKEY)? else {
            return Ok(SnapSet::default());
        };
        let SnapHeader { seq, newest } = SnapHeader::from_bytes(&raw).map_err(|_| damaged())?;
        let clones = match (clones, newest) {
            (_, Some(SnapId(0))) => Vec::new(),
            (Clones::Newest, Some(id)) => {
                let raw = self.fetch(dkey::SNAPSET, &clone_akey(id))?.ok_or_else(damaged)?;
                vec![clone_of_record(id, &raw)?]
            }
            (Clones::Showing(snap), _) if snap > seq => Vec::new(),
            (Clones::Showing(snap), _) => self.clones(Bound::Included(&clone_akey(snap)), 1)?,
            _ => self.clones(Bound::Excluded(AKEY), usize::MAX)?,
        };
        Ok(SnapSet { seq, clones })
    }

    fn past(&self, epoch: u64) -> Viewed<Option<Past>, Need> {
        let nothing = LoadedData::default();
        let view = StoreView::new(self.store, self.vos, self.cid, self.oid, &nothing).at(epoch);
        let Some(info) = view.info()? else {
            return Ok(None);
        };
        let mut past = Past { info, xattrs: view.xattrs()?, ..Past::default() };
        if past.info.omap {
            past.omap_header = view.omap_header()?;
            past.omap = view.list(dkey::OMAP, Bound::Unbounded, usize::MAX)?;
        }
        Ok(Some(past))
    }
}

/// The newest epoch.
const NOW: u64 = u64::MAX;

/// The store's answer as the interpreter takes it: damage is an error to the client.
fn fault(e: ReadError) -> Fault<Need> {
    match e {
        ReadError::Missing(pages) => Fault::Missing(Need::Pages(pages)),
        ReadError::Damaged(damage) => {
            report(damage);
            damaged()
        }
        // The epochs of clones are retained; nobody prepares transactions.
        ReadError::EpochTooOld { .. } | ReadError::InProgress { .. } | ReadError::Restart(_) => {
            damaged()
        }
    }
}

fn clone_of_record(id: SnapId, raw: &Bytes) -> Viewed<SnapClone, Need> {
    let record = SnapClone::from_bytes(raw).map_err(|_| damaged())?;
    Ok(SnapClone { id, ..record })
}

fn damaged() -> Fault<Need> {
    Fault::Errno(-EIO)
}

fn report(damage: Damage) {
    tracing::error!(%damage, "a read met damaged data");
}

/// `len` zeroes: what lies in a hole, or beyond the stored array.
fn zeroes(len: u64) -> impl Iterator<Item = Bytes> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let starts = (0..len).step_by(ZEROES.len());
    starts
        .map(move |at| Bytes::from_static(&ZEROES[..(len - at).min(ZEROES.len() as u64) as usize]))
}
