//! The admin socket: `ceph daemon mon.a COMMAND`.
//!
//! A client sends one JSON object ended by a zero byte and gets the output behind its length
//! (`u32`, big-endian). Whoever may open the socket file may do all.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tracing::debug;

use super::Shared;

/// Longest command.
const COMMAND_MAX: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn start(path: &Path, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    // A socket left by a former process cannot be bound over.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            tokio::spawn(async move {
                let served = tokio::time::timeout(TIMEOUT, serve(stream, shared)).await;
                debug!(?served, "admin socket");
            });
        }
    }))
}

async fn serve(mut stream: UnixStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut text = Vec::new();
    loop {
        match stream.read_u8().await? {
            0 => break,
            byte if text.len() < COMMAND_MAX => text.push(byte),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    // Old tools ask for the protocol's version by a bare number.
    let out = if text == "0" {
        b"2".to_vec()
    } else {
        let result = shared.with(|core, now| core.service.admin_command(now, &text));
        let mut out = result.out.to_vec();
        if result.code < 0 && out.is_empty() {
            out = format!("ERROR: {} {}\n", result.code, result.status).into_bytes();
        }
        out
    };
    stream.write_u32(out.len() as u32).await?;
    stream.write_all(&out).await
}
