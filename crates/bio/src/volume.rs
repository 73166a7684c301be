//! The devices of one store as one: data at the front, pages on a device of their own behind it, the WAL
//! beside them.
//!
//! Byte offsets count from the start of the data device; those from `meta_from` on are the pages' device.
//! A request lies on one device: the blocks just before `meta_from` are never used.
//! Invariant: at most one flush of each device is in flight ([`Device::flush`]).

use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use spirula_xstream::AlignedBuf;

use crate::device::{Device, DeviceError, Faults};
use crate::superblock::{Role, Superblock, WAL_OFFSET};

/// What a store is on: a device, or one with others for its WAL and its pages.
#[derive(Clone)]
pub struct Devices {
    /// Has the superblock of the set, the roots, data, and whatever has no device of its own.
    pub main: Device,
    /// For the WAL.
    pub wal: Option<Device>,
    /// For pages.
    pub meta: Option<Device>,
}

impl From<&Device> for Devices {
    fn from(main: &Device) -> Devices {
        Devices { main: main.clone(), wal: None, meta: None }
    }
}

impl From<&Devices> for Devices {
    fn from(devices: &Devices) -> Devices {
        devices.clone()
    }
}

impl Devices {
    /// The device of a role.
    pub fn get(&self, role: Role) -> Option<&Device> {
        match role {
            Role::Main => Some(&self.main),
            Role::Wal => self.wal.as_ref(),
            Role::Meta => self.meta.as_ref(),
        }
    }

    /// All of them, with their roles; the main one is the last.
    pub fn all(&self) -> impl Iterator<Item = (Role, &Device)> {
        let roles = [Role::Wal, Role::Meta, Role::Main];
        roles.into_iter().filter_map(|role| Some((role, self.get(role)?)))
    }

    /// The devices as one, if they are the set that the main one says.
    pub async fn open(self) -> Result<(Volume, Superblock), DeviceError> {
        let sb = self.main.superblock().await?;
        self.main.expect_role(&sb, Role::Main)?;
        for role in [Role::Wal, Role::Meta] {
            let Some(device) = self.get(role) else {
                if sb.set.has(role) {
                    let path = self.main.path().into();
                    return Err(DeviceError::Missing { path, role });
                }
                continue;
            };
            let found = device.superblock().await?;
            device.expect_role(&found, role)?;
            if !sb.set.has(role) || found.set.uuid != sb.set.uuid {
                return Err(DeviceError::NotOfSet { path: device.path().into() });
            }
        }
        Ok((Volume::new(self, &sb), sb))
    }
}

/// See the module text. Clones are handles of the same one.
#[derive(Clone)]
pub struct Volume {
    inner: Rc<Inner>,
}

struct Inner {
    devices: Devices,
    meta_from: u64,
}

impl Volume {
    /// Takes the devices as they are.
    pub fn new(devices: Devices, sb: &Superblock) -> Volume {
        let meta_from = match &devices.meta {
            Some(_) => sb.layout().meta_from(),
            None => u64::MAX,
        };
        Volume { inner: Rc::new(Inner { devices, meta_from }) }
    }

    /// Where its main device is.
    pub fn path(&self) -> &Path {
        self.main().path()
    }

    /// The device with superblock and roots.
    pub fn main(&self) -> &Device {
        &self.inner.devices.main
    }

    /// All its devices.
    pub fn devices(&self) -> &Devices {
        &self.inner.devices
    }

    /// Puts faults into all devices.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.devices.all().for_each(|(_, device)| device.set_faults(faults));
    }

    /// [`Device::read`].
    pub fn read(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + use<> {
        let (device, offset) = self.place(offset);
        device.read(offset, len)
    }

    /// [`Device::write`].
    pub fn write(&self, offset: u64, data: Bytes) -> impl Future<Output = io::Result<()>> + use<> {
        let (device, offset) = self.place(offset);
        device.write(offset, data)
    }

    /// [`Device::write_all`].
    pub fn write_all(
        &self,
        offset: u64,
        pieces: Vec<Bytes>,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let (device, offset) = self.place(offset);
        device.write_all(offset, pieces)
    }

    /// [`Device::trim`].
    pub fn trim(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + use<> {
        let (device, offset) = self.place(offset);
        device.trim(offset, len)
    }

    /// Makes durable all data and pages written by now.
    pub fn flush(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let Devices { main, meta, .. } = &self.inner.devices;
        let flushes = [Some(main), meta.as_ref()].into_iter().flatten().map(Device::flush);
        let flushes: Vec<_> = flushes.collect();
        async move { join_all(flushes).await.into_iter().collect() }
    }

    /// Makes durable the data and the part of the WAL written by now.
    pub fn flush_commit(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let Devices { main, wal, .. } = &self.inner.devices;
        let (data, wal) = (main.flush(), wal.as_ref().map(Device::flush));
        async move {
            match wal {
                None => data.await,
                Some(wal) => {
                    let (data, wal) = join(data, wal).await;
                    data.and(wal)
                }
            }
        }
    }

    /// Reads from the WAL region.
    pub fn read_wal(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + use<> {
        self.wal().read(WAL_OFFSET + offset, len)
    }

    /// Writes to the WAL region.
    pub fn write_wal(
        &self,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        self.wal().write(WAL_OFFSET + offset, data)
    }

    fn wal(&self) -> &Device {
        self.inner.devices.wal.as_ref().unwrap_or(self.main())
    }

    fn place(&self, offset: u64) -> (&Device, u64) {
        match &self.inner.devices.meta {
            Some(meta) if offset >= self.inner.meta_from => (meta, offset - self.inner.meta_from),
            _ => (self.main(), offset),
        }
    }
}
