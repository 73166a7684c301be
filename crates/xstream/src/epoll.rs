//! The epoll back end, for systems that refuse io_uring.
//!
//! Sockets do not block: an operation is tried at once, and again when epoll reports an edge.
//! Operations of one direction of a socket are served in order. Files have no such readiness, so a
//! small pool of threads does their I/O (`pool.rs`).

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::buf::AlignedBuf;
use crate::config::StartError;
use crate::driver::{Driver, Gather, Key, Op, Opened, Output, Raw, Shutdown, Wait, cancelled};
use crate::file::OpenOptions;
use crate::limits::{EPOLL_EVENTS_MAX, IOVECS_MAX};
use crate::runtime::Shared;
use crate::sys;

mod pool;

use pool::Pool;

/// Marks the event of the cross-thread wake-up.
const WAKE: u64 = u64::MAX;

pub(crate) struct Epoll {
    epoll: OwnedFd,
    shared: Arc<Shared>,
    pool: Pool,
    /// Sockets by descriptor.
    sockets: Vec<Option<Sock>>,
    /// The socket of each operation in flight that is on one.
    places: Vec<Option<Raw>>,
    done: Vec<(Key, Output)>,
    events: Vec<libc::epoll_event>,
}

/// A socket's operations and what is known of its readiness.
#[derive(Default)]
struct Sock {
    registered: bool,
    readable: bool,
    writable: bool,
    /// The peer is gone: reading will tell so, whatever a short read suggests.
    hung_up: bool,
    inward: VecDeque<(Key, Inward)>,
    outward: VecDeque<(Key, Outward)>,
}

enum Inward {
    Accept,
    Some(BytesMut),
    Exact { buf: AlignedBuf, at: usize, end: usize },
}

enum Outward {
    Connect,
    Send(Gather),
}

/// What an attempt came to.
enum Attempt<T> {
    Done(Output),
    /// The socket would block; the operation comes back.
    Wait(T),
}

impl Epoll {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Epoll, StartError> {
        // SAFETY: takes no pointers; the descriptor returned is new and ours.
        let raw = sys::check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
            .map_err(|source| StartError::Epoll { source })?;
        // SAFETY: `raw` was just opened and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(raw) };
        let driver = Epoll {
            epoll,
            pool: Pool::new(shared.clone()),
            shared,
            sockets: Vec::new(),
            places: Vec::new(),
            done: Vec::new(),
            events: Vec::with_capacity(EPOLL_EVENTS_MAX),
        };
        if let Some(event) = driver.shared.event() {
            let registered = driver.register(event.raw(), libc::EPOLLIN, WAKE);
            registered.map_err(|source| StartError::Epoll { source })?;
        }
        Ok(driver)
    }

    fn register(&self, raw: Raw, interest: i32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: data };
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: `event` is valid for the call; both descriptors are open.
        sys::check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, raw, &mut event) })
            .map(drop)
    }

    /// Puts a descriptor under watch, with nothing known of its readiness yet.
    fn watch(&mut self, raw: Raw) -> io::Result<()> {
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.register(raw, interest, raw as u64)?;
        let sock = self.sock(raw);
        sock.registered = true;
        sock.readable = true;
        Ok(())
    }

    /// The table's entry for a socket, made if it is new.
    fn sock(&mut self, raw: Raw) -> &mut Sock {
        let index = raw as usize;
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, || None);
        }
        self.sockets[index].get_or_insert_default()
    }

    fn place(&mut self, key: Key, raw: Raw) {
        if key >= self.places.len() {
            self.places.resize(key + 1, None);
        }
        self.places[key] = Some(raw);
    }

    fn finish(&mut self, key: Key, output: Output) {
        if let Some(place) = self.places.get_mut(key) {
            *place = None;
        }
        self.done.push((key, output));
    }

    fn submit_inward(&mut self, key: Key, raw: Raw, inward: Inward) {
        self.place(key, raw);
        self.sock(raw).inward.push_back((key, inward));
        self.serve_inward(raw);
    }

    fn submit_outward(&mut self, key: Key, raw: Raw, outward: Outward) {
        self.place(key, raw);
        let sock = self.sock(raw);
        // Until it turns out otherwise; a connection under way is told by an event.
        sock.writable |= matches!(outward, Outward::Send(_));
        sock.outward.push_back((key, outward));
        self.serve_outward(raw);
    }

    /// Serves what waits to come in, until the socket would block.
    fn serve_inward(&mut self, raw: Raw) {
        loop {
            let sock = self.sock(raw);
            if !sock.readable {
                return;
            }
            let Some((key, inward)) = sock.inward.pop_front() else {
                return;
            };
            let hung_up = sock.hung_up;
            let mut drained = false;
            match attempt_inward(raw, inward, &mut drained) {
                Attempt::Done(output) => {
                    self.sock(raw).readable = !drained || hung_up;
                    let output = self.adopt_accepted(output);
                    self.finish(key, output);
                }
                Attempt::Wait(inward) => {
                    let sock = self.sock(raw);
                    sock.readable = false;
                    sock.inward.push_front((key, inward));
                    return;
                }
            }
        }
    }

    /// Serves what waits to go out, until the socket would block.
    fn serve_outward(&mut self, raw: Raw) {
        loop {
            let sock = self.sock(raw);
            if !sock.writable {
                return;
            }
            let Some((key, outward)) = sock.outward.pop_front() else {
                return;
            };
            match attempt_outward(raw, outward) {
                Attempt::Done(output) => self.finish(key, output),
                Attempt::Wait(outward) => {
                    let sock = self.sock(raw);
                    sock.writable = false;
                    sock.outward.push_front((key, outward));
                    return;
                }
            }
        }
    }

    fn adopt_accepted(&mut self, output: Output) -> Output {
        let Output::Accepted(Ok(raw)) = output else {
            return output;
        };
        let adopted = sys::prepare_accepted(raw).and_then(|()| self.watch(raw));
        Output::Accepted(adopted.map(|()| raw).inspect_err(|_| self.close_socket(raw)))
    }

    fn connect(&mut self, key: Key, sock: Raw, addr: SocketAddr) {
        match sys::connect(sock, addr).and_then(|connected| {
            self.watch(sock)?;
            Ok(connected)
        }) {
            Ok(true) => self.done.push((key, Output::Connected(Ok(())))),
            Ok(false) => self.submit_outward(key, sock, Outward::Connect),
            Err(error) => self.done.push((key, Output::Connected(Err(error)))),
        }
    }

    fn wait(&mut self, wait: Wait) {
        let timeout_ms = match wait {
            Wait::No => 0,
            Wait::Forever => -1,
            // Rounded up, or the last fraction of a millisecond would be spent spinning.
            Wait::AtMost(left) => {
                i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
            }
        };
        let (epoll, room) = (self.epoll.as_raw_fd(), self.events.capacity());
        self.events.clear();
        // SAFETY: `events` has room for `room` entries, which the kernel fills from the front.
        let result = sys::check(unsafe {
            libc::epoll_wait(epoll, self.events.as_mut_ptr(), room as i32, timeout_ms)
        });
        match result {
            // SAFETY: the kernel filled that many entries.
            Ok(count) => unsafe { self.events.set_len(count as usize) },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("epoll cannot be waited for: {error}"),
        }
    }

    fn on_event(&mut self, event: libc::epoll_event) {
        let (flags, data) = (event.events as i32, event.u64);
        if data == WAKE {
            if let Some(event) = self.shared.event() {
                event.clear();
            }
            return;
        }
        let raw = data as Raw;
        // A socket closed earlier in this batch has no entry any more.
        let Some(Some(sock)) = self.sockets.get_mut(raw as usize) else {
            return;
        };
        let broken = flags & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
        sock.hung_up |= broken || flags & libc::EPOLLRDHUP != 0;
        sock.readable |= broken || flags & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0;
        sock.writable |= broken || flags & libc::EPOLLOUT != 0;
        self.serve_inward(raw);
        self.serve_outward(raw);
    }
}

impl Driver for Epoll {
    fn submit(&mut self, key: Key, op: Op) {
        match op {
            Op::Accept { listener } => self.submit_inward(key, listener, Inward::Accept),
            Op::Connect { sock, addr } => self.connect(key, sock, addr),
            Op::Recv { sock, buf } => self.submit_inward(key, sock, Inward::Some(buf)),
            Op::RecvExact { sock, buf, start, end } => {
                self.submit_inward(key, sock, Inward::Exact { buf, at: start, end });
            }
            Op::Send { sock, bufs } => self.submit_outward(key, sock, Outward::Send(bufs)),
            file @ (Op::Read { .. }
            | Op::Write { .. }
            | Op::Datasync { .. }
            | Op::Allocate { .. }) => self.pool.submit(key, file),
        }
    }

    fn cancel(&mut self, key: Key) {
        let Some(Some(raw)) = self.places.get(key).copied() else {
            return;
        };
        let sock = self.sock(raw);
        if let Some(index) = sock.inward.iter().position(|(waiting, _)| *waiting == key)
            && let Some((_, inward)) = sock.inward.remove(index)
        {
            let output = match inward {
                Inward::Accept => Output::Accepted(Err(cancelled())),
                Inward::Some(buf) => Output::Received(Err(cancelled()), buf),
                Inward::Exact { buf, .. } => Output::Filled(Err(cancelled()), buf),
            };
            self.finish(key, output);
        } else if let Some(index) = sock.outward.iter().position(|(waiting, _)| *waiting == key)
            && let Some((_, outward)) = sock.outward.remove(index)
        {
            let output = match outward {
                Outward::Connect => Output::Connected(Err(cancelled())),
                Outward::Send(_) => Output::Sent(Err(cancelled())),
            };
            self.finish(key, output);
        }
    }

    fn poll(&mut self, wait: Wait, done: &mut Vec<(Key, Output)>) {
        // Before waiting: what finished since the last look has had its wake-up already.
        self.pool.collect(&mut self.done);
        let wait = if self.done.is_empty() { wait } else { Wait::No };
        self.wait(wait);
        let mut events = mem::take(&mut self.events);
        for event in events.drain(..) {
            self.on_event(event);
        }
        self.events = events;
        self.pool.collect(&mut self.done);
        done.append(&mut self.done);
    }

    fn now(&self) -> Duration {
        sys::monotonic()
    }

    fn wall_now(&self) -> Duration {
        sys::wall()
    }

    fn fill_random(&mut self, out: &mut [u8]) {
        sys::fill_random(out);
    }

    fn listen(&mut self, addr: SocketAddr) -> io::Result<Raw> {
        let raw = sys::listen(addr, true)?;
        self.watch(raw).map(|()| raw).inspect_err(|_| self.close_socket(raw))
    }

    fn socket(&mut self, peer: &SocketAddr) -> io::Result<Raw> {
        sys::socket(peer, true)
    }

    fn local_addr(&self, sock: Raw) -> io::Result<SocketAddr> {
        sys::local_addr(sock)
    }

    fn peer_addr(&self, sock: Raw) -> io::Result<SocketAddr> {
        sys::peer_addr(sock)
    }

    fn shutdown(&mut self, sock: Raw, how: Shutdown) -> io::Result<()> {
        sys::shutdown(sock, how)
    }

    fn close_socket(&mut self, sock: Raw) {
        if let Some(entry) = self.sockets.get_mut(sock as usize) {
            *entry = None;
        }
        // Closing takes it out of epoll too.
        sys::close(sock);
    }

    fn open(&mut self, path: &Path, options: &OpenOptions) -> io::Result<Opened> {
        sys::open(path, options)
    }

    fn file_len(&self, file: Raw) -> io::Result<u64> {
        sys::file_len(file)
    }

    fn close_file(&mut self, file: Raw) {
        sys::close(file);
    }
}

/// Tries to receive; `drained` tells that no more is there for now.
fn attempt_inward(raw: Raw, inward: Inward, drained: &mut bool) -> Attempt<Inward> {
    let socket = sys::borrow_socket(raw);
    match inward {
        Inward::Accept => match retry(|| sys::accept(raw)) {
            Ok(raw) => Attempt::Done(Output::Accepted(Ok(raw))),
            Err(error) if would_block(&error) => Attempt::Wait(Inward::Accept),
            Err(error) => Attempt::Done(Output::Accepted(Err(error))),
        },
        Inward::Some(mut buf) => match retry(|| socket.recv(buf.spare_capacity_mut())) {
            Ok(got) => {
                *drained = got < buf.spare_capacity_mut().len();
                // SAFETY: `recv` initialised the first `got` bytes of the spare capacity.
                unsafe { buf.advance_mut(got) };
                Attempt::Done(Output::Received(Ok(got), buf))
            }
            Err(error) if would_block(&error) => Attempt::Wait(Inward::Some(buf)),
            Err(error) => Attempt::Done(Output::Received(Err(error), buf)),
        },
        Inward::Exact { mut buf, mut at, end } => loop {
            if at == end {
                return Attempt::Done(Output::Filled(Ok(()), buf));
            }
            match retry(|| (&*socket).read(buf.range(at, end))) {
                Ok(0) => {
                    let ended = io::ErrorKind::UnexpectedEof.into();
                    return Attempt::Done(Output::Filled(Err(ended), buf));
                }
                Ok(got) => at += got,
                Err(error) if would_block(&error) => {
                    return Attempt::Wait(Inward::Exact { buf, at, end });
                }
                Err(error) => return Attempt::Done(Output::Filled(Err(error), buf)),
            }
        },
    }
}

fn attempt_outward(raw: Raw, outward: Outward) -> Attempt<Outward> {
    let Outward::Send(mut bufs) = outward else {
        return Attempt::Done(Output::Connected(sys::take_error(raw)));
    };
    let socket = sys::borrow_socket(raw);
    while bufs.remaining() > 0 {
        let sent = {
            let pieces: Vec<IoSlice<'_>> =
                bufs.pieces().take(IOVECS_MAX).map(|piece| IoSlice::new(piece)).collect();
            retry(|| socket.send_vectored_with_flags(&pieces, libc::MSG_NOSIGNAL))
        };
        match sent {
            Ok(len) => bufs.advance(len),
            Err(error) if would_block(&error) => return Attempt::Wait(Outward::Send(bufs)),
            Err(error) => return Attempt::Done(Output::Sent(Err(error))),
        }
    }
    Attempt::Done(Output::Sent(Ok(())))
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Calls again when a signal came between.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
