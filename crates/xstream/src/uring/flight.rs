//! One operation on the ring: the memory it lends the kernel, its next part, and what a completion
//! means for it. Short transfers go on with the rest; an abandoned operation ends with the part
//! that is in flight.

use std::io;
use std::ptr;

use bytes::{BufMut, BytesMut};
use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use socket2::SockAddr;

use crate::buf::AlignedBuf;
use crate::driver::{Allocate, Gather, Op, Output, Raw, cancelled};
use crate::limits::IO_BYTES_MAX;
use crate::sys;

/// What follows a completion.
pub(super) enum Step {
    /// Queue `entry` again.
    Again,
    /// Take the output.
    Done,
}

/// An operation and its memory, which stays in place while the table keeps this value: buffers are
/// heap blocks whose address does not change when their owner moves.
pub(super) struct Flight {
    kind: Kind,
    result: io::Result<usize>,
    abandoned: bool,
}

enum Kind {
    Accept { listener: Raw },
    Connect { sock: Raw, addr: Box<SockAddr> },
    Recv { sock: Raw, buf: BytesMut },
    RecvExact { sock: Raw, buf: AlignedBuf, at: usize, end: usize },
    Send { sock: Raw, vector: Vector },
    Read { file: Raw, offset: u64, buf: AlignedBuf, at: usize, end: usize },
    Write { file: Raw, offset: u64, vector: Vector },
    Datasync { file: Raw },
    Allocate { file: Raw, offset: u64, len: u64, kind: Allocate },
}

/// Bytes to write, with what the kernel wants to see of several pieces.
struct Vector {
    bufs: Gather,
    iovecs: Vec<libc::iovec>,
    header: Option<Box<libc::msghdr>>,
}

impl Vector {
    fn new(bufs: Gather) -> Vector {
        Vector { bufs, iovecs: Vec::new(), header: None }
    }
}

impl Flight {
    pub(super) fn new(op: Op) -> Flight {
        let kind = match op {
            Op::Accept { listener } => Kind::Accept { listener },
            Op::Connect { sock, addr } => Kind::Connect { sock, addr: Box::new(addr.into()) },
            Op::Recv { sock, buf } => Kind::Recv { sock, buf },
            Op::RecvExact { sock, buf, start, end } => {
                Kind::RecvExact { sock, buf, at: start, end }
            }
            Op::Send { sock, bufs } => Kind::Send { sock, vector: Vector::new(bufs) },
            Op::Read { file, offset, buf, len } => {
                Kind::Read { file, offset, buf, at: 0, end: len }
            }
            Op::Write { file, offset, bufs } => {
                Kind::Write { file, offset, vector: Vector::new(bufs) }
            }
            Op::Datasync { file } => Kind::Datasync { file },
            Op::Allocate { file, offset, len, kind } => Kind::Allocate { file, offset, len, kind },
        };
        Flight { kind, result: Ok(0), abandoned: false }
    }

    /// Nobody waits any more. Whether to ask the kernel to end the operation: file I/O ends by
    /// itself.
    pub(super) fn abandon(&mut self) -> bool {
        self.abandoned = true;
        matches!(
            self.kind,
            Kind::Accept { .. }
                | Kind::Connect { .. }
                | Kind::Recv { .. }
                | Kind::RecvExact { .. }
                | Kind::Send { .. }
        )
    }

    /// The entry for what is still to do. It points into memory of this flight only.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        match &mut self.kind {
            Kind::Accept { listener } => {
                opcode::Accept::new(Fd(*listener), ptr::null_mut(), ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Kind::Connect { sock, addr } => {
                opcode::Connect::new(Fd(*sock), addr.as_ptr().cast(), addr.len()).build()
            }
            Kind::Recv { sock, buf } => {
                let spare = buf.spare_capacity_mut();
                opcode::Recv::new(Fd(*sock), spare.as_mut_ptr().cast(), io_len(spare.len())).build()
            }
            Kind::RecvExact { sock, buf, at, end } => {
                let rest = buf.target(*at, *end);
                opcode::Recv::new(Fd(*sock), rest, io_len(*end - *at))
                    .flags(libc::MSG_WAITALL)
                    .build()
            }
            Kind::Send { sock, vector } => send_entry(*sock, vector),
            Kind::Read { file, offset, buf, at, end } => {
                let rest = buf.target(*at, *end);
                opcode::Read::new(Fd(*file), rest, io_len(*end - *at))
                    .offset(*offset + *at as u64)
                    .build()
            }
            Kind::Write { file, offset, vector } => write_entry(*file, *offset, vector),
            Kind::Datasync { file } => {
                let flags = io_uring::types::FsyncFlags::DATASYNC;
                opcode::Fsync::new(Fd(*file)).flags(flags).build()
            }
            Kind::Allocate { file, offset, len, kind } => opcode::Fallocate::new(Fd(*file), *len)
                .offset(*offset)
                .mode(sys::allocate_mode(*kind))
                .build(),
        }
    }

    pub(super) fn on_completion(&mut self, result: i32) -> Step {
        let Ok(got) = usize::try_from(result) else {
            if (result == -libc::EINTR || result == -libc::EAGAIN) && !self.abandoned {
                return Step::Again;
            }
            self.result = Err(io::Error::from_raw_os_error(-result));
            return Step::Done;
        };
        self.result = Ok(got);
        let finished = match &mut self.kind {
            Kind::Recv { buf, .. } => {
                assert!(got <= buf.spare_capacity_mut().len(), "more received than asked for");
                // SAFETY: the kernel initialised the first `got` bytes of the spare capacity.
                unsafe { buf.advance_mut(got) };
                true
            }
            Kind::RecvExact { at, end, buf, .. } => {
                assert!(got <= *end - *at, "more received than asked for");
                // SAFETY: the kernel wrote `got` bytes at `at`.
                unsafe { buf.filled(*at, *at + got) };
                *at += got;
                if got == 0 && at < end {
                    self.result = Err(io::ErrorKind::UnexpectedEof.into());
                }
                got == 0 || at >= end
            }
            Kind::Read { at, end, buf, .. } => {
                assert!(got <= *end - *at, "more read than asked for");
                // SAFETY: the kernel wrote `got` bytes at `at`.
                unsafe { buf.filled(*at, *at + got) };
                *at += got;
                self.result = Ok(*at);
                got == 0 || at >= end
            }
            Kind::Send { vector, .. } => advance(&mut vector.bufs, got, &mut self.result),
            Kind::Write { vector, offset, .. } => {
                *offset += got as u64;
                advance(&mut vector.bufs, got, &mut self.result)
            }
            Kind::Accept { .. }
            | Kind::Connect { .. }
            | Kind::Datasync { .. }
            | Kind::Allocate { .. } => true,
        };
        match finished {
            true => Step::Done,
            false if self.abandoned => {
                self.result = Err(cancelled());
                Step::Done
            }
            false => Step::Again,
        }
    }

    pub(super) fn into_output(self) -> Output {
        let result = self.result;
        match self.kind {
            Kind::Accept { .. } => Output::Accepted(result.and_then(|fd| {
                let raw =
                    Raw::try_from(fd).unwrap_or_else(|_| unreachable!("a descriptor is an int"));
                sys::prepare_accepted(raw).map(|()| raw).inspect_err(|_| sys::close(raw))
            })),
            Kind::Connect { .. } => Output::Connected(result.map(drop)),
            Kind::Recv { buf, .. } => Output::Received(result, buf),
            Kind::RecvExact { buf, .. } => Output::Filled(result.map(drop), buf),
            Kind::Send { .. } => Output::Sent(result.map(drop)),
            Kind::Read { mut buf, at, .. } => {
                buf.set_len(at);
                Output::Read(result, buf)
            }
            Kind::Write { .. } | Kind::Datasync { .. } | Kind::Allocate { .. } => {
                Output::Done(result.map(drop))
            }
        }
    }
}

/// Notes `got` bytes written; whether all are. Writing nothing forever is an error.
fn advance(bufs: &mut Gather, got: usize, result: &mut io::Result<usize>) -> bool {
    bufs.advance(got);
    if got == 0 && bufs.remaining() > 0 {
        *result = Err(io::ErrorKind::WriteZero.into());
        return true;
    }
    bufs.remaining() == 0
}

fn send_entry(sock: Raw, vector: &mut Vector) -> squeue::Entry {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    if let Some(piece) = vector.bufs.single() {
        return opcode::Send::new(Fd(sock), piece.as_ptr(), io_len(piece.len()))
            .flags(flags)
            .build();
    }
    sys::iovecs(vector.bufs.pieces(), &mut vector.iovecs);
    let header = vector.header.get_or_insert_with(|| {
        // SAFETY: a `msghdr` is plain pointers and lengths; all zeros is an empty message.
        Box::new(unsafe { std::mem::zeroed() })
    });
    header.msg_iov = vector.iovecs.as_mut_ptr();
    header.msg_iovlen = vector.iovecs.len() as _;
    opcode::SendMsg::new(Fd(sock), &**header).flags(flags as u32).build()
}

fn write_entry(file: Raw, offset: u64, vector: &mut Vector) -> squeue::Entry {
    if let Some(piece) = vector.bufs.single() {
        return opcode::Write::new(Fd(file), piece.as_ptr(), io_len(piece.len()))
            .offset(offset)
            .build();
    }
    sys::iovecs(vector.bufs.pieces(), &mut vector.iovecs);
    opcode::Writev::new(Fd(file), vector.iovecs.as_ptr(), vector.iovecs.len() as u32)
        .offset(offset)
        .build()
}

/// The length of one system call; the rest follows in another.
fn io_len(len: usize) -> u32 {
    len.min(IO_BYTES_MAX) as u32
}
