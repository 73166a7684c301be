//! System calls that both real back ends make, each wrapped in a safe function.

use std::ffi::c_int;
use std::fs::{File, OpenOptions as StdOpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::mem::{self, ManuallyDrop};
use std::net::{Shutdown as StdShutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};

use crate::driver::{Allocate, Opened, Raw, Shutdown};
use crate::file::OpenOptions;
use crate::limits::LISTEN_BACKLOG;

/// Time since a moment early in the life of the process.
pub(crate) fn monotonic() -> Duration {
    static BASE: OnceLock<Instant> = OnceLock::new();
    BASE.get_or_init(Instant::now).elapsed()
}

/// Time since the Unix epoch; a clock set before it reads as the epoch.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Fills `out` from the kernel's generator. A kernel that cannot has nothing to replace it.
pub(crate) fn fill_random(out: &mut [u8]) {
    let mut filled = 0;
    while filled < out.len() {
        let rest = &mut out[filled..];
        // SAFETY: `rest` is writable memory of the length given.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                assert!(error.kind() == io::ErrorKind::Interrupted, "getrandom failed: {error}");
            }
        }
    }
}

/// A set of one CPU.
pub(crate) fn cpu_set(cpu: usize) -> io::Result<libc::cpu_set_t> {
    // SAFETY: a `cpu_set_t` is a plain bit set, empty when zeroed.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if cpu >= 8 * mem::size_of_val(&set) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `cpu` is within the set, as checked above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    Ok(set)
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin_thread(cpu: usize) -> io::Result<()> {
    let set = cpu_set(cpu)?;
    // SAFETY: `set` is a valid set of the size given; 0 names the calling thread.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) }).map(drop)
}

/// The CPUs that the calling thread may use, ascending.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a `cpu_set_t` is a plain bit set, empty when zeroed.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    let bytes = mem::size_of_val(&set);
    // SAFETY: `set` is a valid set of the size given; 0 names the calling thread.
    check(unsafe { libc::sched_getaffinity(0, bytes, &mut set) })?;
    // SAFETY: every `cpu` is within the set.
    Ok((0..8 * bytes).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Wakes a thread that waits in the kernel.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers; the descriptor returned is new and ours.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: `fd` was just opened and nobody else owns it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn raw(&self) -> Raw {
        self.0.as_raw_fd()
    }

    /// Cannot fail in a way that matters: a counter at its limit is readable already.
    pub(crate) fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 readable bytes to a descriptor that `self` keeps open.
        unsafe { libc::write(self.raw(), one.as_ptr().cast(), one.len()) };
    }

    /// Resets the counter.
    pub(crate) fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: reads into 8 writable bytes from a descriptor that `self` keeps open.
        unsafe { libc::read(self.raw(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// A listening socket; non-blocking if asked.
pub(crate) fn listen(addr: SocketAddr, nonblocking: bool) -> io::Result<Raw> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(nonblocking)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into_raw_fd())
}

/// A socket to connect to `peer` with.
pub(crate) fn socket(peer: &SocketAddr, nonblocking: bool) -> io::Result<Raw> {
    let socket = Socket::new(Domain::for_address(*peer), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(nonblocking)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into_raw_fd())
}

/// Accepts a connection that waits, as a non-blocking socket.
pub(crate) fn accept(listener: Raw) -> io::Result<Raw> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel is asked for no address; the caller keeps `listener` open.
    check(unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) })
}

/// Begins to connect a non-blocking socket; whether it is connected already.
pub(crate) fn connect(raw: Raw, addr: SocketAddr) -> io::Result<bool> {
    match borrow_socket(raw).connect(&addr.into()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Settings of a connection that was accepted.
pub(crate) fn prepare_accepted(raw: Raw) -> io::Result<()> {
    borrow_socket(raw).set_tcp_nodelay(true)
}

pub(crate) fn local_addr(raw: Raw) -> io::Result<SocketAddr> {
    let addr = borrow_socket(raw).local_addr()?;
    addr.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

pub(crate) fn peer_addr(raw: Raw) -> io::Result<SocketAddr> {
    let addr = borrow_socket(raw).peer_addr()?;
    addr.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The error of a connection attempt that has ended.
pub(crate) fn take_error(raw: Raw) -> io::Result<()> {
    match borrow_socket(raw).take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

pub(crate) fn shutdown(raw: Raw, how: Shutdown) -> io::Result<()> {
    borrow_socket(raw).shutdown(match how {
        Shutdown::Write => StdShutdown::Write,
        Shutdown::Both => StdShutdown::Both,
    })
}

pub(crate) fn close(raw: Raw) {
    // SAFETY: `raw` is owned by the handle being dropped, which closes it exactly once.
    drop(unsafe { OwnedFd::from_raw_fd(raw) });
}

/// A view of a socket owned by a handle; never closes it.
pub(crate) fn borrow_socket(raw: Raw) -> ManuallyDrop<Socket> {
    // SAFETY: handles keep `raw` open while the driver is called with it, and `ManuallyDrop`
    // keeps this view from closing it.
    ManuallyDrop::new(unsafe { Socket::from_raw_fd(raw) })
}

/// A view of a file owned by a handle; never closes it.
pub(crate) fn borrow_file(raw: Raw) -> ManuallyDrop<File> {
    // SAFETY: as for sockets above.
    ManuallyDrop::new(unsafe { File::from_raw_fd(raw) })
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> io::Result<Opened> {
    let mut open = StdOpenOptions::new();
    open.read(true).write(!options.read_only);
    if options.create {
        if options.exclusive {
            open.create_new(true)
        } else {
            open.create(true)
        };
    }
    let (file, direct) = if options.direct {
        match open.custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => (file, true),
            // Some file systems have no direct I/O; O_DIRECT is refused after the file is made.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (open.create_new(false).custom_flags(0).open(path)?, false)
            }
            Err(error) => return Err(error),
        }
    } else {
        (open.open(path)?, false)
    };
    if options.lock {
        lock(&file)?;
    }
    if let Some(size) = options.size
        && file_len(file.as_raw_fd())? < size
    {
        // Sparse: space is taken as it is written, so that a large device costs nothing when new.
        file.set_len(size)?;
    }
    Ok(Opened { raw: file.into_raw_fd(), direct })
}

fn lock(file: &File) -> io::Result<()> {
    // SAFETY: takes no pointers; `file` is open.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

pub(crate) fn file_len(raw: Raw) -> io::Result<u64> {
    let mut file = borrow_file(raw);
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() {
        return file.seek(SeekFrom::End(0));
    }
    Ok(metadata.len())
}

/// `fallocate`'s mode for `kind`.
pub(crate) fn allocate_mode(kind: Allocate) -> c_int {
    match kind {
        Allocate::Reserve => 0,
        Allocate::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
    }
}

/// Blocks until the range is as `kind` says.
pub(crate) fn allocate(raw: Raw, offset: u64, len: u64, kind: Allocate) -> io::Result<()> {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    loop {
        // SAFETY: takes no pointers; the caller keeps `raw` open.
        match check(unsafe { libc::fallocate(raw, allocate_mode(kind), offset, len) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// The memory of `bufs`, as many pieces as one call may take.
pub(crate) fn iovecs<'a>(bufs: impl Iterator<Item = &'a Bytes>, out: &mut Vec<libc::iovec>) {
    out.clear();
    out.extend(
        bufs.take(crate::limits::IOVECS_MAX).map(|buf| libc::iovec {
            iov_base: buf.as_ptr().cast_mut().cast(),
            iov_len: buf.len(),
        }),
    );
}

/// Writes as many pieces as one call may take; how many bytes were written.
pub(crate) fn write_vectored<'a>(
    file: Raw,
    offset: u64,
    bufs: impl Iterator<Item = &'a Bytes>,
    scratch: &mut Vec<libc::iovec>,
) -> io::Result<usize> {
    let offset = offset.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    iovecs(bufs, scratch);
    // SAFETY: the vectors point into `bufs`, which are alive and unchanging during the call; the
    // caller keeps `file` open.
    let written = unsafe { libc::pwritev(file, scratch.as_ptr(), scratch.len() as c_int, offset) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// The error in `errno` if a call returned -1.
pub(crate) fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
