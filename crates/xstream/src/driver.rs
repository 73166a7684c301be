//! The narrow trait between the executor and a back end, and the operations that cross it.
//!
//! An operation carries its buffers by value into the back end and its outcome carries them back.
//! The executor names it by a key and never reuses the key before the outcome was taken; so a back
//! end may index its own tables by it. Sockets and files are plain numbers here; the handles that
//! keep them open are held by the executor beside the key.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::buf::AlignedBuf;
use crate::file::OpenOptions;

/// A socket or file of a back end: a file descriptor, or an index in a simulated world.
pub(crate) type Raw = i32;

/// Names an operation in flight.
pub(crate) type Key = usize;

/// Which directions of a stream to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The peer sees the end of the stream once it has read what was sent.
    Write,
    /// Both directions; pending receives end too.
    Both,
}

/// An operation to start.
pub(crate) enum Op {
    Accept { listener: Raw },
    Connect { sock: Raw, addr: SocketAddr },
    Recv { sock: Raw, buf: BytesMut },
    RecvExact { sock: Raw, buf: AlignedBuf, start: usize, end: usize },
    Send { sock: Raw, bufs: Gather },
    Read { file: Raw, offset: u64, buf: AlignedBuf, len: usize },
    Write { file: Raw, offset: u64, bufs: Gather },
    Datasync { file: Raw },
    Allocate { file: Raw, offset: u64, len: u64, kind: Allocate },
}

/// What to do with a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allocate {
    /// Reserve space, extending the file.
    Reserve,
    /// Give space back; the range reads as zeros.
    PunchHole,
}

/// The outcome of an operation, with its buffers.
pub(crate) enum Output {
    Accepted(io::Result<Raw>),
    Connected(io::Result<()>),
    Received(io::Result<usize>, BytesMut),
    Filled(io::Result<()>, AlignedBuf),
    Sent(io::Result<()>),
    Read(io::Result<usize>, AlignedBuf),
    Done(io::Result<()>),
}

/// How long `poll` may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    AtMost(Duration),
    Forever,
}

/// A file that was opened.
pub(crate) struct Opened {
    pub(crate) raw: Raw,
    /// Whether the kernel's page cache is bypassed.
    pub(crate) direct: bool,
}

/// A back end.
pub(crate) trait Driver {
    /// Starts `op`. Its outcome appears in a later `poll`, exactly once.
    fn submit(&mut self, key: Key, op: Op);
    /// Nobody waits for `key` any more: end it soon. Its outcome still appears.
    fn cancel(&mut self, key: Key);
    /// Starts what was submitted, waits as told, and hands out what completed.
    fn poll(&mut self, wait: Wait, done: &mut Vec<(Key, Output)>);

    /// Monotonic time, comparable between the xstreams of a process (or world).
    fn now(&self) -> Duration;
    /// Time since the Unix epoch.
    fn wall_now(&self) -> Duration;
    /// Randomness fit for secrets (or, simulated, drawn from the seed).
    fn fill_random(&mut self, out: &mut [u8]);

    fn listen(&mut self, addr: SocketAddr) -> io::Result<Raw>;
    fn socket(&mut self, peer: &SocketAddr) -> io::Result<Raw>;
    fn local_addr(&self, sock: Raw) -> io::Result<SocketAddr>;
    fn peer_addr(&self, sock: Raw) -> io::Result<SocketAddr>;
    fn shutdown(&mut self, sock: Raw, how: Shutdown) -> io::Result<()>;
    fn close_socket(&mut self, sock: Raw);

    fn open(&mut self, path: &Path, options: &OpenOptions) -> io::Result<Opened>;
    fn file_len(&self, file: Raw) -> io::Result<u64>;
    fn close_file(&mut self, file: Raw);
}

/// Bytes to be written in order, from several buffers, and how far that has come.
pub(crate) struct Gather {
    bufs: VecDeque<Bytes>,
    remaining: usize,
}

impl Gather {
    pub(crate) fn new(bufs: Vec<Bytes>) -> Gather {
        let mut bufs = VecDeque::from(bufs);
        bufs.retain(|buf| !buf.is_empty());
        let remaining = bufs.iter().map(Bytes::len).sum();
        Gather { bufs, remaining }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.remaining
    }

    /// The first piece, when it is the only one.
    pub(crate) fn single(&self) -> Option<&Bytes> {
        if self.bufs.len() == 1 { self.bufs.front() } else { None }
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.bufs.iter()
    }

    /// Takes up to `len` bytes off the front as one piece, without copying.
    pub(crate) fn take_piece(&mut self, len: usize) -> Option<Bytes> {
        let front = self.bufs.front_mut()?;
        let piece = front.split_to(len.min(front.len()));
        if front.is_empty() {
            self.bufs.pop_front();
        }
        self.remaining -= piece.len();
        Some(piece)
    }

    /// Notes that the first `len` bytes are written.
    pub(crate) fn advance(&mut self, mut len: usize) {
        assert!(len <= self.remaining, "more was written than was given");
        self.remaining -= len;
        while len > 0 {
            let Some(front) = self.bufs.front_mut() else {
                break;
            };
            let step = len.min(front.len());
            front.advance(step);
            len -= step;
            if front.is_empty() {
                self.bufs.pop_front();
            }
        }
    }
}

/// The error for an operation that its owner gave up.
pub(crate) fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}
