//! The protocol over a real socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;

use super::*;

fn echo() -> Arc<dyn DaemonAdmin> {
    Arc::new(FnAdmin(|json: &str| match json {
        r#"{"prefix":"bad"}"# => {
            AdminReply { out: b"more".to_vec(), ..AdminReply::refusal(2, "not here") }
        }
        r#"{"prefix":"big"}"# => AdminReply::ok(vec![b'x'; 3 << 20]),
        json => AdminReply::ok(json),
    }))
}

/// Sends bytes and takes all that comes back, on a thread that may block.
async fn ask(path: &Path, request: &[u8]) -> Vec<u8> {
    let (path, request) = (path.to_owned(), request.to_owned());
    let talk = move || {
        let mut stream = StdStream::connect(path).unwrap();
        stream.write_all(&request).unwrap();
        let mut out = Vec::new();
        // What was not read of a request may end in a reset, after the answer.
        let _ = stream.read_to_end(&mut out);
        out
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

async fn check(path: &Path, request: &[u8], want: &str) {
    let got = ask(path, request).await;
    let text = String::from_utf8_lossy(&got[4.min(got.len())..]).into_owned();
    assert_eq!(text, want, "{:?}", String::from_utf8_lossy(request));
    assert_eq!(got[..4], (want.len() as u32).to_be_bytes());
}

#[tokio::test]
async fn requests_are_answered_as_ceph_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.asok");
    let _socket = AdminSocket::bind(&path, "osd.0", echo()).unwrap();
    let version = br#"{"prefix":"version"}"#;
    let echoed = std::str::from_utf8(version).unwrap();
    check(&path, &[version, &b"\0"[..]].concat(), echoed).await;
    check(&path, &[version, &b"\n"[..]].concat(), echoed).await;
    check(&path, &[version, &b"\0rest is not read\0"[..]].concat(), echoed).await;
    check(&path, b"\0\0\0\0", "2").await;
    check(&path, b"\0\0\0\x01", r#"{"prefix":"perf dump"}"#).await;
    check(&path, b"\0\0\0\x02", r#"{"prefix":"perf schema"}"#).await;
    let bad = "ERROR: (2) No such file or directory\nnot here\nmore";
    check(&path, b"{\"prefix\":\"bad\"}\0", bad).await;
    let big = ask(&path, b"{\"prefix\":\"big\"}\0").await;
    assert_eq!(big.len(), 4 + (3 << 20));
}

#[tokio::test]
async fn garbage_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.asok");
    let _socket = AdminSocket::bind(&path, "osd.0", echo()).unwrap();
    let invalid = "ERROR: (22) Invalid argument\ninvalid json\n";
    for garbage in
        [&b"0\0"[..], b"help\0", b"{\0", b"[]\0", b"\"\"\0", b"\xff\xfe\0", b"\n", b"\0\0\0\x07"]
    {
        check(&path, garbage, invalid).await;
    }
    let deep = [vec![b'['; 20_000], vec![0]].concat();
    check(&path, &deep, invalid).await;
    // Too long: closed without an answer.
    assert_eq!(ask(&path, &vec![b'a'; REQUEST_BYTES_MAX * 2]).await, b"");
    // Clients that leave early.
    drop(StdStream::connect(&path).unwrap());
    StdStream::connect(&path).unwrap().write_all(b"{\"pre").unwrap();
    check(&path, b"{}\0", "{}").await;
}

#[tokio::test]
async fn waiting_clients_do_not_keep_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.asok");
    let _socket = AdminSocket::bind(&path, "osd.0", echo()).unwrap();
    let _silent: Vec<_> =
        (1..CONNECTIONS_MAX).map(|_| StdStream::connect(&path).unwrap()).collect();
    check(&path, b"{}\0", "{}").await;
}

#[tokio::test]
async fn the_socket_s_file_follows_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.asok");
    let socket = AdminSocket::bind(&path, "osd.0", echo()).unwrap();
    let again = AdminSocket::bind(&path, "osd.0", echo()).unwrap_err();
    assert!(matches!(again, AdminSocketError::InUse(_)), "{again}");
    drop(socket);
    assert!(!path.exists());
    // A dead daemon's socket is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = AdminSocket::bind(&path, "osd.0", echo()).unwrap();
    check(&path, b"{}\0", "{}").await;
    // Another's file of the same name is left alone.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    drop(socket);
    let refused = AdminSocket::bind(&path, "osd.0", echo()).unwrap_err();
    assert!(matches!(refused, AdminSocketError::NoSocket(_)), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let long = dir.path().join("x".repeat(120));
    let refused = AdminSocket::bind(&long, "osd.0", echo()).unwrap_err();
    assert!(matches!(refused, AdminSocketError::TooLong(_)), "{refused}");
    let nowhere = AdminSocket::bind(&dir.path().join("no/x.asok"), "osd.0", echo()).unwrap_err();
    assert!(matches!(nowhere, AdminSocketError::Io { .. }), "{nowhere}");
}
