//! Files and block devices on an xstream.
//!
//! A future that is dropped does not cancel file I/O: it ends by itself, and its buffers live that
//! long. Operations in flight at the same time may complete, and reach the device, in any order;
//! [`File::datasync`] makes durable what had completed before it was called.

use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use crate::buf::AlignedBuf;
use crate::driver::{Allocate, Gather, Op, Output, Raw};
use crate::runtime::{Keep, OpFuture, Runtime, current};

/// How to open a file. The default opens an existing file for reading and writing.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Bypass the page cache where the file system can ([`File::is_direct`] tells): offsets,
    /// lengths and memory must then be aligned to the device's sectors.
    pub direct: bool,
    /// Create the file if it is missing.
    pub create: bool,
    /// Fail if the file exists (with `create`).
    pub exclusive: bool,
    pub read_only: bool,
    /// Grow the file to this many bytes, with their space reserved.
    pub size: Option<u64>,
    /// Hold the file's exclusive lock while open; `WouldBlock` if somebody has it.
    pub lock: bool,
}

/// An open file or block device.
#[derive(Clone)]
pub struct File {
    inner: Rc<FileInner>,
}

impl File {
    /// Opens `path`. This blocks the thread; it is meant for starting up.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> io::Result<File> {
        let runtime = current();
        let opened = runtime.driver.borrow_mut().open(path.as_ref(), options)?;
        let inner = FileInner { runtime, raw: opened.raw, direct: opened.direct };
        Ok(File { inner: Rc::new(inner) })
    }

    pub fn is_direct(&self) -> bool {
        self.inner.direct
    }

    /// Size in bytes, of a block device too.
    pub fn len(&self) -> io::Result<u64> {
        self.inner.runtime.driver.borrow().file_len(self.inner.raw)
    }

    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `len` bytes at `offset` to the front of `buf` (within its capacity), whose length
    /// becomes what was read: less than `len` only at the end of the file.
    pub fn read_at(
        &self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)> + use<> {
        assert!(len <= buf.capacity(), "read beyond the buffer's capacity");
        let op = self.submit(Op::Read { file: self.inner.raw, offset, buf, len });
        async move {
            let Output::Read(result, buf) = op.await else { unreachable!("outcome of read") };
            (result, buf)
        }
    }

    /// Writes all of `bufs` in order at `offset`, without copying.
    pub fn write_at(
        &self,
        offset: u64,
        bufs: Vec<Bytes>,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let bufs = Gather::new(bufs);
        self.plain(Op::Write { file: self.inner.raw, offset, bufs })
    }

    /// Makes durable every write that completed before this call.
    pub fn datasync(&self) -> impl Future<Output = io::Result<()>> + use<> {
        self.plain(Op::Datasync { file: self.inner.raw })
    }

    /// Gives the space of a range back; it then reads as zeros.
    pub fn punch_hole(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let kind = Allocate::PunchHole;
        self.plain(Op::Allocate { file: self.inner.raw, offset, len, kind })
    }

    /// Reserves the space of a range, growing the file if it ends before.
    pub fn allocate(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + use<> {
        let kind = Allocate::Reserve;
        self.plain(Op::Allocate { file: self.inner.raw, offset, len, kind })
    }

    fn plain(&self, op: Op) -> impl Future<Output = io::Result<()>> + use<> {
        let op = self.submit(op);
        async move {
            let Output::Done(result) = op.await else {
                unreachable!("outcome of a file operation")
            };
            result
        }
    }

    fn submit(&self, op: Op) -> OpFuture {
        self.inner.runtime.submit(op, Keep::File(self.inner.clone()))
    }
}

/// An open file; closes on drop.
pub(crate) struct FileInner {
    runtime: Rc<Runtime>,
    raw: Raw,
    direct: bool,
}

impl Drop for FileInner {
    fn drop(&mut self) {
        self.runtime.driver.borrow_mut().close_file(self.raw);
    }
}
