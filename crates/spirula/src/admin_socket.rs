//! The admin socket of a daemon: what `ceph daemon NAME COMMAND` talks to.
//!
//! A connection carries one request, JSON ended by NUL or newline, and one answer: its length as
//! four bytes, big-endian, then the bytes. What commands there are is the daemon's own affair
//! ([`DaemonAdmin`]): the same table answers `ceph tell`.
//!
//! Invariants: requests are bounded in size and time, connections in number; nothing that arrives
//! stops the server; the socket's file is there exactly while it is listened on.

mod daemon;
mod reply;

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use spirula_wire::errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::logging::LogHandle;

use daemon::WithLog;
pub(crate) use daemon::{FnAdmin, MgrAdmin, OsdInbox, osd};
pub(crate) use reply::AdminReply;

/// Longest request. (Ceph's own limit is 1024.)
const REQUEST_BYTES_MAX: usize = 64 << 10;
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take to send its request, or to take its answer.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a command may take.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest path that fits an address of a Unix socket.
const PATH_LEN_MAX: usize = 107;
const MODE: u32 = 0o755;

pub(crate) type ReplyFuture<'a> = Pin<Box<dyn Future<Output = AdminReply> + Send + 'a>>;

/// A daemon that answers commands.
pub(crate) trait DaemonAdmin: Send + Sync + 'static {
    /// Carries out a command: a JSON object with its `prefix` and its arguments.
    fn command(&self, json: String) -> ReplyFuture<'_>;
}

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminSocketError {
    #[error("admin socket {}: a running daemon listens on it already", .0.display())]
    InUse(PathBuf),
    #[error("admin socket {}: this is no socket; remove it or choose another path", .0.display())]
    NoSocket(PathBuf),
    #[error("admin socket {}: the path is longer than {PATH_LEN_MAX} bytes; use a shorter directory", .0.display())]
    TooLong(PathBuf),
    #[error("admin socket {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A socket that is served until this is dropped.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    path: PathBuf,
    /// Device and inode of the file: another daemon's file of that name is not ours to remove.
    file: (u64, u64),
    tasks: Vec<JoinHandle<()>>,
}

impl AdminSocket {
    /// As [`bind`](Self::bind), for a daemon whose log commands act on its log file and whose debug
    /// levels are those of its options.
    pub(crate) fn bind_with_log(
        path: &Path,
        name: &str,
        daemon: Arc<dyn DaemonAdmin>,
        log: &LogHandle,
    ) -> Result<Self, AdminSocketError> {
        let daemon = Arc::new(WithLog { name: name.to_owned(), log: log.clone(), daemon });
        let mut socket = Self::bind(path, name, daemon.clone())?;
        socket.tasks.push(tokio::spawn(daemon.follow()));
        Ok(socket)
    }

    /// Listens on `path` for daemon `name` and serves. The socket that a dead daemon left is
    /// replaced. Call it in a runtime.
    pub(crate) fn bind(
        path: &Path,
        name: &str,
        daemon: Arc<dyn DaemonAdmin>,
    ) -> Result<Self, AdminSocketError> {
        let failed = |source| AdminSocketError::Io { path: path.to_owned(), source };
        if path.as_os_str().len() > PATH_LEN_MAX {
            return Err(AdminSocketError::TooLong(path.to_owned()));
        }
        remove_stale(path)?;
        let listener = match UnixListener::bind(path) {
            Ok(listener) => listener,
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                return Err(AdminSocketError::InUse(path.to_owned()));
            }
            Err(e) => return Err(failed(e)),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
        let file = identity(path).map_err(failed)?;
        let span = info_span!("admin_socket", daemon = name);
        let task = tokio::spawn(accept(listener, daemon).instrument(span));
        Ok(Self { path: path.to_owned(), file, tasks: vec![task] })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if identity(&self.path).is_ok_and(|found| found == self.file) {
            // At worst a stale socket stays, which the next daemon replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<(), AdminSocketError> {
    let failed = |source| AdminSocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(AdminSocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // Without waiting: one whose queue is full has a daemon behind it as well.
    match std::os::unix::net::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            debug!("replacing the admin socket that a dead daemon left");
            fs::remove_file(path).map_err(failed)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(AdminSocketError::InUse(path.to_owned())),
        Err(e) => Err(failed(e)),
    }
}

async fn accept(listener: UnixListener, daemon: Arc<dyn DaemonAdmin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The tasks of this set end with it.
    let mut serving = tokio::task::JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                warn!("admin socket: {e}");
                // Out of file descriptors, most likely: others must close some first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let daemon = daemon.clone();
        let serve = async move {
            if let Err(e) = serve(stream, &*daemon).await {
                debug!("admin socket: {e}");
            }
            drop(place);
        };
        serving.spawn(serve.in_current_span());
    }
}

async fn serve(mut stream: UnixStream, daemon: &dyn DaemonAdmin) -> io::Result<()> {
    let request = timeout(IDLE_TIME_MAX, read_request(&mut stream)).await??;
    let answer = answer(&request, daemon).await;
    let send = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    timeout(IDLE_TIME_MAX, send).await?
}

/// Reads up to NUL or newline. A first NUL begins the oldest protocol: a number in four bytes.
async fn read_request(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::with_capacity(1024);
    loop {
        let from = request.len();
        if stream.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if request[0] == 0 {
            if request.len() >= 4 {
                request.truncate(4);
                return Ok(request);
            }
            continue;
        }
        if let Some(end) = request[from..].iter().position(|b| matches!(b, 0 | b'\n')) {
            request.truncate(from + end);
            return Ok(request);
        }
        if request.len() > REQUEST_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "request too long"));
        }
    }
}

/// The bytes of an answer, with their length before them.
async fn answer(request: &[u8], daemon: &dyn DaemonAdmin) -> Vec<u8> {
    let json = match request {
        // What clients before Ceph 0.30 sent, and Ceph still answers.
        [0, 0, 0, 0] => return reply::framed(b"2"),
        [0, 0, 0, 1] => r#"{"prefix":"perf dump"}"#,
        [0, 0, 0, 2] => r#"{"prefix":"perf schema"}"#,
        text => match std::str::from_utf8(text) {
            Ok(text) if is_object(text) => text,
            _ => {
                info!("admin socket: request is no JSON object");
                return AdminReply::refusal(errno::EINVAL, "invalid json").to_bytes();
            }
        },
    };
    debug!("admin socket: {json}");
    let reply = match timeout(COMMAND_TIME_MAX, daemon.command(json.to_owned())).await {
        Ok(reply) => reply,
        Err(_) => AdminReply::refusal(errno::ETIMEDOUT, "the daemon did not answer in time"),
    };
    reply.to_bytes()
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

#[cfg(test)]
mod tests;
