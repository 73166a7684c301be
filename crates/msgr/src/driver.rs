//! The loop that moves bytes between a transport and a connection.
//!
//! Each turn: apply what came (synchronously, in the core), hand up the events, start the
//! operations that the core wants, then wait for the first thing to happen.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_msgr_core::{
    Answer, Connection, Event as CoreEvent, Now, PeerIncompatible, ProtocolError, Want,
};
use spirula_wire::RawMessage;
use tracing::{debug, info, warn};

use crate::session::{CloseReason, Event, Incoming, Session, Shared};
use crate::transport::Transport;

/// Spare room offered to each receive.
const RECV_BYTES: usize = 32 * 1024;
/// Less spare room than this is not worth a receive.
const RECV_BYTES_MIN: usize = 4096;
/// With this much waiting behind a send in flight, no more requests are taken in.
const BACKLOG_BYTES_MAX: u64 = 64 << 20;
/// How long a closing session waits for the peer to take what was queued.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Drives a session to its end. `dispatch` gets every event, the last being `Closed`.
pub async fn drive<T: Transport, S: Shared>(
    transport: T,
    mut connection: Connection,
    session: Session<S>,
    mut dispatch: impl FnMut(&Session<S>, Event<S>),
) {
    let reason = run(&transport, &mut connection, &session, &mut dispatch).await;
    transport.shutdown();
    end(&session, reason, dispatch);
}

/// The last that happens on a session.
pub(crate) fn end<S: Shared>(
    session: &Session<S>,
    reason: CloseReason,
    mut dispatch: impl FnMut(&Session<S>, Event<S>),
) {
    session.outbox(|outbox| {
        outbox.ended = true;
        outbox.messages.clear();
    });
    report(session, &reason);
    dispatch(session, Event::Closed(reason));
}

fn report<S>(session: &Session<S>, reason: &CloseReason) {
    match reason {
        CloseReason::Protocol(ProtocolError::Incompatible(
            e @ (PeerIncompatible::LegacyMessenger | PeerIncompatible::NotCeph),
        )) => warn!(?session, "connection refused: {e}"),
        _ => debug!(?session, "session ended: {reason}"),
    }
}

/// What ended the wait.
enum Woken {
    Work,
    Received(Received),
    Sent(io::Result<()>),
    Timer,
}

enum Received {
    Input(io::Result<usize>, BytesMut),
    Body(io::Result<Bytes>),
}

async fn run<T: Transport, S: Shared>(
    transport: &T,
    connection: &mut Connection,
    session: &Session<S>,
    dispatch: &mut impl FnMut(&Session<S>, Event<S>),
) -> CloseReason {
    let mut turn = Turn { transport, connection, session, input: BytesMut::new(), closing: false };
    let mut receiving = pin!(None);
    let mut sending = pin!(None);
    let mut sleeping = pin!(None);
    loop {
        if sending.is_none() {
            match turn.gather() {
                Ok(out) if !out.is_empty() => sending.set(Some(transport.send(out))),
                Ok(_) if turn.closing => return CloseReason::Local,
                Ok(_) => {}
                Err(reason) => return reason,
            }
        }
        if receiving.is_none()
            && let Some((want, input)) = turn.wants(sending.is_some())
        {
            receiving.set(Some(receive(transport, want, input)));
        }
        if sleeping.is_none()
            && let Some(deadline) = turn.deadline()
        {
            sleeping.set(Some(transport.sleep_until(deadline)));
        }
        let woken = poll_fn(|cx| {
            if session.poll_work(cx).is_ready() {
                return Poll::Ready(Woken::Work);
            }
            if let Some(sent) = poll_slot(sending.as_mut(), cx) {
                return Poll::Ready(Woken::Sent(sent));
            }
            if let Some(received) = poll_slot(receiving.as_mut(), cx) {
                return Poll::Ready(Woken::Received(received));
            }
            poll_slot(sleeping.as_mut(), cx).map_or(Poll::Pending, |()| Poll::Ready(Woken::Timer))
        })
        .await;
        if matches!(woken, Woken::Work) {
            transport.settle().await;
        }
        let was_closing = turn.closing;
        let applied = turn.apply(woken);
        // Events from before an error are real.
        while let Some(event) = turn.connection.poll_event() {
            dispatch(session, lift(event, session));
        }
        if let Err(reason) = applied {
            return reason;
        }
        if turn.closing && !was_closing {
            // A peer that does not read cannot keep the session.
            sleeping.set(Some(transport.sleep_until(transport.now().mono + CLOSE_WAIT)));
        }
    }
}

/// What changes from turn to turn, all of it synchronously.
struct Turn<'a, T, S> {
    transport: &'a T,
    connection: &'a mut Connection,
    session: &'a Session<S>,
    /// Received and not consumed; empty while a receive is in flight.
    input: BytesMut,
    closing: bool,
}

impl<T: Transport, S: Shared> Turn<'_, T, S> {
    /// Everything there is to send.
    fn gather(&mut self) -> Result<Vec<Bytes>, CloseReason> {
        let mut out = Vec::new();
        self.connection.poll_transmit(&mut out).map_err(CloseReason::Protocol)?;
        Ok(out)
    }

    /// What to receive now, if anything, with the input so far.
    fn wants(&mut self, sending: bool) -> Option<(Want, BytesMut)> {
        let want = self.connection.wants();
        self.session.outbox(|outbox| outbox.throttled = want == Want::Throttled);
        let flooded = sending && self.connection.queued_bytes() > BACKLOG_BYTES_MAX;
        if want == Want::Throttled || flooded {
            return None;
        }
        Some((want, std::mem::take(&mut self.input)))
    }

    fn deadline(&self) -> Option<Duration> {
        self.connection.poll_timeout()
    }

    fn apply(&mut self, woken: Woken) -> Result<(), CloseReason> {
        let now = self.transport.now();
        let applied = match woken {
            Woken::Work => self.take_work(now),
            Woken::Sent(result) => return result.map_err(lost),
            Woken::Received(Received::Input(Ok(0), _)) => return Err(CloseReason::Peer),
            Woken::Received(Received::Input(Ok(_), buf)) => {
                self.input = buf;
                self.connection.handle_input(now, &mut self.input)
            }
            Woken::Received(Received::Body(Ok(body))) => self.connection.handle_body(now, body),
            Woken::Received(Received::Input(Err(e), _) | Received::Body(Err(e))) => {
                return Err(lost(e));
            }
            Woken::Timer if self.closing => return Err(CloseReason::Local),
            Woken::Timer => self.connection.handle_timeout(now),
        };
        applied.map_err(CloseReason::Protocol)
    }

    /// Moves commands from the outbox to the core.
    fn take_work(&mut self, now: Now) -> Result<(), ProtocolError> {
        let (connection, closing, session) =
            (&mut *self.connection, &mut self.closing, self.session);
        let answers = session.outbox(|outbox| std::mem::take(&mut outbox.answers));
        let answered = answers.iter().any(|a| *a != Answer::Acknowledge);
        for answer in answers {
            connection.answer(now, answer)?;
        }
        let (keepalive, (count, bytes)) = session.outbox(|outbox| {
            for message in outbox.messages.drain(..) {
                trace_message(session, "-->", &message);
                connection.send(message);
            }
            *closing |= std::mem::take(&mut outbox.close);
            (std::mem::take(&mut outbox.keepalive), std::mem::take(&mut outbox.released))
        });
        if keepalive {
            connection.keepalive(now)?;
        }
        connection.release(count, bytes);
        if answered || count > 0 && connection.wants() == Want::Throttled {
            connection.handle_input(now, &mut self.input)?;
        }
        Ok(())
    }
}

/// Polls the operation in a slot, if there is one, and empties the slot when it completes.
fn poll_slot<F: Future>(
    mut slot: Pin<&mut Option<F>>,
    cx: &mut std::task::Context<'_>,
) -> Option<F::Output> {
    match slot.as_mut().as_pin_mut()?.poll(cx) {
        Poll::Ready(output) => {
            slot.set(None);
            Some(output)
        }
        Poll::Pending => None,
    }
}

/// Receives what the core wants. `input` holds what it left.
async fn receive<T: Transport>(transport: &T, want: Want, mut input: BytesMut) -> Received {
    match want {
        Want::Body { len } => Received::Body(transport.recv_body(input, len).await),
        Want::Bytes(_) | Want::Throttled => {
            let missing = match want {
                Want::Bytes(len) => len.saturating_sub(input.len()),
                _ => 0,
            };
            let spare = input.capacity() - input.len();
            if spare < missing.max(RECV_BYTES_MIN) {
                input.reserve(missing.max(RECV_BYTES));
            }
            let (result, input) = transport.recv(input).await;
            Received::Input(result, input)
        }
    }
}

fn lift<S: Shared>(event: CoreEvent, session: &Session<S>) -> Event<S> {
    match event {
        CoreEvent::Ready(peer) => Event::Ready(peer),
        CoreEvent::Message(message) => {
            let incoming = Incoming::new(message, session.clone());
            trace_message(session, "<==", &incoming.raw);
            Event::Message(incoming)
        }
        CoreEvent::KeepaliveAck => Event::KeepaliveAck,
        CoreEvent::Session(asked) => Event::Session(asked),
    }
}

/// What `debug_ms = 1` shows.
fn trace_message<S>(session: &Session<S>, direction: &str, raw: &RawMessage) {
    let (header, payload) = (&raw.header, &raw.payload);
    let [front, middle, data] = [payload.front.len(), payload.middle.len(), payload.data_len()];
    let name = spirula_wire::msg::name(header.type_);
    info!(?session, tid = header.tid, "{direction} {name} {front}+{middle}+{data}");
}

fn lost(error: io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => CloseReason::Peer,
        _ => CloseReason::Io(error),
    }
}
