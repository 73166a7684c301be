//! TCP on an xstream.
//!
//! A stream may be cloned, so that one task receives while another sends; two operations in the
//! same direction at the same time are a mistake of the caller and may mix their bytes. Dropping
//! the future of a send leaves the stream at an unknown place: close it. The socket closes with
//! the last clone, once operations on it have ended.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::buf::AlignedBuf;
use crate::driver::{Gather, Op, Output, Raw, Shutdown};
use crate::limits::RECV_RESERVE_BYTES;
use crate::runtime::{Keep, OpFuture, Runtime, current};

/// Listens for TCP connections.
pub struct TcpListener {
    socket: Rc<Socket>,
}

impl TcpListener {
    /// Binds and listens; port 0 takes a free one, see [`TcpListener::local_addr`].
    pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
        let runtime = current();
        let raw = runtime.driver.borrow_mut().listen(addr)?;
        Ok(TcpListener { socket: adopt_socket(&runtime, raw) })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a connection.
    pub fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + use<> {
        let runtime = self.socket.runtime.clone();
        let op = Op::Accept { listener: self.socket.raw };
        let op = runtime.submit(op, Keep::Socket(self.socket.clone()));
        async move {
            let Output::Accepted(result) = op.await else { unreachable!("outcome of accept") };
            let socket = adopt_socket(&runtime, result?);
            let peer = runtime.driver.borrow().peer_addr(socket.raw)?;
            Ok((TcpStream { socket }, peer))
        }
    }
}

/// A TCP connection. Nagle's algorithm is off.
#[derive(Clone)]
pub struct TcpStream {
    socket: Rc<Socket>,
}

impl TcpStream {
    /// Connects to `addr`.
    pub fn connect(addr: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + use<> {
        let runtime = current();
        let raw = runtime.driver.borrow_mut().socket(&addr);
        let started = raw.map(|raw| {
            let socket = adopt_socket(&runtime, raw);
            let op = Op::Connect { sock: raw, addr };
            (runtime.submit(op, Keep::Socket(socket.clone())), socket)
        });
        async move {
            let (op, socket) = started?;
            let Output::Connected(result) = op.await else { unreachable!("outcome of connect") };
            result.map(|()| TcpStream { socket })
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.runtime.driver.borrow().peer_addr(self.socket.raw)
    }

    /// Appends what has arrived, at least one byte, to `buf`, into its spare capacity (some is made
    /// if there is none). 0 is the end of the stream.
    pub fn recv(
        &self,
        mut buf: BytesMut,
    ) -> impl Future<Output = (io::Result<usize>, BytesMut)> + use<> {
        if buf.capacity() == buf.len() {
            buf.reserve(RECV_RESERVE_BYTES);
        }
        let op = self.submit(Op::Recv { sock: self.socket.raw, buf });
        async move {
            let Output::Received(result, buf) = op.await else { unreachable!("outcome of recv") };
            (result, buf)
        }
    }

    /// Fills `range` of `buf` (within its capacity); its length becomes at least the range's end.
    /// The end of the stream before that is `UnexpectedEof`.
    pub fn recv_exact(
        &self,
        mut buf: AlignedBuf,
        range: Range<usize>,
    ) -> impl Future<Output = (io::Result<()>, AlignedBuf)> + use<> {
        assert!(range.start <= range.end, "receive range is reversed");
        if buf.len() < range.start {
            buf.set_len(range.start);
        }
        let end = range.end;
        let op = Op::RecvExact { sock: self.socket.raw, buf, start: range.start, end: range.end };
        let op = self.submit(op);
        async move {
            let Output::Filled(result, mut buf) = op.await else { unreachable!("outcome of recv") };
            buf.set_len(buf.len().max(end));
            (result, buf)
        }
    }

    /// Sends all of `bufs` in order, without copying.
    pub fn send(&self, bufs: Vec<Bytes>) -> impl Future<Output = io::Result<()>> + use<> {
        let op = self.submit(Op::Send { sock: self.socket.raw, bufs: Gather::new(bufs) });
        async move {
            let Output::Sent(result) = op.await else { unreachable!("outcome of send") };
            result
        }
    }

    /// Ends one or both directions now.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.runtime.driver.borrow_mut().shutdown(self.socket.raw, how)
    }

    fn submit(&self, op: Op) -> OpFuture {
        self.socket.runtime.submit(op, Keep::Socket(self.socket.clone()))
    }
}

/// An accepted or connected socket that is not wrapped yet.
fn adopt_socket(runtime: &Rc<Runtime>, raw: Raw) -> Rc<Socket> {
    Rc::new(Socket { runtime: runtime.clone(), raw })
}

/// An open socket; closes on drop.
pub(crate) struct Socket {
    pub(crate) runtime: Rc<Runtime>,
    pub(crate) raw: Raw,
}

impl Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.runtime.driver.borrow().local_addr(self.raw)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.runtime.driver.borrow_mut().close_socket(self.raw);
    }
}
