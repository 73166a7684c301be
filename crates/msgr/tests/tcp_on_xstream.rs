//! Sessions on xstreams: over real loopback TCP, and between simulated hosts.

#[path = "support/keys.rs"]
mod keys;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use keys::*;
use spirula_auth::ConMode;
use spirula_msgr::on_xstream::{Event, Session, now, open, serve};
use spirula_msgr::{Accepted, CloseReason, Config, Target};
use spirula_wire::types::{EntityAddr, EntityName, EntityType};
use spirula_xstream::sim::{NetConfig, SimWorld};
use spirula_xstream::{Class, TcpListener, is_aligned, run, sleep, spawn};

/// Binds and serves: replies to each message with the length of its data, from a task of its own.
fn start_server(addr: SocketAddr) -> EntityAddr {
    let listener = TcpListener::bind(addr).unwrap();
    let addr = EntityAddr::msgr2(listener.local_addr().unwrap(), 0);
    drop(spawn(
        Class::Client,
        serve(Class::Client, listener, move |_| {
            let mut in_place = false;
            Some(Accepted {
                config: Config::new(EntityName::mon(0), addr.into()),
                auth: acceptor(true, now().wall),
                dispatch: move |session: &Session, event: Event| {
                    let incoming = match event {
                        Event::Ready(peer) => return in_place = peer.mode == ConMode::Crc,
                        Event::Message(incoming) => incoming,
                        Event::KeepaliveAck | Event::Session(_) | Event::Closed(_) => return,
                    };
                    let session = session.clone();
                    drop(spawn(Class::Client, async move {
                        let data = incoming.raw.payload.data_bytes();
                        assert_eq!(incoming.data_crcs.len(), data.len().div_ceil(4096));
                        if data.len() >= 1 << 20 && in_place {
                            assert!(is_aligned(&data), "received into place");
                        }
                        sleep(Duration::from_micros(10)).await;
                        session.send(message(incoming.raw.header.tid, data.len() % 1000, 0));
                    }));
                },
            })
        }),
    ));
    addr
}

/// Sends messages of all sizes and checks the replies.
async fn client_work(addr: EntityAddr, mode: ConMode) -> Option<CloseReason> {
    let events: Rc<RefCell<Vec<Event>>> = Rc::default();
    let sink = events.clone();
    let config = Config::new(EntityName::client(-1), Default::default());
    let target = Target { type_: EntityType::MON, addr };
    let auth = client(mode, now().wall);
    let session = open(Class::Client, config, target, auth, move |_, event| {
        sink.borrow_mut().push(event);
    });
    let sizes = [0, 1, 4096, 70_000, 1 << 20, 5 << 20, 3, 9];
    for (tid, size) in (1..).zip(sizes) {
        session.send(message(tid, 10, size));
    }
    loop {
        sleep(Duration::from_millis(1)).await;
        let mut events = events.borrow_mut();
        if let Some(Event::Closed(_)) = events.last() {
            let Some(Event::Closed(reason)) = events.pop() else {
                return None;
            };
            return Some(reason);
        }
        if events.len() == sizes.len() + 1 {
            session.keepalive();
        }
        if let Some(Event::KeepaliveAck) = events.last() {
            break;
        }
    }
    let events = events.take();
    assert!(matches!(&events[0], Event::Ready(peer) if peer.mode == mode));
    let mut tids: Vec<u64> = events[1..=sizes.len()]
        .iter()
        .map(|event| {
            let Event::Message(reply) = event else { panic!("{event:?}") };
            let tid = reply.raw.header.tid;
            assert_eq!(reply.raw.payload.front.len(), sizes[tid as usize - 1] % 1000);
            tid
        })
        .collect();
    tids.sort_unstable();
    assert_eq!(tids, (1..=sizes.len() as u64).collect::<Vec<_>>());
    drop(events);
    session.close();
    while !session.is_closed() {
        sleep(Duration::from_millis(1)).await;
    }
    None
}

#[test]
fn over_loopback() {
    let ended = run(spirula_xstream::Config::new("test"), async {
        let addr = start_server("127.0.0.1:0".parse().unwrap());
        for mode in [ConMode::Crc, ConMode::Secure] {
            let failed = client_work(addr, mode).await;
            assert!(failed.is_none(), "{failed:?}");
        }
    });
    ended.unwrap();
}

#[test]
fn between_simulated_hosts() {
    for seed in 1..=20 {
        let world = SimWorld::new(seed);
        let (server, client) = (world.host("server"), world.host("client"));
        let listen = SocketAddr::new(server.ip(), 3300);
        let addr = server.block_on(async move { start_server(listen) }).unwrap();
        for mode in [ConMode::Crc, ConMode::Secure] {
            let failed = client.block_on(client_work(addr, mode)).unwrap();
            assert!(failed.is_none(), "seed {seed}: {failed:?}");
        }
    }
}

#[test]
fn a_network_that_resets_ends_sessions_cleanly() {
    let mut lost = 0;
    for seed in 1..=40 {
        let world = SimWorld::new(seed);
        let (server, client) = (world.host("server"), world.host("client"));
        let listen = SocketAddr::new(server.ip(), 3300);
        let addr = server.block_on(async move { start_server(listen) }).unwrap();
        world.set_net(NetConfig { reset_per_million: 5_000, ..NetConfig::default() });
        let failed = client.block_on(client_work(addr, ConMode::Crc)).unwrap();
        lost += usize::from(failed.is_some());
        assert!(!matches!(failed, Some(CloseReason::Protocol(_))), "seed {seed}: {failed:?}");
    }
    assert!(lost > 0, "no reset happened");
}

#[test]
fn a_silent_peer_is_given_up() {
    let world = SimWorld::new(1);
    let (server, client) = (world.host("server"), world.host("client"));
    let listen = SocketAddr::new(server.ip(), 3300);
    server.spawn(Class::Client, async move {
        let listener = TcpListener::bind(listen).unwrap();
        let _held = listener.accept().await;
        sleep(Duration::from_secs(1000)).await;
    });
    let failed = client.block_on(client_work(EntityAddr::msgr2(listen, 0), ConMode::Crc)).unwrap();
    assert!(matches!(failed, Some(CloseReason::Protocol(_))), "{failed:?}");
    assert!(world.now() < Duration::from_secs(11));
}
