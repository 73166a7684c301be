//! The back end of one simulated host: hands operations to the world's network and disks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Weak;
use std::time::Duration;

use super::World;
use super::core::{DiskDone, Event, HostId};
use super::disk::{Disk, SECTOR};
use super::net::Receive;
use crate::buf::AlignedBuf;
use crate::driver::{Allocate, Driver, Gather, Key, Op, Opened, Output, Raw, Shutdown, Wait};
use crate::file::OpenOptions;

/// Wall time at the beginning of every world: 2026-01-01.
const WALL_AT_START: Duration = Duration::from_secs(1_767_225_600);

pub(super) struct SimDriver {
    world: Weak<RefCell<World>>,
    host: HostId,
    incarnation: u64,
    /// Which socket an operation is on, for cancelling it.
    sockets: BTreeMap<Key, Raw>,
    files: BTreeMap<Raw, OpenFile>,
    last_file: Raw,
}

#[derive(Clone, Copy)]
struct OpenFile {
    disk: usize,
    direct: bool,
    read_only: bool,
    locked: bool,
}

impl SimDriver {
    pub(super) fn new(world: Weak<RefCell<World>>, host: HostId, incarnation: u64) -> SimDriver {
        SimDriver {
            world,
            host,
            incarnation,
            sockets: BTreeMap::new(),
            files: BTreeMap::new(),
            last_file: 0,
        }
    }

    /// Works on the world while this host's process is the one this driver was made for. The world
    /// ends before its drivers when its last handle is dropped.
    fn with<R>(&self, work: impl FnOnce(&mut World) -> R) -> Option<R> {
        let world = self.world.upgrade()?;
        let mut world = world.borrow_mut();
        let alive = world.core.hosts[self.host].incarnation == self.incarnation;
        alive.then(|| work(&mut world))
    }

    /// Starts a file operation: the disk's part now, the outcome later.
    fn submit_file(&self, world: &mut World, key: Key, op: Op) {
        let (Op::Read { file, .. }
        | Op::Write { file, .. }
        | Op::Datasync { file }
        | Op::Allocate { file, .. }) = &op
        else {
            unreachable!("not a file operation")
        };
        let Some(file) = self.files.get(file).copied() else { unreachable!("file is not open") };
        let disk = &mut world.disks[file.disk];
        let config = disk.config.clone();
        let latency = match &op {
            Op::Read { .. } => config.read,
            Op::Datasync { .. } => config.datasync,
            _ => config.write,
        };
        let done = match check(&op, file).and_then(|()| disk.admit(&op)) {
            Err(error) => DiskDone::Failed(failed(op, error)),
            Ok(()) => begin(disk, file.disk, op),
        };
        let at = world.core.now + world.core.rng.duration(&latency);
        let (host, incarnation) = (self.host, self.incarnation);
        world.core.schedule(at, Event::Disk { host, incarnation, key, done });
    }

    /// Starts an operation on a socket.
    fn submit_socket(&self, world: &mut World, key: Key, op: Op) {
        let World { core, net, .. } = world;
        match op {
            Op::Accept { listener } => net.accept(core, listener, key),
            Op::Connect { sock, addr } => net.connect(core, sock, key, addr),
            Op::Send { sock, bufs } => net.send(core, sock, key, bufs),
            Op::Recv { sock, buf } => net.receive(core, sock, key, Receive::Some(buf)),
            Op::RecvExact { sock, buf, start, end } => {
                net.receive(core, sock, key, Receive::Exact { buf, at: start, end });
            }
            _ => unreachable!("not a socket operation"),
        }
    }
}

impl Driver for SimDriver {
    fn submit(&mut self, key: Key, op: Op) {
        let sock = match &op {
            Op::Accept { listener } => Some(*listener),
            Op::Connect { sock, .. }
            | Op::Send { sock, .. }
            | Op::Recv { sock, .. }
            | Op::RecvExact { sock, .. } => Some(*sock),
            _ => None,
        };
        if let Some(sock) = sock {
            self.sockets.insert(key, sock);
            self.with(|world| self.submit_socket(world, key, op));
        } else {
            self.with(|world| self.submit_file(world, key, op));
        }
    }

    fn cancel(&mut self, key: Key) {
        let Some(sock) = self.sockets.get(&key) else {
            return;
        };
        self.with(|world| world.net.cancel(&mut world.core, *sock, key));
    }

    fn poll(&mut self, _: Wait, done: &mut Vec<(Key, Output)>) {
        self.with(|world| done.append(&mut world.core.hosts[self.host].done));
        for (key, _) in done.iter() {
            self.sockets.remove(key);
        }
    }

    fn now(&self) -> Duration {
        self.world.upgrade().map_or(Duration::ZERO, |world| world.borrow().core.now)
    }

    fn wall_now(&self) -> Duration {
        let ahead = self.with(|world| world.core.hosts[self.host].clock_ahead);
        WALL_AT_START + self.now() + ahead.unwrap_or_default()
    }

    fn fill_random(&mut self, out: &mut [u8]) {
        self.with(|world| world.core.rng.fill(out));
    }

    fn listen(&mut self, addr: SocketAddr) -> io::Result<Raw> {
        self.with(|world| world.net.listen(&world.core, self.host, addr)).unwrap_or_else(gone)
    }

    fn socket(&mut self, _peer: &SocketAddr) -> io::Result<Raw> {
        self.with(|world| Ok(world.net.socket(self.host))).unwrap_or_else(gone)
    }

    fn local_addr(&self, sock: Raw) -> io::Result<SocketAddr> {
        self.with(|world| world.net.local_addr(sock)).unwrap_or_else(gone)
    }

    fn peer_addr(&self, sock: Raw) -> io::Result<SocketAddr> {
        self.with(|world| world.net.peer_addr(sock)).unwrap_or_else(gone)
    }

    fn shutdown(&mut self, sock: Raw, how: Shutdown) -> io::Result<()> {
        self.with(|world| world.net.shutdown(&mut world.core, sock, how)).unwrap_or_else(gone)
    }

    fn close_socket(&mut self, sock: Raw) {
        self.with(|world| world.net.close(&mut world.core, sock));
    }

    fn open(&mut self, path: &Path, options: &OpenOptions) -> io::Result<Opened> {
        let disk = self.with(|world| open(world, self.host, path, options));
        let disk = disk.unwrap_or_else(gone)?;
        self.last_file += 1;
        let OpenOptions { direct, read_only, lock: locked, .. } = *options;
        self.files.insert(self.last_file, OpenFile { disk, direct, read_only, locked });
        Ok(Opened { raw: self.last_file, direct })
    }

    fn file_len(&self, file: Raw) -> io::Result<u64> {
        let Some(file) = self.files.get(&file) else { unreachable!("file is not open") };
        self.with(|world| Ok(world.disks[file.disk].len())).unwrap_or_else(gone)
    }

    fn close_file(&mut self, file: Raw) {
        let Some(file) = self.files.remove(&file) else {
            return;
        };
        if file.locked {
            self.with(|world| world.disks[file.disk].locked = false);
        }
    }
}

/// What a call of a process that has ended gets; nobody is there to see it.
fn gone<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EBADF))
}

/// The disk a host finds under `path`.
fn open(world: &mut World, host: HostId, path: &Path, options: &OpenOptions) -> io::Result<usize> {
    let name = (host, PathBuf::from(path));
    let disk = match world.names.get(&name) {
        Some(_) if options.create && options.exclusive => {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Some(disk) => *disk,
        None if options.create => world.add_disk(name, 0),
        None => return Err(io::ErrorKind::NotFound.into()),
    };
    let target = &mut world.disks[disk];
    if options.lock && std::mem::replace(&mut target.locked, true) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    if let Some(size) = options.size
        && target.len() < size
    {
        let ticket = target.begin_reserve(0, size);
        target.complete_write(ticket);
    }
    Ok(disk)
}

/// The outcome of a file operation that fails.
fn failed(op: Op, error: io::Error) -> Output {
    match op {
        Op::Read { mut buf, .. } => {
            buf.clear();
            Output::Read(Err(error), buf)
        }
        _ => Output::Done(Err(error)),
    }
}

/// What a real kernel refuses: writing a file opened for reading, unaligned direct I/O.
fn check(op: &Op, file: OpenFile) -> io::Result<()> {
    let sector = SECTOR as u64;
    let (aligned, writes) = match op {
        Op::Read { offset, len, .. } => ((offset | *len as u64).is_multiple_of(sector), false),
        Op::Write { offset, bufs, .. } => (is_aligned(*offset, bufs), true),
        Op::Allocate { .. } => (true, true),
        _ => (true, false),
    };
    if writes && file.read_only {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    if file.direct && !aligned {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(())
}

fn is_aligned(offset: u64, bufs: &Gather) -> bool {
    offset.is_multiple_of(SECTOR as u64)
        && bufs.pieces().all(|piece| (piece.as_ptr().addr() | piece.len()).is_multiple_of(SECTOR))
}

/// The disk's part of an operation that was admitted.
fn begin(disk: &mut Disk, number: usize, op: Op) -> DiskDone {
    let ticket = match op {
        Op::Read { offset, buf, len, .. } => {
            return DiskDone::Read { disk: number, offset, buf, len };
        }
        Op::Datasync { .. } => {
            return DiskDone::Datasync { disk: number, tickets: disk.begin_datasync() };
        }
        Op::Write { offset, bufs, .. } => disk.begin_write(offset, bufs),
        Op::Allocate { offset, len, kind: Allocate::PunchHole, .. } => {
            disk.begin_punch(offset, len)
        }
        Op::Allocate { offset, len, kind: Allocate::Reserve, .. } => {
            disk.begin_reserve(offset, len)
        }
        _ => unreachable!("not a file operation"),
    };
    DiskDone::Write { disk: number, ticket }
}

/// The end of a disk operation: its outcome.
pub(super) fn finish(world: &mut World, done: DiskDone) -> Output {
    match done {
        DiskDone::Failed(output) => output,
        DiskDone::Read { disk, offset, buf, len } => read(&world.disks[disk], offset, buf, len),
        DiskDone::Write { disk, ticket } => {
            world.disks[disk].complete_write(ticket);
            Output::Done(Ok(()))
        }
        DiskDone::Datasync { disk, tickets } => {
            world.disks[disk].complete_datasync(&tickets);
            Output::Done(Ok(()))
        }
    }
}

fn read(disk: &Disk, offset: u64, mut buf: AlignedBuf, len: usize) -> Output {
    buf.set_len(len);
    let got = disk.read(offset, &mut buf);
    buf.set_len(got);
    Output::Read(Ok(got), buf)
}
