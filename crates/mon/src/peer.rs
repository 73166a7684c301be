//! What monitors tell each other beside the quorum's own messages: requests of a peer's sessions
//! on their way to the leader, and what the leader alone knows.
//!
//! The encoding is described in `docs/protocol-mon.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_auth::AuthenticatedPeer;
use spirula_wire::{Decode, DecodeError, Encode, Features, Header, Payload, RawMessage, Reader};

use crate::quorum::QuorumMessage;
use crate::service::{Peer, SessionId};

/// The body of a `mon_peer` message.
#[derive(Clone, Debug)]
pub(crate) enum PeerMessage {
    Quorum(QuorumMessage),
    /// The leader's view of the quorum.
    View(View),
    /// A session of the sender may send requests from now on.
    Opened(SessionId, Peer),
    /// A request of such a session, numbered by the sender.
    Forward(SessionId, u64, RawMessage),
    /// That session is gone.
    Gone(SessionId),
    /// The leader's message to a session of the receiver.
    Route(SessionId, RawMessage),
    /// Request `.0` needs nothing any more.
    Done(u64),
    /// The leader wants a session of the receiver closed.
    Close(SessionId),
    /// The sender, in this run of it, is short of global ids.
    WantIds(u64),
    /// What the manager reported.
    Report(RawMessage),
    /// The sender is not among the members and wants to be.
    Join,
    /// What the sender says about itself.
    Metadata(BTreeMap<String, String>),
    /// The leader asks for the time, in this round.
    AskTime(u64),
    /// The time of the sender, for that round.
    Time(u64, Duration),
}

/// Who is in the quorum, and how far it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) term: u64,
    /// Members that answer, by number.
    pub(crate) quorum: Vec<u64>,
    /// How long this has been so.
    pub(crate) age: Duration,
    /// The last entry that was committed when this was sent.
    pub(crate) index: u64,
}

impl Encode for PeerMessage {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let tag = |out: &mut Vec<u8>, n: u8| out.push(n);
        match self {
            Self::Quorum(message) => (tag(out, 1), message.encode(out, f)).1,
            Self::View(view) => {
                tag(out, 2);
                view.term.encode(out, f);
                view.quorum.encode(out, f);
                (view.age.as_nanos() as u64).encode(out, f);
                view.index.encode(out, f);
            }
            Self::Opened(session, peer) => {
                tag(out, 3);
                session.encode(out, f);
                encode_peer(peer, out, f);
            }
            Self::Forward(session, number, raw) => {
                tag(out, 4);
                session.encode(out, f);
                number.encode(out, f);
                encode_raw(raw, out, f);
            }
            Self::Gone(session) => (tag(out, 5), session.encode(out, f)).1,
            Self::Route(session, raw) => {
                tag(out, 6);
                session.encode(out, f);
                encode_raw(raw, out, f);
            }
            Self::Done(number) => (tag(out, 7), number.encode(out, f)).1,
            Self::Close(session) => (tag(out, 8), session.encode(out, f)).1,
            Self::WantIds(run) => (tag(out, 9), run.encode(out, f)).1,
            Self::Report(raw) => (tag(out, 10), encode_raw(raw, out, f)).1,
            Self::Join => tag(out, 11),
            Self::Metadata(values) => (tag(out, 12), values.encode(out, f)).1,
            Self::AskTime(round) => (tag(out, 13), round.encode(out, f)).1,
            Self::Time(round, wall) => {
                tag(out, 14);
                round.encode(out, f);
                (wall.as_nanos() as u64).encode(out, f);
            }
        }
    }
}

impl Decode for PeerMessage {
    const MIN_SIZE: usize = 1;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.u8()? {
            1 => Self::Quorum(Decode::decode(r)?),
            2 => Self::View(View {
                term: r.u64()?,
                quorum: Decode::decode(r)?,
                age: Duration::from_nanos(r.u64()?),
                index: r.u64()?,
            }),
            3 => Self::Opened(r.u64()?, decode_peer(r)?),
            4 => Self::Forward(r.u64()?, r.u64()?, decode_raw(r)?),
            5 => Self::Gone(r.u64()?),
            6 => Self::Route(r.u64()?, decode_raw(r)?),
            7 => Self::Done(r.u64()?),
            8 => Self::Close(r.u64()?),
            9 => Self::WantIds(r.u64()?),
            10 => Self::Report(decode_raw(r)?),
            11 => Self::Join,
            12 => Self::Metadata(Decode::decode(r)?),
            13 => Self::AskTime(r.u64()?),
            14 => Self::Time(r.u64()?, Duration::from_nanos(r.u64()?)),
            other => {
                return Err(DecodeError::Invalid { what: "peer message", value: other.into() });
            }
        })
    }
}

fn encode_raw(raw: &RawMessage, out: &mut Vec<u8>, f: Features) {
    raw.header.encode(out, f);
    raw.payload.front.encode(out, f);
    raw.payload.middle.encode(out, f);
    raw.payload.data_bytes().encode(out, f);
}

fn decode_raw(r: &mut Reader<'_>) -> Result<RawMessage, DecodeError> {
    let header = Header::decode(r)?;
    let (front, middle) = (Decode::decode(r)?, Decode::decode(r)?);
    let data: bytes::Bytes = Decode::decode(r)?;
    let data = if data.is_empty() { Vec::new() } else { vec![data] };
    Ok(RawMessage { header, payload: Payload { front, middle, data, data_crc: None } })
}

fn encode_peer(peer: &Peer, out: &mut Vec<u8>, f: Features) {
    peer.auth.name.encode(out, f);
    peer.auth.global_id.encode(out, f);
    peer.auth.caps.encode(out, f);
    peer.auth.allow_all.encode(out, f);
    peer.addrs.encode(out, f);
    peer.socket_addr.encode(out, f);
    peer.features.encode(out, f);
}

/// Tickets are renewed where the session is, so what that takes stays there.
fn decode_peer(r: &mut Reader<'_>) -> Result<Peer, DecodeError> {
    let auth = AuthenticatedPeer {
        name: Decode::decode(r)?,
        global_id: r.u64()?,
        caps: Decode::decode(r)?,
        allow_all: r.u8()? != 0,
        expires: Duration::MAX,
        server_challenge: 0,
    };
    Ok(Peer {
        auth,
        addrs: Decode::decode(r)?,
        socket_addr: Decode::decode(r)?,
        features: r.u64()?,
    })
}
