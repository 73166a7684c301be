//! Sessions over real loopback TCP on tokio: both auth methods, both modes.

#[path = "support/keys.rs"]
mod keys;

use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use keys::*;
use spirula_auth::ConMode;
use spirula_msgr::on_tokio::{Event, Session, now, open, serve};
use spirula_msgr::{Accepted, CloseReason, Config, Limits, ProtocolError, Target};
use spirula_msgr_core::PeerIncompatible;
use spirula_wire::types::{EntityAddr, EntityName, EntityType};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A server that sends every message back; what it saw of endings goes to `ended`.
async fn echo_server(
    cephx: bool,
    limits: Limits,
    ended: std_mpsc::Sender<CloseReason>,
) -> EntityAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = EntityAddr::msgr2(listener.local_addr().unwrap(), 0);
    tokio::spawn(serve(listener, move |_| {
        let ended = ended.clone();
        let config = Config { limits, ..Config::new(EntityName::mon(0), addr.into()) };
        Some(Accepted {
            config,
            auth: acceptor(cephx, now().wall),
            dispatch: move |session: &Session, event: Event| match event {
                Event::Ready(peer) => assert_eq!(peer.entity, EntityName::client(4242)),
                Event::Message(message) => session.send(message.raw.clone()),
                Event::KeepaliveAck | Event::Session(_) => panic!("nothing was asked"),
                Event::Closed(reason) => drop(ended.send(reason)),
            },
        })
    }));
    addr
}

fn start_client(addr: EntityAddr, mode: ConMode) -> (Session, mpsc::UnboundedReceiver<Event>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let config = Config::new(EntityName::client(-1), Default::default());
    let target = Target { type_: EntityType::MON, addr };
    let session = open(config, target, client(mode, now().wall), move |_, event| {
        let _ = tx.send(event);
    });
    (session, rx)
}

async fn check(cephx: bool, mode: ConMode) {
    let (ended_tx, ended) = std_mpsc::channel();
    let addr = echo_server(cephx, Limits::default(), ended_tx).await;
    let (session, mut events) = start_client(addr, mode);
    let sizes = [(0, 0), (10, 0), (1, 1), (100, 4096), (7, 200_000), (70_000, 3), (5, 9_000_000)];
    let sent: Vec<_> = (1..).zip(sizes).map(|(tid, (f, d))| message(tid, f, d)).collect();
    sent.iter().for_each(|m| session.send(m.clone()));
    match events.recv().await {
        Some(Event::Ready(peer)) => {
            assert_eq!((peer.entity, peer.mode), (EntityName::mon(0), mode));
            assert_eq!(peer.grant.unwrap().tickets.is_empty(), !cephx);
        }
        other => panic!("{other:?}"),
    }
    for sent in &sent {
        let Some(Event::Message(got)) = events.recv().await else { panic!("no echo") };
        assert_eq!(got.raw.header.tid, sent.header.tid);
        assert_eq!(got.raw.payload.front, sent.payload.front);
        assert_eq!(got.raw.payload.data_bytes(), sent.payload.data_bytes());
    }
    session.keepalive();
    assert!(matches!(events.recv().await, Some(Event::KeepaliveAck)));
    session.close();
    assert!(matches!(events.recv().await, Some(Event::Closed(CloseReason::Local))));
    assert!(events.recv().await.is_none() && session.is_closed());
    let reason = tokio::task::spawn_blocking(move || ended.recv().unwrap()).await.unwrap();
    assert!(matches!(reason, CloseReason::Peer), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_with_none_in_crc_mode() {
    check(false, ConMode::Crc).await;
}

#[tokio::test]
async fn echo_with_cephx_in_crc_mode() {
    check(true, ConMode::Crc).await;
}

#[tokio::test]
async fn echo_with_cephx_in_secure_mode() {
    check(true, ConMode::Secure).await;
}

#[tokio::test]
async fn a_small_throttle_only_slows_down() {
    let (ended, _keep) = std_mpsc::channel();
    let limits = Limits { dispatch_messages_max: 1, dispatch_bytes_max: 1000, ..Limits::default() };
    let addr = echo_server(true, limits, ended).await;
    let (session, mut events) = start_client(addr, ConMode::Crc);
    for tid in 1..=300 {
        session.send(message(tid, 10, 3000));
    }
    assert!(matches!(events.recv().await, Some(Event::Ready(_))));
    for tid in 1..=300 {
        let Some(Event::Message(got)) = events.recv().await else { panic!("no echo") };
        assert_eq!(got.raw.header.tid, tid);
    }
}

#[tokio::test]
async fn a_held_message_holds_the_peer_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = EntityAddr::msgr2(listener.local_addr().unwrap(), 0);
    let (tx, mut received) = mpsc::unbounded_channel();
    tokio::spawn(serve(listener, move |_| {
        let tx = tx.clone();
        let mut config = Config::new(EntityName::mon(0), addr.into());
        config.limits.dispatch_messages_max = 2;
        Some(Accepted {
            config,
            auth: acceptor(false, now().wall),
            dispatch: move |_: &Session, event: Event| {
                if let Event::Message(message) = event {
                    let _ = tx.send(message);
                }
            },
        })
    }));
    let (session, _events) = start_client(addr, ConMode::Crc);
    (1..=3).for_each(|tid| session.send(message(tid, 1, 0)));
    let first = received.recv().await.unwrap();
    let _second = received.recv().await.unwrap();
    let third = tokio::time::timeout(Duration::from_millis(100), received.recv()).await;
    assert!(third.is_err(), "two messages are held");
    drop(first);
    assert_eq!(received.recv().await.unwrap().raw.header.tid, 3);
}

#[tokio::test]
async fn a_session_that_does_not_open_ends_all_the_same() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = EntityAddr::msgr2(listener.local_addr().unwrap(), 0);
    drop(listener);
    let (session, mut events) = start_client(addr, ConMode::Crc);
    assert!(matches!(events.recv().await, Some(Event::Closed(CloseReason::Io(_)))));
    assert!(events.recv().await.is_none() && session.is_closed());
}

#[tokio::test]
async fn a_legacy_client_is_refused_with_a_reason() {
    let (ended_tx, ended) = std_mpsc::channel();
    let addr = echo_server(true, Limits::default(), ended_tx).await;
    let mut stream = TcpStream::connect(addr.addr.unwrap()).await.unwrap();
    stream.write_all(b"ceph v027").await.unwrap();
    let reason = tokio::task::spawn_blocking(move || ended.recv().unwrap()).await.unwrap();
    let expected = ProtocolError::Incompatible(PeerIncompatible::LegacyMessenger);
    assert!(matches!(reason, CloseReason::Protocol(e) if e == expected));
}
