//! Entry points for the fuzzer; each must return for any input.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_auth::{
    AcceptAuth, AcceptDone, AcceptStep, AuthError, AuthRequest, AuthenticatedPeer, ConMode,
    ConnectAuth, ConnectDone, CryptoKey, WallTime,
};
use spirula_wire::types::{EntityAddr, EntityName, EntityNameStr, EntityType};
use spirula_wire::{Features, Header, Payload, RawMessage};

use crate::banner::{Banner, Revision};
use crate::config::{Config, Limits, Now, Target};
use crate::connection::{Connection, Event, Want};
use crate::control::{Control, Ident, Reconnect, SIGNATURE_LEN};
use crate::crypto::{Side, secure_pair};
use crate::frame::Tag;
use crate::lossless::{Action, ConnId, Lossless, Options};
use crate::rx::{FrameReader, Step};
use crate::session::{SessionEvent, SessionPeer};
use crate::tx::FrameWriter;

/// Frames in the layout that the first byte chooses, in pieces of the size that the second chooses,
/// and the control frames in them.
pub fn frames(data: &[u8]) {
    let [layout, piece, rest @ ..] = data else {
        return;
    };
    let mut reader = FrameReader::new(Limits::default(), layout & 8 == 0);
    reader.messages = layout & 4 == 0;
    reader.transcript = None;
    reader.revision = if layout & 1 == 0 { Revision::R1 } else { Revision::R0 };
    if layout & 2 != 0 {
        reader.opener = secure_pair(&[1; 64], reader.revision, Side::Accept).ok().map(|p| p.1);
    }
    let mut input = BytesMut::new();
    for part in rest.chunks(usize::from(*piece).max(1)) {
        input.extend_from_slice(part);
        loop {
            match reader.poll(&mut input, |_| true) {
                Ok(Step::Frame(frame)) => {
                    let _ = Control::decode(frame.tag, &frame.segments[0]);
                }
                Ok(Step::Body(len)) if layout & 16 != 0 && len <= 1 << 20 => {
                    let _ = reader.body(Bytes::from(vec![0; len]));
                }
                Ok(Step::Aborted(_)) => {}
                Ok(Step::Need(_) | Step::Body(_) | Step::Throttled) => break,
                Err(_) => return,
            }
        }
    }
}

/// The accepting side's handshake; a valid banner comes first if the first byte is even.
pub fn accept(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let config = Config::new(EntityName::osd(0), Default::default());
    let from = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let now = Now::default();
    let mut connection = Connection::accept(config, from, Box::new(Echo), now);
    let mut bytes = Vec::new();
    if first % 2 == 0 {
        Banner::default().encode(&mut bytes);
    }
    bytes.extend_from_slice(rest);
    let mut input = BytesMut::from(&bytes[..]);
    let _ = connection.handle_input(now, &mut input);
    while connection.poll_event().is_some() {}
    let _ = connection.poll_transmit(&mut Vec::new());
    if let Want::Bytes(n) = connection.wants() {
        assert!(n <= 1 << 20, "waits for {n} bytes before authentication");
    }
    let _ = connection.handle_timeout(Now { mono: Duration::from_secs(1000), ..now });
}

/// Well-formed frames, so that no checksum hides what is in them: the first byte chooses the side
/// and the layout and whether sessions are lossless, then come units of a tag, a length and that many
/// bytes.
pub fn session(data: &[u8]) {
    let Some((first, units)) = data.split_first() else {
        return;
    };
    let now = Now::default();
    let lossless = (first & 4 != 0).then_some(EntityType::OSD);
    let config = |name| Config { lossless, ..Config::new(name, Default::default()) };
    let mut connection = if first & 1 == 0 {
        let from = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        Connection::accept(config(EntityName::osd(0)), from, Box::new(Echo), now)
    } else {
        Connection::connect(config(EntityName::client(-1)), server(), Box::new(Echo), now)
    };
    let mut sessions = Sessions::new(first & 1 != 0);
    let mut input = BytesMut::from(&frames_of(units, first & 2 != 0)[..]);
    // A message may be throttled until those before it are released.
    for _ in 0..4 {
        if connection.handle_input(now, &mut input).is_err() {
            return;
        }
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Ready(_) => connection.send(RawMessage::default()),
                Event::Message(message) => {
                    sessions.0.received(CONN, &message.raw.header);
                    connection.release(1, message.cost);
                }
                Event::KeepaliveAck => {}
                Event::Session(asked) => {
                    if !sessions.answer(&mut connection, now, asked) {
                        return;
                    }
                }
            }
        }
        let _ = connection.keepalive(now);
        let _ = connection.poll_transmit(&mut Vec::new());
    }
}

/// The number of the only connection.
const CONN: ConnId = 1;

/// The owner of lossless sessions.
struct Sessions(Lossless);

impl Sessions {
    /// With a session that the connection is for, if it `connects`.
    fn new(connects: bool) -> Self {
        let mut all = Lossless::new(Options::new(server().addr.into(), 1));
        let addrs = server().addr.into();
        let peer = SessionPeer { entity: EntityName::osd(3), addrs, features: Features::PACIFIC };
        if let Some(id) = all.session(peer).filter(|_| connects) {
            let _ = all.send(id, RawMessage::default());
            all.dialed(id, CONN);
        }
        Self(all)
    }

    /// Whether the connection lives on.
    fn answer(&mut self, connection: &mut Connection, now: Now, asked: SessionEvent) -> bool {
        self.0.asked(now.mono, CONN, asked);
        while let Some(action) = self.0.poll_action() {
            let lives = match action {
                Action::Answer(_, answer) => connection.answer(now, answer).is_ok(),
                Action::Close(_) => false,
                Action::Transmit(_, message) => {
                    connection.send(message);
                    true
                }
                Action::Dial { .. } | Action::Opened(_) | Action::Reset(_) => true,
            };
            if !lives {
                self.0.closed(now.mono, CONN);
                return false;
            }
        }
        true
    }
}

/// Inputs of [`session`] that pass the whole handshake, two for each side.
pub fn session_seeds() -> [Vec<u8>; 4] {
    let ident = || Ident {
        addrs: spirula_wire::types::EntityAddrVec::one(server().addr),
        gid: 1,
        global_seq: 1,
        supported: u64::MAX,
        required: 0,
        flags: Ident::LOSSY,
        cookie: 0,
    };
    let hello = |type_| Control::Hello { type_, addr: server().addr };
    let signature = || Control::AuthSignature([0; SIGNATURE_LEN]);
    let request = |method| Control::AuthRequest { method, modes: vec![1], payload: Bytes::new() };
    let bad = Control::AuthBadMethod {
        method: 1,
        result: -1,
        allowed_methods: vec![1],
        allowed_modes: vec![1],
    };
    let client = Control::ClientIdent { ident: ident(), target: server().addr };
    let server_ident = || Control::ServerIdent(ident());
    let lossless = Ident { flags: 0, cookie: 5, gid: 3, ..ident() };
    let osd = Control::ClientIdent { ident: lossless.clone(), target: server().addr };
    let again = Control::SessionReconnect(Reconnect {
        addrs: server().addr.into(),
        client_cookie: 1,
        server_cookie: 2,
        global_seq: 3,
        connect_seq: 4,
        msg_seq: 5,
    });
    let served = Control::ServerIdent(lossless);
    let done = || Control::AuthDone { global_id: 7, mode: 1, payload: Bytes::new() };
    [
        seed(0, &[hello(EntityType::CLIENT), request(3), request(1), signature(), client]),
        seed(1, &[hello(EntityType::OSD), bad, done(), signature(), server_ident()]),
        seed(4, &[hello(EntityType::OSD), request(1), signature(), again, osd]),
        seed(5, &[hello(EntityType::OSD), done(), signature(), served]),
    ]
}

fn seed(first: u8, handshake: &[Control]) -> Vec<u8> {
    let mut out = vec![first];
    let mut unit = |tag: Tag, payload: &[u8]| {
        out.extend_from_slice(&[tag as u8, payload.len() as u8]);
        out.extend_from_slice(payload);
    };
    for control in handshake {
        unit(control.tag(), &control.encode());
    }
    let later = Control::Keepalive2(Duration::from_secs(1).into());
    unit(later.tag(), &later.encode());
    unit(Tag::Message, &[1, 2, 3]);
    out
}

fn frames_of(mut units: &[u8], old: bool) -> Vec<u8> {
    let mut writer = FrameWriter::new(true);
    let mut bytes = Vec::new();
    let banner = Banner {
        supported: if old { 0 } else { Banner::default().supported },
        ..Banner::default()
    };
    banner.encode(&mut bytes);
    writer.revision = if old { Revision::R0 } else { Revision::R1 };
    let mut seq = 0;
    while let Some(([tag, len], tail)) = units.split_first_chunk() {
        let (payload, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        units = tail;
        let Ok(tag) = Tag::from_wire(*tag) else {
            break;
        };
        let written = if tag == Tag::Message {
            seq += u64::from(payload.first() != Some(&0));
            writer.message(&message(seq, payload))
        } else {
            writer.control(tag, payload)
        };
        if written.is_err() {
            break;
        }
    }
    let mut out = Vec::new();
    writer.gather.drain_into(&mut out);
    bytes.extend(out.iter().flatten());
    bytes
}

/// The bytes in three equal parts as front, middle and data.
fn message(seq: u64, payload: &[u8]) -> RawMessage {
    let header = Header { seq, ..Header::default() };
    let third = payload.len() / 3;
    let (front, rest) = payload.split_at(third);
    let (middle, data) = rest.split_at(third);
    let payload = Payload {
        front: Bytes::copy_from_slice(front),
        middle: Bytes::copy_from_slice(middle),
        data: vec![Bytes::copy_from_slice(data)],
        data_crc: None,
    };
    RawMessage { header, payload }
}

fn server() -> Target {
    Target { type_: EntityType::OSD, addr: EntityAddr::msgr2(([127, 0, 0, 1], 1).into(), 0) }
}

/// Content with method 1, asks for more with even methods, refuses the others.
struct Echo;

impl AcceptAuth for Echo {
    fn request(&mut self, _: WallTime, method: u32, modes: &[u32], payload: &[u8]) -> AcceptStep {
        if method.is_multiple_of(2) {
            return AcceptStep::More(payload.to_vec());
        }
        if method == 1 {
            return AcceptStep::Done(nobody());
        }
        AcceptStep::Bad { result: -13, allowed_methods: vec![2], allowed_modes: modes.to_vec() }
    }

    fn more(&mut self, _: WallTime, payload: &[u8]) -> AcceptStep {
        AcceptStep::More(payload.to_vec())
    }
}

impl ConnectAuth for Echo {
    fn request(&mut self) -> AuthRequest {
        AuthRequest { method: 1, modes: vec![1], payload: Vec::new() }
    }

    fn bad_method(
        &mut self,
        _: u32,
        _: i32,
        _: &[u32],
        _: &[u32],
    ) -> Result<AuthRequest, AuthError> {
        Ok(ConnectAuth::request(self))
    }

    fn more(&mut self, payload: &[u8]) -> Result<Vec<u8>, AuthError> {
        Ok(payload.to_vec())
    }

    fn done(
        &mut self,
        _: WallTime,
        _: u64,
        _: ConMode,
        _: &[u8],
    ) -> Result<ConnectDone, AuthError> {
        Ok(ConnectDone::default())
    }
}

/// No key and no secret, as with auth `none`: signatures are zero.
fn nobody() -> AcceptDone {
    AcceptDone {
        global_id: 7,
        mode: ConMode::Crc,
        payload: Vec::new(),
        session_key: CryptoKey::default(),
        connection_secret: Vec::new(),
        peer: AuthenticatedPeer {
            name: EntityNameStr::new(EntityType::OSD, "3"),
            global_id: 7,
            caps: String::new(),
            allow_all: false,
            expires: Duration::MAX,
            server_challenge: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_pass_the_handshake() {
        let from = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let now = Now::default();
        for seed in session_seeds() {
            let lossless = (seed[0] & 4 != 0).then_some(EntityType::OSD);
            let config = |name| Config { lossless, ..Config::new(name, Default::default()) };
            let mut connection = if seed[0] & 1 == 0 {
                Connection::accept(config(EntityName::osd(0)), from, Box::new(Echo), now)
            } else {
                Connection::connect(config(EntityName::client(-1)), server(), Box::new(Echo), now)
            };
            let mut sessions = Sessions::new(seed[0] & 1 != 0);
            let mut input = BytesMut::from(&frames_of(&seed[1..], false)[..]);
            let (mut ready, mut messages) = (0, 0);
            for _ in 0..5 {
                connection.handle_input(now, &mut input).unwrap();
                while let Some(event) = connection.poll_event() {
                    match event {
                        Event::Ready(_) => ready += 1,
                        Event::Message(_) => messages += 1,
                        Event::KeepaliveAck => {}
                        Event::Session(asked) => {
                            assert!(sessions.answer(&mut connection, now, asked));
                        }
                    }
                }
            }
            assert_eq!((ready, messages), (1, 1), "{:?}", seed[0]);
            session(&seed);
        }
    }
}
