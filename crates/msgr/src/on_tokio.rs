//! Sessions on tokio, for the control plane and clients.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use spirula_auth::ConnectAuth;
use spirula_msgr_core::{Config, Connection, Now, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::{Instrument as _, warn};

use crate::driver::end;
use crate::session::Outbox;
use crate::{Accepted, CloseReason, Transport, drive};

/// A session whose handle may go to any thread.
pub type Session = crate::Session<Arc<Mutex<Outbox>>>;
pub type Event = crate::Event<Arc<Mutex<Outbox>>>;
pub type Incoming = crate::Incoming<Arc<Mutex<Outbox>>>;

/// Pieces handed to one vectored write.
const SLICES_MAX: usize = 64;
/// Wait after accepting failed, for lack of file descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Stands for "never": as far as every clock can count.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The clocks as sessions on tokio see them.
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { mono: origin().elapsed(), wall }
}

/// Opens a session on a task of its own, where its events go to `dispatch`; that it could not be
/// opened is one of them.
pub fn open<D>(config: Config, target: Target, auth: Box<dyn ConnectAuth>, dispatch: D) -> Session
where
    D: FnMut(&Session, Event) + Send + 'static,
{
    let session = Session::new();
    let opened = session.clone();
    let dialing = async move {
        match dial(&config, &target).await {
            Ok(stream) => {
                let connection = Connection::connect(config, target, auth, now());
                drive(Tcp(stream), connection, session, dispatch).await;
            }
            Err(e) => end(&session, CloseReason::Io(e), dispatch),
        }
    };
    tokio::spawn(dialing.in_current_span());
    opened
}

async fn dial(config: &Config, target: &Target) -> io::Result<TcpStream> {
    let addr = target.addr.addr.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let connecting = TcpStream::connect(addr);
    let stream = tokio::time::timeout(config.timeouts.handshake, connecting)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Accepts connections for ever (drop the future to stop). `accept` decides on each; `None` hangs
/// up.
pub async fn serve<D>(
    listener: TcpListener,
    mut accept: impl FnMut(SocketAddr) -> Option<Accepted<D>>,
) where
    D: FnMut(&Session, Event) + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(Accepted { config, auth, dispatch }) = accept(peer) else {
                    continue;
                };
                if let Err(e) = stream.set_nodelay(true) {
                    warn!(%peer, "connection lost at once: {e}");
                    continue;
                }
                let connection = Connection::accept(config, peer, auth, now());
                let serving = drive(Tcp(stream), connection, Session::new(), dispatch);
                tokio::spawn(serving.in_current_span());
            }
            Err(e) => {
                warn!("cannot accept connections: {e}; check the limit of open files");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Where the monotonic clock starts.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// TCP on tokio.
struct Tcp(TcpStream);

impl Tcp {
    async fn read(&self, buf: &mut impl BufMut) -> io::Result<usize> {
        loop {
            match self.0.try_read_buf(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.0.readable().await?,
                result => return result,
            }
        }
    }
}

impl Transport for Tcp {
    async fn recv(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        (self.read(&mut buf).await, buf)
    }

    async fn recv_body(&self, start: BytesMut, len: usize) -> io::Result<Bytes> {
        let mut body = BytesMut::with_capacity(len);
        body.extend_from_slice(&start);
        while body.len() < len {
            let missing = len - body.len();
            if self.read(&mut (&mut body).limit(missing)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body.freeze())
    }

    async fn send(&self, mut bufs: Vec<Bytes>) -> io::Result<()> {
        let mut first = 0;
        while first < bufs.len() {
            let written = {
                let slices: Vec<IoSlice<'_>> =
                    bufs[first..].iter().take(SLICES_MAX).map(|b| IoSlice::new(b)).collect();
                self.0.try_write_vectored(&slices)
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(mut n) => {
                    while n > 0 {
                        let step = n.min(bufs[first].len());
                        bufs[first].advance(step);
                        n -= step;
                        if bufs[first].is_empty() {
                            first += 1;
                        }
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.0.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The socket closes when the driver drops it.
    fn shutdown(&self) {}

    fn now(&self) -> Now {
        now()
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep_until(origin() + deadline.min(FAR))
    }

    async fn settle(&self) {}
}
