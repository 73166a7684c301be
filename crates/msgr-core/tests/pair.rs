//! Both sides of the protocol against each other: all layouts, all ways to cut the byte stream.

#[path = "support/ends.rs"]
mod ends;

use std::time::Duration;

use bytes::BytesMut;
use ends::*;
use spirula_auth::{AcceptAuth, AcceptStep, ConMode};
use spirula_msgr_core::{
    AuthFailure, Banner, Connection, Now, PeerIncompatible, PeerMisbehaved, ProtocolError,
    Revision, Target, Timeout, Want,
};
use spirula_wire::Features;
use spirula_wire::types::{EntityAddr, EntityName, EntityType};

fn traffic() -> Vec<spirula_wire::RawMessage> {
    vec![
        message(1, 0, 0, &[]),
        message(2, 5, 0, &[]),
        message(3, 0, 7, &[]),
        message(4, 0, 0, &[9]),
        message(5, 100, 0, &[4096]),
        message(6, 17, 16, &[1, 5000, 0, 31]),
        message(7, 3000, 0, &[40_000, 30_000]),
        message(8, 1, 1, &[1]),
    ]
}

fn check(mode: ConMode, revision_1: bool, piece: usize, direct: bool) {
    let mut pair = Pair::of(mode, revision_1);
    pair.server.direct = direct;
    pair.client.direct = direct;
    let messages = traffic();
    // Half of them wait for the handshake.
    let (early, late) = messages.split_at(4);
    early.iter().for_each(|m| pair.client.conn.send(m.clone()));
    pair.run(piece).unwrap();
    late.iter().for_each(|m| pair.client.conn.send(m.clone()));
    messages.iter().for_each(|m| pair.server.conn.send(m.clone()));
    pair.client.conn.keepalive(NOW).unwrap();
    pair.run(piece).unwrap();
    for end in [&pair.client, &pair.server] {
        assert!(end.conn.is_open());
        assert_eq!(end.messages.len(), messages.len());
        for (seq, (got, sent)) in (1..).zip(end.messages.iter().zip(&messages)) {
            assert_same(got, sent, seq);
        }
    }
    assert_eq!((pair.client.keepalive_acks, pair.server.keepalive_acks), (1, 0));
    let revision = if revision_1 { Revision::R1 } else { Revision::R0 };
    let peer = pair.client.peer.take().unwrap();
    assert_eq!((peer.entity, peer.global_id), (EntityName::osd(3), 4123));
    assert_eq!((peer.mode, peer.revision, peer.lossy), (mode, revision, true));
    assert_eq!(peer.my_addr.to_string(), "v2:10.1.2.3:5555/0");
    let peer = pair.server.peer.take().unwrap();
    assert_eq!(peer.entity, EntityName::client(4123));
    assert_eq!(peer.addrs.to_string(), "v2:10.1.2.3:0/0");
    assert_eq!(peer.socket_addr.to_string(), "v2:10.1.2.3:5555/0");
    assert_eq!(peer.features, Features::PACIFIC);
    assert_eq!(peer.auth.unwrap().name.to_string(), "client.test");
    let direct_possible = direct && mode == ConMode::Crc && piece < 70_000;
    assert_eq!(pair.server.bodies, usize::from(direct_possible));
}

#[test]
fn every_layout_and_piece_size() {
    for mode in [ConMode::Crc, ConMode::Secure] {
        for revision_1 in [true, false] {
            for piece in [1, 13, 4096, usize::MAX] {
                for direct in [false, true] {
                    check(mode, revision_1, piece, direct);
                }
            }
        }
    }
}

#[test]
fn messages_of_one_turn_leave_in_few_pieces() {
    let mut pair = Pair::of(ConMode::Crc, true);
    pair.run(usize::MAX).unwrap();
    let big = message(9, 10, 0, &[100_000]);
    for _ in 0..16 {
        pair.server.conn.send(message(8, 150, 0, &[]));
    }
    pair.server.conn.send(big.clone());
    pair.server.conn.send(message(8, 150, 0, &[]));
    let mut out = Vec::new();
    pair.server.conn.poll_transmit(&mut out).unwrap();
    assert_eq!(out.len(), 3, "small, big data, small");
    // The payload itself is passed on, not copied.
    assert_eq!(out[1].as_ptr(), big.payload.data[0].as_ptr());
    assert!(!pair.server.conn.has_transmit());
}

#[test]
fn received_payload_is_a_slice_of_the_input() {
    let mut pair = Pair::of(ConMode::Crc, true);
    pair.run(usize::MAX).unwrap();
    pair.client.conn.send(message(9, 10, 0, &[8192]));
    let bytes = pair.client.transmit();
    pair.server.input = BytesMut::with_capacity(bytes.len());
    let range = pair.server.input.as_ptr() as usize..=pair.server.input.as_ptr() as usize + 9000;
    pair.server.receive(&bytes).unwrap();
    let data = &pair.server.messages[0].raw.payload.data[0];
    assert!(range.contains(&(data.as_ptr() as usize)));
}

#[test]
fn the_throttle_holds_and_lets_go() {
    let mut server = server_config();
    server.limits.dispatch_messages_max = 2;
    server.limits.dispatch_bytes_max = 1000;
    let mut pair = Pair::new(ConMode::Crc, client_config(), server);
    pair.run(usize::MAX).unwrap();
    for len in [400, 400, 400, 5000] {
        pair.client.conn.send(message(1, len, 0, &[]));
    }
    let mut input = BytesMut::from(&pair.client.transmit()[..]);
    let conn = &mut pair.server.conn;
    for expected in [vec![400, 400], vec![400], vec![5000]] {
        conn.handle_input(NOW, &mut input).unwrap();
        let costs: Vec<u64> = std::iter::from_fn(|| conn.poll_event())
            .map(|e| match e {
                spirula_msgr_core::Event::Message(m) => m.cost,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(costs, expected);
        if input.is_empty() {
            break;
        }
        assert_eq!(conn.wants(), Want::Throttled);
        // A silent peer that we do not listen to is not timed out.
        let later = Now { mono: NOW.mono + Duration::from_secs(10_000), ..NOW };
        conn.handle_timeout(later).unwrap();
        conn.release(costs.len() as u64, costs.iter().sum());
    }
    assert!(matches!(conn.wants(), Want::Bytes(_)));
}

#[test]
fn timeouts() {
    let mut pair = Pair::of(ConMode::Crc, true);
    let at = |secs| Now { mono: NOW.mono + Duration::from_secs(secs), ..NOW };
    assert_eq!(pair.server.conn.poll_timeout(), Some(at(10).mono));
    pair.server.conn.handle_timeout(at(9)).unwrap();
    let late = pair.server.conn.handle_timeout(at(10));
    assert_eq!(late, Err(ProtocolError::Timeout(Timeout::Handshake)));
    assert!(pair.server.conn.handle_input(NOW, &mut BytesMut::new()).is_err());
    let mut pair = Pair::of(ConMode::Crc, true);
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.server.conn.poll_timeout(), Some(at(900).mono));
    let late = pair.server.conn.handle_timeout(at(900));
    assert_eq!(late, Err(ProtocolError::Timeout(Timeout::Idle)));
}

#[test]
fn incompatible_peers_are_told_apart() {
    let fail = |bytes: &[u8]| {
        let mut pair = Pair::of(ConMode::Crc, true);
        pair.server.receive(bytes).unwrap_err()
    };
    assert_eq!(fail(b"ceph v027\0\0"), PeerIncompatible::LegacyMessenger.into());
    assert_eq!(fail(b"SSH-2.0"), PeerIncompatible::NotCeph.into());

    let mut server = server_config();
    server.required = Features(1 << 63);
    let mut pair = Pair::new(ConMode::Crc, client_config(), server);
    let missing = PeerIncompatible::RequiredFeatures(1 << 63);
    assert_eq!(pair.run(usize::MAX), Err(missing.into()));

    let mut client = client_config();
    client.banner = Banner { supported: 2, required: 2 };
    let mut pair = Pair::new(ConMode::Crc, client, server_config());
    assert_eq!(pair.run(usize::MAX), Err(PeerIncompatible::MessengerFeatures(2).into()));
}

#[test]
fn misdirected_connections_end() {
    let connect = |target| Connection::connect(client_config(), target, Box::new(TestConnect), NOW);
    let mut pair = Pair::of(ConMode::Secure, true);
    let addr = server_addr();
    pair.client = End::new(connect(Target { type_: EntityType::MON, addr }));
    let wrong = PeerMisbehaved::WrongType { got: 4, expected: 1 };
    assert_eq!(pair.run(usize::MAX), Err(wrong.into()));

    let mut pair = Pair::of(ConMode::Secure, true);
    let addr = EntityAddr { nonce: 8, ..server_addr() };
    pair.client = End::new(connect(Target { type_: EntityType::OSD, addr }));
    assert_eq!(pair.run(usize::MAX), Err(PeerMisbehaved::WrongTarget.into()));
}

/// An acceptor that refuses everybody, or cannot tell yet.
struct Refuse {
    not_yet: bool,
}

impl AcceptAuth for Refuse {
    fn request(&mut self, _: Duration, _: u32, _: &[u32], _: &[u8]) -> AcceptStep {
        match self.not_yet {
            true => AcceptStep::NotYet,
            false => {
                AcceptStep::Bad { result: -13, allowed_methods: vec![2], allowed_modes: vec![1] }
            }
        }
    }

    fn more(&mut self, now: Duration, _: &[u8]) -> AcceptStep {
        self.request(now, 0, &[], &[])
    }
}

#[test]
fn a_refused_client_reports_its_connectors_reason() {
    let from = "10.1.2.3:5555".parse().unwrap();
    for not_yet in [false, true] {
        let mut pair = Pair::of(ConMode::Crc, true);
        let auth = Box::new(Refuse { not_yet });
        pair.server = End::new(Connection::accept(server_config(), from, auth, NOW));
        let error = pair.run(usize::MAX).unwrap_err();
        // Who cannot be judged yet hears nothing.
        let server_gave_up = error == ProtocolError::Auth(AuthFailure::NotYet);
        let refused = matches!(error, ProtocolError::Auth(AuthFailure::Connector(_)));
        assert_eq!((server_gave_up, refused), (not_yet, !not_yet), "{error}");
    }
}

#[test]
fn messages_before_authentication_are_refused_at_the_preamble() {
    // A whole session's bytes without its handshake.
    let mut pair = Pair::of(ConMode::Crc, true);
    pair.run(usize::MAX).unwrap();
    pair.client.conn.send(message(1, 100_000, 0, &[]));
    let frame = pair.client.transmit();
    let mut fresh = Pair::of(ConMode::Crc, true);
    let banner = fresh.client.transmit();
    fresh.server.receive(&banner).unwrap();
    let early = fresh.server.receive(&frame[..32]);
    let refused = PeerMisbehaved::Unexpected(spirula_msgr_core::Tag::Message);
    assert_eq!(early, Err(refused.into()));
}
