//! The sessions of a monitor client: what every driver of one does with them, wherever it runs.

use std::collections::BTreeMap;

use spirula_auth::ConnectAuth;
use spirula_monc::{Action, ConnId, Event as MonEvent, MonClient};
use spirula_msgr_core::{Now, Target};
use spirula_wire::types::{EntityAddr, EntityType};

use crate::session::{Event, Session, Shared};

/// What of a monitor client's actions is left to its owner.
pub enum MonAction {
    /// Open a session and give it to [`MonSessions::opened`]; its events to
    /// [`MonSessions::handle`].
    Connect {
        conn: ConnId,
        target: Target,
        auth: Box<dyn ConnectAuth>,
    },
    Event(MonEvent),
}

/// The sessions that a [`MonClient`] has or is opening.
///
/// After every input of the client, whichever way it came, [`poll`](Self::poll) until there is
/// nothing left.
#[derive(Debug)]
pub struct MonSessions<S> {
    sessions: BTreeMap<ConnId, Session<S>>,
}

impl<S> Default for MonSessions<S> {
    fn default() -> Self {
        Self { sessions: BTreeMap::new() }
    }
}

impl<S: Shared> MonSessions<S> {
    /// Carries out what the client wants, up to what only its owner can do.
    pub fn poll(&mut self, client: &mut MonClient) -> Option<MonAction> {
        loop {
            match client.poll_action()? {
                Action::Connect { conn, addr, auth } => {
                    let addr = EntityAddr::msgr2(addr, 0);
                    let target = Target { type_: EntityType::MON, addr };
                    return Some(MonAction::Connect { conn, target, auth });
                }
                Action::Send { conn, message } => {
                    if let Some(session) = self.sessions.get(&conn) {
                        session.send(message);
                    }
                }
                Action::Keepalive { conn } => {
                    if let Some(session) = self.sessions.get(&conn) {
                        session.keepalive();
                    }
                }
                Action::Close { conn } => {
                    if let Some(session) = self.sessions.remove(&conn) {
                        session.close();
                    }
                }
                Action::Event(event) => return Some(MonAction::Event(event)),
            }
        }
    }

    /// `session` is on its way for `conn`.
    pub fn opened(&mut self, conn: ConnId, session: Session<S>) {
        self.sessions.insert(conn, session);
    }

    /// Something happened on the session of `conn`.
    pub fn handle(&mut self, client: &mut MonClient, now: Now, conn: ConnId, event: Event<S>) {
        match event {
            Event::Ready(peer) => client.handle_connected(now, conn, peer.grant),
            Event::Message(mut incoming) => {
                client.handle_message(now, conn, std::mem::take(&mut incoming.raw));
            }
            Event::KeepaliveAck => client.handle_keepalive_ack(conn),
            Event::Session(_) => {}
            Event::Closed(reason) => {
                self.sessions.remove(&conn);
                client.handle_closed(now, conn, reason.refusal());
            }
        }
    }

    /// Closes them all.
    pub fn close(&mut self) {
        std::mem::take(&mut self.sessions).values().for_each(Session::close);
    }
}
