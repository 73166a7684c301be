//! A device: a file or block device under an exclusive lock, read and written in whole blocks.
//!
//! Invariant: at most one flush is in flight; a flush asked for meanwhile begins when it ends, and
//! serves everybody who asked until then.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use spirula_xstream::sync::{OneshotReceiver, OneshotSender, oneshot};
use spirula_xstream::{AlignedBuf, Class, File, OpenOptions, is_aligned, spawn};

use crate::superblock::{
    BLOCK, DEVICE_BYTES_MIN, Role, SUPERBLOCK_LEN, SUPERBLOCK_OFFSETS, Superblock, SuperblockError,
};

/// Why a device cannot be used. The texts name the path and the way out.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Somebody has it open.
    #[error("{}: in use by another process; stop it first", path.display())]
    Locked {
        /// The device.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No room for the regions.
    #[error("{}: {bytes} bytes are too few, at least {DEVICE_BYTES_MIN} are needed", path.display())]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is another device of a set of several.
    #[error("{}: is the {found} device of a store, not its {expected} device; use the right one", path.display())]
    Role {
        /// The device.
        path: PathBuf,
        /// What it is for.
        found: Role,
        /// What it was to be used for.
        expected: Role,
    },
    /// A device of the set was not named.
    #[error("{}: its store has a {role} device, too; say where that is", path.display())]
    Missing {
        /// The main device.
        path: PathBuf,
        /// What is missing.
        role: Role,
    },
    /// It belongs to another store.
    #[error("{}: does not belong to the store on the data device; use the right device", path.display())]
    NotOfSet {
        /// The device.
        path: PathBuf,
    },
    /// No usable superblock.
    #[error("{}: {reason}", path.display())]
    Superblock {
        /// The device.
        path: PathBuf,
        /// Why.
        reason: SuperblockError,
    },
}

/// Faults that tests put in, to prove that they are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Flushes do nothing.
    pub ignore_flush: bool,
}

/// An open device. Clones are handles of the same one.
#[derive(Clone)]
pub struct Device {
    inner: Rc<Inner>,
}

struct Inner {
    file: File,
    path: PathBuf,
    faults: Cell<Faults>,
    flush: RefCell<Flush>,
}

#[derive(Default)]
struct Flush {
    running: bool,
    waiting: Vec<OneshotSender<Result<(), io::ErrorKind>>>,
}

impl Device {
    /// Opens and locks an existing device.
    pub fn open(path: impl AsRef<Path>) -> Result<Device, DeviceError> {
        Device::open_with(path.as_ref(), OpenOptions::default())
    }

    /// Opens and locks an existing device only to read it.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Device, DeviceError> {
        Device::open_with(path.as_ref(), OpenOptions { read_only: true, ..Default::default() })
    }

    /// Opens and locks a device to be formatted; a file is made, and grown to `bytes`.
    pub fn create(path: impl AsRef<Path>, bytes: Option<u64>) -> Result<Device, DeviceError> {
        let options = OpenOptions { create: bytes.is_some(), size: bytes, ..Default::default() };
        Device::open_with(path.as_ref(), options)
    }

    fn open_with(path: &Path, options: OpenOptions) -> Result<Device, DeviceError> {
        let options = OpenOptions { direct: true, lock: true, ..options };
        let file = File::open(path, &options).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DeviceError::Locked { path: path.into() },
            _ => DeviceError::Io { path: path.into(), source },
        })?;
        let inner =
            Inner { file, path: path.into(), faults: Cell::default(), flush: RefCell::default() };
        let device = Device { inner: Rc::new(inner) };
        match device.bytes()? {
            bytes if bytes < DEVICE_BYTES_MIN => {
                Err(DeviceError::TooSmall { path: path.into(), bytes })
            }
            _ => Ok(device),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Its size.
    pub fn bytes(&self) -> Result<u64, DeviceError> {
        self.inner.file.len().map_err(|e| self.error(e))
    }

    /// Puts faults in.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.faults.set(faults);
    }

    /// Reads the superblock from whichever copy is intact.
    pub async fn superblock(&self) -> Result<Superblock, DeviceError> {
        let mut reason = SuperblockError::NotOurs;
        for offset in SUPERBLOCK_OFFSETS {
            let block = self.read(offset, SUPERBLOCK_LEN).await.map_err(|e| self.error(e))?;
            match Superblock::decode(&block) {
                Ok(sb) => return self.check_size(sb),
                Err(SuperblockError::NotOurs) => {}
                Err(e) => reason = e,
            }
        }
        Err(DeviceError::Superblock { path: self.inner.path.clone(), reason })
    }

    /// Whether each copy of the superblock is intact.
    pub async fn superblock_copies(&self) -> Result<[bool; 2], DeviceError> {
        let mut intact = [false; 2];
        for (ok, offset) in intact.iter_mut().zip(SUPERBLOCK_OFFSETS) {
            let block = self.read(offset, SUPERBLOCK_LEN).await.map_err(|e| self.error(e))?;
            *ok = Superblock::decode(&block).is_ok();
        }
        Ok(intact)
    }

    /// Writes both copies and makes them durable.
    pub async fn write_superblock(&self, sb: &Superblock) -> Result<(), DeviceError> {
        for offset in SUPERBLOCK_OFFSETS {
            let block = AlignedBuf::copy_from(&sb.encode()).freeze();
            self.write(offset, block).await.map_err(|e| self.error(e))?;
        }
        self.flush().await.map_err(|e| self.error(e))
    }

    /// Reads exactly `len` bytes.
    pub fn read(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = io::Result<AlignedBuf>> + use<> {
        let buf = AlignedBuf::with_capacity(len);
        let read = self.inner.file.read_at(offset, buf, len);
        async move {
            match read.await {
                (Ok(n), buf) if n == len => Ok(buf),
                (Ok(_), _) => Err(io::ErrorKind::UnexpectedEof.into()),
                (Err(e), _) => Err(e),
            }
        }
    }

    /// Writes `data` at a block boundary; what lacks to a whole block is written as zeros. The bytes are
    /// copied only if they do not lie in aligned memory.
    pub fn write(&self, offset: u64, data: Bytes) -> impl Future<Output = io::Result<()>> + use<> {
        debug_assert!(offset.is_multiple_of(BLOCK));
        self.inner.file.write_at(offset, vec![aligned(data)])
    }

    /// Writes pieces one after the other, each filled up to whole blocks as [`Device::write`] does.
    pub fn write_all(
        &self,
        offset: u64,
        pieces: Vec<Bytes>,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        debug_assert!(offset.is_multiple_of(BLOCK));
        self.inner.file.write_at(offset, pieces.into_iter().map(aligned).collect())
    }

    /// Tells the device that nothing lies in a range; it then reads as zeros.
    pub fn trim(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + use<> {
        self.inner.file.punch_hole(offset, len)
    }

    /// Makes durable every write that has completed by now.
    pub fn flush(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let (done, wait) = oneshot();
        let start = {
            let mut flush = self.inner.flush.borrow_mut();
            flush.waiting.push(done);
            !std::mem::replace(&mut flush.running, true)
        };
        if start {
            spawn(Class::Client, self.clone().run_flushes());
        }
        wait_flush(wait)
    }

    async fn run_flushes(self) {
        loop {
            let waiting = {
                let mut flush = self.inner.flush.borrow_mut();
                if flush.waiting.is_empty() {
                    flush.running = false;
                    return;
                }
                std::mem::take(&mut flush.waiting)
            };
            let result = match self.inner.faults.get().ignore_flush {
                true => Ok(()),
                false => self.inner.file.datasync().await,
            };
            for done in waiting {
                // Whoever asked may have gone away.
                let _ = done.send(result.as_ref().map(|_| ()).map_err(|e| e.kind()));
            }
        }
    }

    fn check_size(&self, sb: Superblock) -> Result<Superblock, DeviceError> {
        match self.bytes()? {
            bytes if bytes < sb.device_bytes => {
                Err(DeviceError::TooSmall { path: self.inner.path.clone(), bytes })
            }
            _ => Ok(sb),
        }
    }

    /// Refuses the device of another role.
    pub(crate) fn expect_role(&self, sb: &Superblock, expected: Role) -> Result<(), DeviceError> {
        match sb.set.role {
            found if found == expected => Ok(()),
            found => Err(DeviceError::Role { path: self.inner.path.clone(), found, expected }),
        }
    }

    fn error(&self, source: io::Error) -> DeviceError {
        DeviceError::Io { path: self.inner.path.clone(), source }
    }
}

async fn wait_flush(wait: OneshotReceiver<Result<(), io::ErrorKind>>) -> io::Result<()> {
    match wait.await {
        Ok(result) => result.map_err(io::Error::from),
        Err(_) => Err(io::ErrorKind::Interrupted.into()),
    }
}

fn aligned(data: Bytes) -> Bytes {
    if is_aligned(&data) {
        return data;
    }
    let mut buf = AlignedBuf::with_capacity(data.len());
    buf.extend_from_slice(&data);
    buf.resize(data.len().div_ceil(BLOCK as usize) * BLOCK as usize, 0);
    buf.freeze()
}
