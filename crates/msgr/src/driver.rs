//! The loop that moves bytes between a transport and a connection.
//!
//! Each turn: apply what came (synchronously, in the core), hand up the events, start the
//! operations that the core wants, then wait for the first thing to happen.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use spirula_msgr_core::{Connection, Event as CoreEvent, PeerIncompatible, ProtocolError, Want};
use tracing::{debug, warn};

use crate::session::{CloseReason, Event, Incoming, Session, Shared};
use crate::transport::Transport;

/// Spare room offered to each receive.
const RECV_BYTES: usize = 32 * 1024;
/// Less spare room than this is not worth a receive.
const RECV_BYTES_MIN: usize = 4096;
/// With this much waiting behind a send in flight, no more requests are taken in.
const BACKLOG_BYTES_MAX: u64 = 64 << 20;

/// Drives a session to its end. `dispatch` gets every event, the last being `Closed`.
pub async fn drive<T: Transport, S: Shared>(
    transport: T,
    mut connection: Connection,
    session: Session<S>,
    mut dispatch: impl FnMut(&Session<S>, Event<S>),
) {
    let reason = run(&transport, &mut connection, &session, &mut dispatch).await;
    transport.shutdown();
    session.outbox(|outbox| {
        outbox.ended = true;
        outbox.messages.clear();
    });
    report(&session, &reason);
    dispatch(&session, Event::Closed(reason));
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
    let mut input = BytesMut::new();
    let mut closing = false;
    let mut receiving = pin!(None);
    let mut sending = pin!(None);
    let mut sleeping = pin!(None);
    loop {
        if sending.is_none() {
            let mut out = Vec::new();
            if let Err(e) = connection.poll_transmit(&mut out) {
                return CloseReason::Protocol(e);
            }
            if !out.is_empty() {
                sending.set(Some(transport.send(out)));
            } else if closing {
                return CloseReason::Local;
            }
        }
        let flooded = sending.is_some() && connection.queued_bytes() > BACKLOG_BYTES_MAX;
        let want = connection.wants();
        session.outbox(|outbox| outbox.throttled = want == Want::Throttled);
        if receiving.is_none() && want != Want::Throttled && !flooded {
            receiving.set(Some(receive(transport, want, std::mem::take(&mut input))));
        }
        if sleeping.is_none()
            && let Some(deadline) = connection.poll_timeout()
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
            match poll_slot(sleeping.as_mut(), cx) {
                Some(()) => Poll::Ready(Woken::Timer),
                None => Poll::Pending,
            }
        })
        .await;
        let applied = match woken {
            Woken::Work => {
                transport.settle().await;
                take_work(transport, connection, session, &mut closing).and_then(|released| {
                    if !released {
                        return Ok(());
                    }
                    connection.handle_input(transport.now(), &mut input)
                })
            }
            Woken::Sent(Ok(())) => Ok(()),
            Woken::Sent(Err(e)) => return CloseReason::Io(e),
            Woken::Received(Received::Input(Ok(0), _)) => return CloseReason::Peer,
            Woken::Received(Received::Input(Ok(_), buf)) => {
                input = buf;
                connection.handle_input(transport.now(), &mut input)
            }
            Woken::Received(Received::Body(Ok(body))) => {
                connection.handle_body(transport.now(), body)
            }
            Woken::Received(Received::Input(Err(e), _) | Received::Body(Err(e))) => {
                return lost(e);
            }
            Woken::Timer => connection.handle_timeout(transport.now()),
        };
        // Events from before an error are real.
        while let Some(event) = connection.poll_event() {
            dispatch(session, lift(event, session));
        }
        if let Err(e) = applied {
            return CloseReason::Protocol(e);
        }
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

/// Moves commands from the outbox to the core; whether the throttle has new room.
fn take_work<T: Transport, S: Shared>(
    transport: &T,
    connection: &mut Connection,
    session: &Session<S>,
    closing: &mut bool,
) -> Result<bool, ProtocolError> {
    let (keepalive, (count, bytes)) = session.outbox(|outbox| {
        outbox
            .messages
            .drain(..)
            .for_each(|message| connection.send(message));
        *closing |= std::mem::take(&mut outbox.close);
        (
            std::mem::take(&mut outbox.keepalive),
            std::mem::take(&mut outbox.released),
        )
    });
    if keepalive {
        connection.keepalive(transport.now())?;
    }
    connection.release(count, bytes);
    Ok(count > 0 && connection.wants() == Want::Throttled)
}

fn lift<S: Shared>(event: CoreEvent, session: &Session<S>) -> Event<S> {
    match event {
        CoreEvent::Ready(peer) => Event::Ready(peer),
        CoreEvent::Message(message) => Event::Message(Incoming::new(message, session.clone())),
    }
}

fn lost(error: io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => CloseReason::Peer,
        _ => CloseReason::Io(error),
    }
}
