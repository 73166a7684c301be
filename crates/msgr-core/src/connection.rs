//! One messenger connection, either side, from the first byte to the last.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_auth::{AcceptAuth, ConnectAuth};
use spirula_wire::types::EntityAddr;
use spirula_wire::{Decode, Header, Payload, RawMessage, Reader};

use crate::banner::Banner;
use crate::config::{Config, Now, Target};
use crate::control::Control;
use crate::error::{ApiMisuse, PeerMisbehaved, ProtocolError, Timeout};
use crate::frame::Tag;
use crate::phase::{Cx, Peer, Phase, Role};
use crate::rx::{Frame, Step};
use crate::session::{Answer, SessionEvent};
use crate::wire::Wire;

/// `CEPH_MSG_FOOTER_COMPLETE` and `CEPH_MSG_FOOTER_NOCRC`: what every v2 peer sends.
const MESSAGE_FLAGS: u8 = 3;

/// What a driver has to bring about next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The input must hold at least this many bytes before [`Connection::handle_input`] can advance.
    Bytes(usize),
    /// The next `len` bytes, some of which may be in the input already, are one data segment. A
    /// driver may receive them into a buffer of its choice and give it to
    /// [`Connection::handle_body`], or go on filling the input.
    Body { len: usize },
    /// Nothing may be received until [`Connection::release`] makes room, or until
    /// [`Connection::answer`] says how the session goes on.
    Throttled,
}

/// What happened on the connection.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete; comes once, before any message.
    Ready(Box<Peer>),
    Message(InMessage),
    /// The peer acknowledged a keepalive.
    KeepaliveAck,
    /// Of a lossless session ([`Config::lossless`]); to be answered with [`Connection::answer`].
    Session(SessionEvent),
}

/// A received message. It counts against the dispatch throttle until its `cost` is released.
#[derive(Clone, Debug)]
pub struct InMessage {
    pub raw: RawMessage,
    /// Standard CRC-32C of each 4 KiB of the data segment, in the order they came, verified.
    pub data_crcs: Vec<u32>,
    /// Payload bytes, for [`Connection::release`].
    pub cost: u64,
}

/// A messenger v2 connection without I/O.
///
/// * Getters: [`wants`](Self::wants), [`is_open`](Self::is_open),
///   [`queued_bytes`](Self::queued_bytes).
/// * Inputs: [`handle_input`](Self::handle_input), [`handle_body`](Self::handle_body),
///   [`handle_timeout`](Self::handle_timeout). An error is final.
/// * Commands: [`send`](Self::send), [`keepalive`](Self::keepalive), [`release`](Self::release),
///   [`answer`](Self::answer).
/// * Outputs: [`poll_event`](Self::poll_event), [`poll_transmit`](Self::poll_transmit),
///   [`poll_timeout`](Self::poll_timeout).
///
/// Order for a driver: after any input or command drain the events, then transmit, then wait for
/// what [`wants`](Self::wants) and [`poll_timeout`](Self::poll_timeout) say. After an error the
/// socket is closed; there are no last words in this protocol.
pub struct Connection {
    config: Config,
    wire: Wire,
    phase: Phase,
    want: Want,
    events: VecDeque<Event>,
    /// Messages handed in and not yet framed.
    queue: VecDeque<RawMessage>,
    queued_bytes: u64,
    out_seq: u64,
    in_seq: u64,
    /// The session numbers the messages, not the connection.
    lossless: bool,
    acks: Acks,
    dispatched: Dispatched,
    born: Duration,
    heard: Duration,
}

/// What of the received is not acknowledged, of a lossless session.
#[derive(Clone, Copy, Debug, Default)]
struct Acks {
    messages: u64,
    bytes: u64,
}

impl Acks {
    /// An acknowledgement of its own leaves when this much has come and nothing carried one back.
    const MESSAGES: u64 = 64;
    const BYTES: u64 = 1 << 20;

    fn are_due(self) -> bool {
        self.messages >= Self::MESSAGES || self.bytes >= Self::BYTES
    }
}

/// Messages handed up and not released.
#[derive(Clone, Copy, Debug, Default)]
struct Dispatched {
    bytes: u64,
    messages: u64,
}

impl Connection {
    /// The accepting side of a socket from `peer_addr`.
    pub fn accept(
        config: Config,
        peer_addr: SocketAddr,
        auth: Box<dyn AcceptAuth>,
        now: Now,
    ) -> Self {
        let peer_addr = EntityAddr::msgr2(peer_addr, 0);
        Self::new(config, Role::Accept { auth, peer_addr }, now)
    }

    /// The connecting side of a socket to `target`.
    pub fn connect(config: Config, target: Target, auth: Box<dyn ConnectAuth>, now: Now) -> Self {
        Self::new(config, Role::Connect { auth, target }, now)
    }

    fn new(config: Config, role: Role, now: Now) -> Self {
        let mut wire = Wire::new(&config);
        let mut banner = Vec::with_capacity(Banner::LEN);
        config.banner.encode(&mut banner);
        wire.writer.raw(&banner);
        Self {
            config,
            wire,
            phase: Phase::Banner(role),
            want: Want::Bytes(1),
            events: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            out_seq: 0,
            in_seq: 0,
            lossless: false,
            acks: Acks::default(),
            dispatched: Dispatched::default(),
            born: now.mono,
            heard: now.mono,
        }
    }

    pub fn wants(&self) -> Want {
        self.want
    }

    /// The handshake is complete and the connection has not failed.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Payload bytes of messages that [`Self::poll_transmit`] has not yielded yet.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Consumes all complete units of `input` and leaves the rest.
    pub fn handle_input(&mut self, now: Now, input: &mut BytesMut) -> Result<(), ProtocolError> {
        if matches!(self.phase, Phase::Closed) {
            return Err(ProtocolError::Misuse(ApiMisuse::Closed));
        }
        self.heard = now.mono;
        let result = self.advance(now, input);
        self.close_on_error(result)
    }

    /// Takes the data segment that [`Want::Body`] asked for.
    pub fn handle_body(&mut self, now: Now, body: Bytes) -> Result<(), ProtocolError> {
        self.heard = now.mono;
        let result = self.wire.reader.body(body);
        // What is left of the frame is not here: the driver took the body off the input's end.
        self.want = Want::Bytes(1);
        self.close_on_error(result)
    }

    /// Call at or after the time that [`Self::poll_timeout`] gave; earlier calls do nothing.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), ProtocolError> {
        let late = self.poll_timeout().is_some_and(|at| now.mono >= at);
        // A throttled peer is silent because we do not listen.
        let result = match (late, self.is_open(), self.want) {
            (false, ..) | (true, true, Want::Throttled) => {
                if late {
                    self.heard = now.mono;
                }
                Ok(())
            }
            (true, false, _) => Err(ProtocolError::Timeout(Timeout::Handshake)),
            (true, true, _) => Err(ProtocolError::Timeout(Timeout::Idle)),
        };
        self.close_on_error(result)
    }

    /// Queues a message; its sequence number, acknowledgement and flags are filled in. Before the
    /// handshake is complete it waits.
    pub fn send(&mut self, message: RawMessage) {
        let p = &message.payload;
        self.queued_bytes += (p.front.len() + p.middle.len() + p.data_len()) as u64;
        self.queue.push_back(message);
    }

    /// Says how a lossless session goes on after an [`Event::Session`]; call
    /// [`handle_input`](Self::handle_input) again afterwards. Messages then leave with the sequence
    /// numbers that they have.
    pub fn answer(&mut self, now: Now, answer: Answer) -> Result<(), ProtocolError> {
        if answer == Answer::Acknowledge {
            let late = self.is_open() && self.acks.messages > 0;
            let result = if late { self.acknowledge() } else { Ok(()) };
            return self.close_on_error(result);
        }
        if let Some(in_seq) = answer.opens_at() {
            self.in_seq = in_seq;
            self.lossless = true;
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let mut cx = Cx { wire: &mut self.wire, config: &self.config, now, asked: None };
        let next = phase.answer(answer, &mut cx);
        self.want = Want::Bytes(1);
        let result = next.map(|next| self.enter(next, None));
        self.close_on_error(result)
    }

    fn acknowledge(&mut self) -> Result<(), ProtocolError> {
        self.acks = Acks::default();
        self.wire.send(&Control::Ack { seq: self.in_seq })
    }

    /// Queues a KEEPALIVE2; its answer is [`Event::KeepaliveAck`]. Nothing before the handshake is
    /// complete.
    pub fn keepalive(&mut self, now: Now) -> Result<(), ProtocolError> {
        if !self.is_open() {
            return Ok(());
        }
        self.wire.send(&Control::Keepalive2(now.wall.into()))
    }

    /// The owner is done with this many messages of this total cost. If [`Self::wants`] said
    /// [`Want::Throttled`], call [`Self::handle_input`] again.
    pub fn release(&mut self, messages: u64, cost: u64) {
        let d = &mut self.dispatched;
        debug_assert!(d.messages >= messages && d.bytes >= cost, "released more than was taken");
        d.messages = d.messages.saturating_sub(messages);
        d.bytes = d.bytes.saturating_sub(cost);
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends everything there is to send, in order.
    pub fn poll_transmit(&mut self, out: &mut Vec<Bytes>) -> Result<(), ProtocolError> {
        let result = if self.is_open() { self.frame_queue() } else { Ok(()) };
        self.wire.writer.gather.drain_into(out);
        self.close_on_error(result)
    }

    /// Whether [`Self::poll_transmit`] would yield anything.
    pub fn has_transmit(&self) -> bool {
        let queued = !self.queue.is_empty() || self.acks.are_due();
        !self.wire.writer.gather.is_empty() || self.is_open() && queued
    }

    /// When [`Self::handle_timeout`] is due (monotonic).
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open => Some(self.heard.saturating_add(self.config.timeouts.idle)),
            _ => Some(self.born.saturating_add(self.config.timeouts.handshake)),
        }
    }

    fn close_on_error<T>(&mut self, result: Result<T, ProtocolError>) -> Result<T, ProtocolError> {
        if result.is_err() {
            self.phase = Phase::Closed;
        }
        result
    }

    fn advance(&mut self, now: Now, input: &mut BytesMut) -> Result<(), ProtocolError> {
        if matches!(self.phase, Phase::Banner(_)) && !self.banner(now, input)? {
            return Ok(());
        }
        if self.awaits_answer() {
            return Ok(());
        }
        loop {
            let (dispatched, limits) = (&mut self.dispatched, &self.config.limits);
            let admit = |bytes| dispatched.admit(bytes, limits);
            match self.wire.reader.poll(input, admit)? {
                Step::Need(len) => {
                    self.want = Want::Bytes(len);
                    return Ok(());
                }
                Step::Body(len) => {
                    self.want = Want::Body { len };
                    return Ok(());
                }
                Step::Throttled => {
                    self.want = Want::Throttled;
                    return Ok(());
                }
                Step::Aborted(cost) => self.release(1, cost),
                Step::Frame(frame) => {
                    self.frame(now, frame)?;
                    if self.awaits_answer() {
                        self.want = Want::Throttled;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether the banner is complete.
    fn banner(&mut self, now: Now, input: &mut BytesMut) -> Result<bool, ProtocolError> {
        let mut seen = Vec::new();
        let peer = match Banner::take(input, &mut seen)? {
            Ok(peer) => peer,
            Err(need) => {
                self.want = Want::Bytes(need);
                return Ok(false);
            }
        };
        self.wire.agree(self.config.banner.agree(&peer)?);
        if let Some(transcript) = &mut self.wire.reader.transcript {
            transcript.append(&mut seen);
        }
        if let Phase::Banner(role) = std::mem::replace(&mut self.phase, Phase::Closed) {
            let mut cx = Cx { wire: &mut self.wire, config: &self.config, now, asked: None };
            self.phase = role.hello(&mut cx)?;
        }
        Ok(true)
    }

    fn frame(&mut self, now: Now, frame: Frame) -> Result<(), ProtocolError> {
        if frame.tag == Tag::Message {
            return self.message(frame);
        }
        let Some(control) = Control::decode(frame.tag, &frame.segments[0])? else {
            return Err(PeerMisbehaved::Unexpected(frame.tag).into());
        };
        if self.is_open() {
            return self.open_control(control);
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let mut cx = Cx { wire: &mut self.wire, config: &self.config, now, asked: None };
        let next = phase.step(control, &mut cx)?;
        let asked = cx.asked;
        self.enter(next, asked);
        Ok(())
    }

    fn enter(&mut self, next: Phase, asked: Option<SessionEvent>) {
        self.phase = match next {
            Phase::Ready(peer) => {
                self.wire.reader.messages = true;
                self.events.push_back(Event::Ready(peer));
                Phase::Open
            }
            next => next,
        };
        self.events.extend(asked.map(Event::Session));
    }

    /// Whether the owner of the session has to answer first.
    fn awaits_answer(&self) -> bool {
        matches!(self.phase, Phase::AcceptDecide(_) | Phase::ConnectDecide(_))
    }

    fn open_control(&mut self, control: Control) -> Result<(), ProtocolError> {
        match control {
            Control::Keepalive2(stamp) => self.wire.send(&Control::Keepalive2Ack(stamp)),
            Control::Keepalive2Ack(_) => {
                self.events.push_back(Event::KeepaliveAck);
                Ok(())
            }
            // Only a lossless session keeps sent messages until they are acknowledged.
            Control::Ack { seq } => {
                let acked = self.lossless.then_some(SessionEvent::Acked { seq });
                self.events.extend(acked.map(Event::Session));
                Ok(())
            }
            other => Err(PeerMisbehaved::Unexpected(other.tag()).into()),
        }
    }

    fn message(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let [header, front, middle, data] = frame.segments;
        let cost = (front.len() + middle.len() + data.len()) as u64;
        let header = Header::decode(&mut Reader::new(&header))?;
        if header.seq <= self.in_seq {
            // A message that we had already; Ceph drops it, too.
            self.release(1, cost);
            return Ok(());
        }
        self.in_seq = header.seq;
        if self.lossless {
            self.acks.messages += 1;
            self.acks.bytes += cost;
        }
        let data = if data.is_empty() { Vec::new() } else { vec![data] };
        let raw = RawMessage { header, payload: Payload { front, middle, data, data_crc: None } };
        self.events.push_back(Event::Message(InMessage { raw, data_crcs: frame.data_crcs, cost }));
        Ok(())
    }

    fn frame_queue(&mut self) -> Result<(), ProtocolError> {
        while let Some(mut message) = self.queue.pop_front() {
            if !self.lossless {
                self.out_seq += 1;
                message.header.seq = self.out_seq;
            }
            self.acks = Acks::default();
            message.header.ack_seq = self.in_seq;
            message.header.flags = MESSAGE_FLAGS;
            self.wire.writer.message(&message)?;
        }
        self.queued_bytes = 0;
        if self.acks.are_due() { self.acknowledge() } else { Ok(()) }
    }
}

impl Dispatched {
    fn admit(&mut self, bytes: u64, limits: &crate::config::Limits) -> bool {
        let room = self.messages < limits.dispatch_messages_max
            && self.bytes.saturating_add(bytes) <= limits.dispatch_bytes_max;
        if !room && self.messages > 0 {
            return false;
        }
        self.messages += 1;
        self.bytes += bytes;
        true
    }
}
