//! One object in memory, for the tests and fuzz targets of methods.
//!
//! Its changes show at once, unlike those of a request on an OSD: between two methods that is what
//! happens there too; within one it is stricter only where a method reads what it wrote.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::Features;
use spirula_wire::types::{EntityAddr, EntityName, EntityType, UTime};

use crate::context::{Context, Origin, Outcome, Page, Watcher, fail};
use crate::errno::*;

/// Objects of tests stay small, whatever their input says.
const SIZE_MAX: u64 = 16 << 20;

/// An object and what its methods ask besides.
#[derive(Clone, Debug)]
pub struct MemoryObject {
    pub exists: bool,
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<Bytes, Bytes>,
    pub omap: BTreeMap<Bytes, Bytes>,
    pub header: Bytes,
    pub mtime: UTime,
    pub now: UTime,
    pub user_version: u64,
    pub snapset_seq: u64,
    pub origin: Origin,
    pub watchers: Vec<Watcher>,
    pub min_compat_client: u8,
    /// Snapshots that `snap_revert` was asked for.
    pub reverted: Vec<u64>,
    /// What the last method that set it returned.
    pub return_value: u32,
}

impl Default for MemoryObject {
    fn default() -> Self {
        let name = EntityName::new(EntityType::CLIENT, 4100);
        Self {
            exists: false,
            data: Vec::new(),
            xattrs: BTreeMap::new(),
            omap: BTreeMap::new(),
            header: Bytes::new(),
            mtime: UTime::default(),
            now: UTime::default(),
            user_version: 0,
            snapset_seq: 0,
            origin: Origin { name, addr: EntityAddr::default() },
            watchers: Vec::new(),
            min_compat_client: 0,
            reverted: Vec::new(),
            return_value: 0,
        }
    }
}

impl MemoryObject {
    fn require(&self) -> Outcome {
        if self.exists { Ok(()) } else { fail(ENOENT) }
    }

    fn grow(&mut self, end: u64) -> Outcome {
        if end > SIZE_MAX {
            return fail(EFBIG);
        }
        self.exists = true;
        let end = end as usize;
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        Ok(())
    }
}

impl Context for MemoryObject {
    fn origin(&self) -> Origin {
        self.origin.clone()
    }

    fn client_features(&self) -> Features {
        Features::PACIFIC
    }

    fn now(&self) -> UTime {
        self.now
    }

    fn user_version(&self) -> u64 {
        self.user_version
    }

    fn subop(&self) -> i32 {
        0
    }

    fn snapset_seq(&mut self) -> Outcome<u64> {
        self.require()?;
        Ok(self.snapset_seq)
    }

    fn require_min_compat_client(&self) -> u8 {
        self.min_compat_client
    }

    fn require_osd_release(&self) -> u8 {
        16
    }

    fn max_object_size(&self) -> u64 {
        SIZE_MAX
    }

    fn stat(&mut self) -> Outcome<(u64, UTime)> {
        self.require()?;
        Ok((self.data.len() as u64, self.mtime))
    }

    fn read(&mut self, offset: u64, length: u64) -> Outcome<Bytes> {
        let len = self.data.len() as u64;
        let (from, to) = (offset.min(len), offset.saturating_add(length).min(len));
        Ok(Bytes::copy_from_slice(&self.data[from as usize..to as usize]))
    }

    fn sparse_read(&mut self, offset: u64, length: u64) -> Outcome<Vec<(u64, Bytes)>> {
        self.require()?;
        let data = self.read(offset, length)?;
        Ok(if data.is_empty() { Vec::new() } else { vec![(offset, data)] })
    }

    fn xattr(&mut self, name: &str) -> Outcome<Bytes> {
        self.require()?;
        self.xattrs.get(name.as_bytes()).cloned().map_or_else(|| fail(ENODATA), Ok)
    }

    fn xattrs(&mut self) -> Outcome<BTreeMap<Bytes, Bytes>> {
        self.require()?;
        Ok(self.xattrs.clone())
    }

    fn omap_header(&mut self) -> Outcome<Bytes> {
        self.require()?;
        Ok(self.header.clone())
    }

    fn omap_value(&mut self, key: &[u8]) -> Outcome<Bytes> {
        self.require()?;
        self.omap.get(key).cloned().map_or_else(|| fail(ENOENT), Ok)
    }

    fn omap_values(
        &mut self,
        after: &[u8],
        prefix: &[u8],
        max: u64,
    ) -> Outcome<Page<(Bytes, Bytes)>> {
        self.require()?;
        let wanted = |key: &Bytes| key[..] > *after && key.starts_with(prefix);
        let mut matching = self.omap.iter().filter(|(key, _)| wanted(key));
        let items = matching.by_ref().take(usize::try_from(max).unwrap_or(usize::MAX));
        let items = items.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Page { items, more: matching.next().is_some() })
    }

    fn watchers(&mut self) -> Outcome<Vec<Watcher>> {
        self.require()?;
        Ok(self.watchers.clone())
    }

    fn create(&mut self, exclusive: bool) -> Outcome {
        if exclusive && self.exists {
            return fail(EEXIST);
        }
        self.exists = true;
        Ok(())
    }

    fn remove(&mut self) -> Outcome {
        self.require()?;
        let kept = Self { exists: false, ..Self::default() };
        let old = std::mem::replace(self, kept);
        (self.now, self.origin, self.min_compat_client) =
            (old.now, old.origin, old.min_compat_client);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: Bytes) -> Outcome {
        let end = offset.checked_add(data.len() as u64).map_or_else(|| fail(EFBIG), Ok)?;
        self.grow(end)?;
        self.data[offset as usize..end as usize].copy_from_slice(&data);
        Ok(())
    }

    fn write_full(&mut self, data: Bytes) -> Outcome {
        self.exists = true;
        self.data = data.to_vec();
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> Outcome {
        self.grow(size)?;
        self.data.truncate(size as usize);
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> Outcome {
        self.require()?;
        let len = self.data.len() as u64;
        let (from, to) = (offset.min(len), offset.saturating_add(length).min(len));
        self.data[from as usize..to as usize].fill(0);
        Ok(())
    }

    fn set_xattr(&mut self, name: &str, value: Bytes) -> Outcome {
        self.exists = true;
        self.xattrs.insert(Bytes::copy_from_slice(name.as_bytes()), value);
        Ok(())
    }

    fn remove_xattr(&mut self, name: &str) -> Outcome {
        self.require()?;
        self.xattrs.remove(name.as_bytes());
        Ok(())
    }

    fn set_omap_header(&mut self, header: Bytes) -> Outcome {
        self.exists = true;
        self.header = header;
        Ok(())
    }

    fn set_omap(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Outcome {
        self.exists = true;
        self.omap.extend(pairs);
        Ok(())
    }

    fn remove_omap_key(&mut self, key: &[u8]) -> Outcome {
        self.require()?;
        self.omap.remove(key);
        Ok(())
    }

    fn remove_omap_range(&mut self, from: &[u8], to: &[u8]) -> Outcome {
        self.require()?;
        self.omap.retain(|key, _| key[..] < *from || key[..] >= *to);
        Ok(())
    }

    fn clear_omap(&mut self) -> Outcome {
        self.require()?;
        self.omap.clear();
        self.header = Bytes::new();
        Ok(())
    }

    fn snap_revert(&mut self, snapid: u64) -> Outcome {
        self.reverted.push(snapid);
        Ok(())
    }

    fn set_return_value(&mut self, value: u32) {
        self.return_value = value;
    }
}
