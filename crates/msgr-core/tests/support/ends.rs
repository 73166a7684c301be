//! Two connections joined in memory, and authentication that is simple but keyed.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_auth::{
    AcceptAuth, AcceptDone, AcceptStep, AuthError, AuthRequest, AuthenticatedPeer, ConMode,
    ConnectAuth, ConnectDone, CryptoKey, WallTime,
};
use spirula_msgr_core::{
    Banner, Config, Connection, Event, InMessage, Now, Peer, ProtocolError, Target, Want,
};
use spirula_wire::types::{EntityAddr, EntityName, EntityNameStr, EntityType};
use spirula_wire::{Header, Payload, RawMessage};

pub const METHOD: u32 = 77;
const SECRET: [u8; 64] = [0x5a; 64];

fn key() -> CryptoKey {
    CryptoKey::from_secret(Duration::ZERO, [7; 16])
}

/// Refuses any method but [`METHOD`], asks once for more, then accepts `"please"`.
pub struct TestAccept(pub ConMode);

impl AcceptAuth for TestAccept {
    fn request(&mut self, _: WallTime, method: u32, _: &[u32], _: &[u8]) -> AcceptStep {
        if method == METHOD {
            return AcceptStep::More(b"magic word?".to_vec());
        }
        AcceptStep::Bad { result: -95, allowed_methods: vec![METHOD], allowed_modes: vec![1, 2] }
    }

    fn more(&mut self, _: WallTime, payload: &[u8]) -> AcceptStep {
        if payload != b"please" {
            return AcceptStep::Bad { result: -13, allowed_methods: vec![], allowed_modes: vec![] };
        }
        AcceptStep::Done(AcceptDone {
            global_id: 4123,
            mode: self.0,
            payload: b"welcome".to_vec(),
            session_key: key(),
            connection_secret: SECRET.to_vec(),
            peer: AuthenticatedPeer {
                name: EntityNameStr::new(EntityType::CLIENT, "test"),
                global_id: 4123,
                caps: String::new(),
                allow_all: true,
                expires: Duration::MAX,
                server_challenge: 0,
            },
        })
    }
}

/// Tries method 1 first.
pub struct TestConnect;

fn request(method: u32) -> AuthRequest {
    AuthRequest { method, modes: vec![1, 2], payload: Vec::new() }
}

impl ConnectAuth for TestConnect {
    fn request(&mut self) -> AuthRequest {
        request(1)
    }

    fn bad_method(
        &mut self,
        method: u32,
        result: i32,
        allowed: &[u32],
        _: &[u32],
    ) -> Result<AuthRequest, AuthError> {
        match allowed {
            [METHOD] => Ok(request(METHOD)),
            _ => Err(AuthError::Refused { method, result, allowed: allowed.to_vec() }),
        }
    }

    fn more(&mut self, _: &[u8]) -> Result<Vec<u8>, AuthError> {
        Ok(b"please".to_vec())
    }

    fn done(
        &mut self,
        _: WallTime,
        _: u64,
        _: ConMode,
        _: &[u8],
    ) -> Result<ConnectDone, AuthError> {
        let connection_secret = SECRET.to_vec();
        Ok(ConnectDone { session_key: key(), connection_secret, grant: None })
    }
}

pub const NOW: Now = Now { mono: Duration::from_secs(5), wall: Duration::from_secs(1_700_000_000) };

pub fn server_addr() -> EntityAddr {
    "v2:127.0.0.1:3300/9".parse().unwrap()
}

pub fn server_config() -> Config {
    Config::new(EntityName::osd(3), server_addr().into())
}

pub fn client_config() -> Config {
    Config::new(EntityName::client(-1), Default::default())
}

/// One end with what it has received and not consumed.
pub struct End {
    pub conn: Connection,
    pub input: BytesMut,
    pub peer: Option<Box<Peer>>,
    pub messages: Vec<InMessage>,
    pub keepalive_acks: usize,
    /// Everything this end sent.
    pub sent: Vec<u8>,
    /// Whether bodies go through `handle_body`.
    pub direct: bool,
    pub bodies: usize,
    /// Bytes of the body being received into place, and its length.
    body: Option<(Vec<u8>, usize)>,
}

impl End {
    pub fn new(conn: Connection) -> Self {
        let (input, messages, sent) = (BytesMut::new(), Vec::new(), Vec::new());
        Self {
            conn,
            input,
            peer: None,
            messages,
            keepalive_acks: 0,
            sent,
            direct: false,
            bodies: 0,
            body: None,
        }
    }

    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        loop {
            if let Some((body, len)) = &mut self.body {
                let n = bytes.len().min(*len - body.len());
                body.extend_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                if body.len() < *len {
                    return Ok(());
                }
                let body = Bytes::from(std::mem::take(body));
                self.body = None;
                self.bodies += 1;
                self.conn.handle_body(NOW, body)?;
            }
            self.input.extend_from_slice(bytes);
            bytes = &[];
            self.conn.handle_input(NOW, &mut self.input)?;
            while let Some(event) = self.conn.poll_event() {
                match event {
                    Event::Ready(peer) => self.peer = Some(peer),
                    Event::Message(message) => {
                        self.conn.release(1, message.cost);
                        self.messages.push(message);
                    }
                    Event::KeepaliveAck => self.keepalive_acks += 1,
                    Event::Session(asked) => panic!("{asked:?}"),
                }
            }
            match self.conn.wants() {
                Want::Throttled => {}
                Want::Body { len } if self.direct => {
                    self.body = Some((self.input.split().to_vec(), len));
                }
                _ => return Ok(()),
            }
        }
    }

    pub fn transmit(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.conn.poll_transmit(&mut out).unwrap();
        let bytes = out.concat();
        self.sent.extend_from_slice(&bytes);
        bytes
    }
}

pub struct Pair {
    pub client: End,
    pub server: End,
}

impl Pair {
    pub fn new(mode: ConMode, client: Config, server: Config) -> Self {
        let target = Target { type_: server.name.type_, addr: server_addr() };
        let from = "10.1.2.3:5555".parse().unwrap();
        let accept = Connection::accept(server, from, Box::new(TestAccept(mode)), NOW);
        let connect = Connection::connect(client, target, Box::new(TestConnect), NOW);
        Self { client: End::new(connect), server: End::new(accept) }
    }

    /// A pair that speaks this revision.
    pub fn of(mode: ConMode, revision_1: bool) -> Self {
        let mut client = client_config();
        if !revision_1 {
            client.banner = Banner { supported: 0, required: 0 };
        }
        Self::new(mode, client, server_config())
    }

    /// Moves bytes in pieces of at most `piece` until both are silent.
    pub fn run(&mut self, piece: usize) -> Result<(), ProtocolError> {
        loop {
            let up = self.client.transmit();
            let down = self.server.transmit();
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
            up.chunks(piece).try_for_each(|part| self.server.receive(part))?;
            down.chunks(piece).try_for_each(|part| self.client.receive(part))?;
        }
    }
}

pub fn message(type_: u16, front: usize, middle: usize, data: &[usize]) -> RawMessage {
    let bytes = |len: usize, salt: usize| {
        (0..len).map(|i| (i * 31 + salt + (i >> 8)) as u8).collect::<Vec<u8>>().into()
    };
    RawMessage {
        header: Header { type_, tid: 99, version: 3, compat_version: 1, ..Header::default() },
        payload: Payload {
            front: bytes(front, 1),
            middle: bytes(middle, 2),
            data: data.iter().enumerate().map(|(i, &len)| bytes(len, 3 + i)).collect(),
            data_crc: None,
        },
    }
}

/// Asserts that `got` is what `sent` became as the `seq`-th message.
pub fn assert_same(got: &InMessage, sent: &RawMessage, seq: u64) {
    assert_eq!(got.raw.header.seq, seq);
    let header = Header { seq, ack_seq: got.raw.header.ack_seq, flags: 3, ..sent.header };
    assert_eq!(got.raw.header, header);
    assert_eq!(got.raw.payload.front, sent.payload.front);
    assert_eq!(got.raw.payload.middle, sent.payload.middle);
    let data = got.raw.payload.data_bytes();
    assert_eq!(data, sent.payload.data_bytes());
    let crcs: Vec<u32> = data.chunks(4096).map(crc32c::crc32c).collect();
    assert_eq!(got.data_crcs, crcs);
}
