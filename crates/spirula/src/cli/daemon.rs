//! `spirula ceph daemon`: commands to a daemon of this host through its admin socket.
//!
//! The protocol: one JSON object and a NUL byte go in; a big-endian length and so many bytes come
//! out.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};
use spirula_client::argparse::Descriptions;
use spirula_client::{EntityNameStr, Overrides};

use crate::print::{self, complain};

/// Longest answer that is taken.
const ANSWER_BYTES_MAX: u32 = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);
const SOCKET: &str = "/var/run/ceph/$cluster-$name.asok";

/// Sends a command and prints the answer.
pub(super) fn run(socket: &Path, words: &[String], format: Option<&str>) -> Result<ExitCode> {
    match ask(socket, words, format) {
        Ok(answer) => {
            print::bytes(&answer)?;
            if answer.last() != Some(&b'\n') {
                print::bytes(b"\n")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            complain!("admin_socket: {error:#}");
            Ok(ExitCode::from(22))
        }
    }
}

/// Where a daemon's socket is; a path is taken as it is.
pub(super) fn socket_of(who: &str, overrides: &Overrides) -> Result<PathBuf> {
    if who.contains('/') {
        return Ok(who.into());
    }
    let name: EntityNameStr = who.parse().map_err(|e| anyhow!("{e}"))?;
    let (conf, _, cluster) = overrides.load()?;
    let options = conf.of(&name, &cluster);
    let path = options.get("admin_socket");
    Ok(path.unwrap_or_else(|| options.expand(SOCKET)).into())
}

fn ask(socket: &Path, words: &[String], format: Option<&str>) -> Result<Vec<u8>> {
    let mut plain = Map::new();
    plain.insert("prefix".to_owned(), "get_command_descriptions".into());
    let table = exchange(socket, plain)?;
    let matched = Descriptions::parse(&table)?.resolve(words).map_err(|e| anyhow!("{e}"))?;
    let mut args = matched.args;
    args.insert("format".to_owned(), format.unwrap_or("json-pretty").into());
    exchange(socket, args)
}

fn exchange(path: &Path, args: Map<String, Value>) -> Result<Vec<u8>> {
    let at = || path.display().to_string();
    let mut socket = UnixStream::connect(path).with_context(at)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    let mut request = Value::Object(args).to_string().into_bytes();
    request.push(0);
    socket.write_all(&request).with_context(at)?;
    let mut len = [0; 4];
    socket.read_exact(&mut len).with_context(at)?;
    let len = u32::from_be_bytes(len);
    if len > ANSWER_BYTES_MAX {
        bail!("an answer of {len} bytes is too long");
    }
    let mut answer = Vec::new();
    socket.take(len.into()).read_to_end(&mut answer).with_context(at)?;
    if answer.len() != len as usize {
        bail!("the answer ends early");
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_command_and_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.asok");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let table =
                r#"{"c":{"sig":["config","get",{"name":"key","type":"CephString"}],"help":""}}"#;
            let mut asked = Vec::new();
            for answer in [table, "{}"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && byte != [0] {
                    request.push(byte[0]);
                }
                asked.push(String::from_utf8(request).unwrap());
                let len = (answer.len() as u32).to_be_bytes();
                stream.write_all(&[&len[..], answer.as_bytes()].concat()).unwrap();
            }
            asked
        });
        let words = ["config", "get", "fsid"].map(str::to_owned);
        assert_eq!(ask(&path, &words, None).unwrap(), b"{}");
        let asked = server.join().unwrap();
        assert_eq!(asked[1], r#"{"prefix":"config get","key":"fsid","format":"json-pretty"}"#);
    }
}
