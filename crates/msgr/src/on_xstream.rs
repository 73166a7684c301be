//! Sessions on an xstream, for the data plane: one thread, nothing shared, bodies received into
//! aligned buffers.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_auth::ConnectAuth;
use spirula_msgr_core::{Config, Connection, Now, Target};
use spirula_xstream::{AlignedBuf, Class, Shutdown, TcpListener, TcpStream};
use tracing::warn;

use crate::driver::end;
use crate::session::Outbox;
use crate::{Accepted, CloseReason, Transport, drive};

/// A session whose handle stays on its xstream.
pub type Session = crate::Session<Rc<RefCell<Outbox>>>;
pub type Event = crate::Event<Rc<RefCell<Outbox>>>;
pub type Incoming = crate::Incoming<Rc<RefCell<Outbox>>>;

/// Wait after accepting failed, for lack of file descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The clocks of the xstream.
pub fn now() -> Now {
    Now { mono: spirula_xstream::now(), wall: spirula_xstream::wall_now() }
}

/// Opens a session on a task of its own in `class`, where its events go to `dispatch`; that it could
/// not be opened is one of them.
pub fn open<D>(
    class: Class,
    config: Config,
    target: Target,
    auth: Box<dyn ConnectAuth>,
    dispatch: D,
) -> Session
where
    D: FnMut(&Session, Event) + 'static,
{
    let session = Session::new();
    let opened = session.clone();
    // The task ends by itself, with the session.
    drop(spirula_xstream::spawn(class, async move {
        match dial(&config, &target).await {
            Ok(stream) => {
                let connection = Connection::connect(config, target, auth, now());
                drive(Tcp(stream), connection, session, dispatch).await;
            }
            Err(e) => end(&session, CloseReason::Io(e), dispatch),
        }
    }));
    opened
}

async fn dial(config: &Config, target: &Target) -> io::Result<TcpStream> {
    let addr = target.addr.addr.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let connecting = TcpStream::connect(addr);
    spirula_xstream::timeout(config.timeouts.handshake, connecting)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// Accepts connections for ever (drop the future to stop) and drives them in `class`. `accept`
/// decides on each; `None` hangs up.
pub async fn serve<D>(
    class: Class,
    listener: TcpListener,
    mut accept: impl FnMut(SocketAddr) -> Option<Accepted<D>>,
) where
    D: FnMut(&Session, Event) + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(Accepted { config, auth, dispatch }) = accept(peer) else {
                    continue;
                };
                let connection = Connection::accept(config, peer, auth, now());
                let driven = drive(Tcp(stream), connection, Session::new(), dispatch);
                // The task ends by itself, with the session.
                drop(spirula_xstream::spawn(class, driven));
            }
            Err(e) => {
                warn!("cannot accept connections: {e}; check the limit of open files");
                spirula_xstream::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// TCP on an xstream.
struct Tcp(TcpStream);

impl Transport for Tcp {
    fn recv(&self, buf: BytesMut) -> impl Future<Output = (io::Result<usize>, BytesMut)> {
        self.0.recv(buf)
    }

    async fn recv_body(&self, start: BytesMut, len: usize) -> io::Result<Bytes> {
        let mut body = AlignedBuf::with_capacity(len);
        body.extend_from_slice(&start);
        let (result, body) = self.0.recv_exact(body, start.len()..len).await;
        result.map(|()| body.freeze())
    }

    fn send(&self, bufs: Vec<Bytes>) -> impl Future<Output = io::Result<()>> {
        self.0.send(bufs)
    }

    fn shutdown(&self) {
        // Fails when the peer was faster.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    fn now(&self) -> Now {
        now()
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> {
        spirula_xstream::sleep_until(deadline)
    }

    fn settle(&self) -> impl Future<Output = ()> {
        spirula_xstream::settle()
    }
}
