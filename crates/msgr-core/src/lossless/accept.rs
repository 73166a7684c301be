//! A peer connects: to a session that there is, to a new one, or against our own connection to it.

use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityName};

use super::{Action, AddrKey, ConnId, Link, Lossless, SessionId, SessionPeer, SessionReconnect};
use crate::session::Answer;

impl Lossless {
    pub(super) fn client_ident(
        &mut self,
        conn: ConnId,
        peer: SessionPeer,
        cookie: u64,
        global_seq: u64,
    ) {
        let Some(addr) = peer.addrs.msgr2().filter(|_| cookie != 0) else {
            return self.refuse(conn);
        };
        let Some(&id) = self.by_addr.get(&AddrKey::of(&addr)) else {
            let id = self.insert(addr, peer.clone());
            return self.accept(id, conn, peer, cookie, global_seq);
        };
        let (loses, reset_check) = (self.loses_to(&addr), self.options.policy.reset_check);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let another = session.peer.entity != peer.entity;
        if another || session.peer_global_seq > global_seq {
            // Overtaken by a later connection of the same process.
            return self.refuse(conn);
        }
        let known = session.server_cookie != 0 && session.client_cookie != 0;
        if known && session.client_cookie != cookie {
            if reset_check {
                self.forget(id);
            }
            return self.accept(id, conn, peer, cookie, global_seq);
        }
        let idle = matches!(session.link, Link::Open(_) | Link::Standby);
        if session.client_cookie == cookie || idle || loses {
            return self.accept(id, conn, peer, cookie, global_seq);
        }
        // Both connect at once, and ours stays. See that it comes soon.
        session.wanted = true;
        let waits = matches!(session.link, Link::Backoff { .. });
        self.actions.push_back(Action::Answer(conn, Answer::Wait));
        if waits {
            self.dial(id);
        }
    }

    /// Whether a connection from `addr` stays when it crosses ours.
    fn loses_to(&self, addr: &EntityAddr) -> bool {
        let ours = self.options.addrs.msgr2().unwrap_or_default();
        AddrKey::of(addr) < AddrKey::of(&ours)
    }

    fn refuse(&mut self, conn: ConnId) {
        self.actions.push_back(Action::Close(conn));
    }

    fn forget(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.requeue();
            session.reset();
            self.actions.push_back(Action::Reset(id));
        }
    }

    /// A new session, on the connection that asks for it.
    fn accept(
        &mut self,
        id: SessionId,
        conn: ConnId,
        peer: SessionPeer,
        client_cookie: u64,
        peer_global_seq: u64,
    ) {
        let (cookie, global_seq) = (self.next_cookie(), self.next_global_seq());
        self.take(id, conn);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.begin(peer, cookie, peer_global_seq);
            session.client_cookie = client_cookie;
        }
        self.open(id, conn, Answer::Accept { cookie, global_seq });
    }

    /// From now on this is the session's connection.
    fn take(&mut self, id: SessionId, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.requeue();
        let old = session.link.conn();
        session.link = Link::Open(conn);
        if let Some(old) = old {
            self.by_conn.remove(&old);
            self.actions.push_back(Action::Close(old));
        }
        self.by_conn.insert(conn, id);
    }

    pub(super) fn reconnect(
        &mut self,
        conn: ConnId,
        entity: EntityName,
        addrs: &EntityAddrVec,
        claim: &SessionReconnect,
    ) {
        match self.judge(entity, addrs, claim) {
            Err(Some(answer)) => {
                let waits = answer == Answer::Wait;
                self.actions.push_back(Action::Answer(conn, answer));
                if waits {
                    self.follow_through(addrs);
                }
            }
            Err(None) => self.refuse(conn),
            Ok(id) => {
                self.take(id, conn);
                let Some(session) = self.sessions.get_mut(&id) else {
                    return;
                };
                session.connect_seq = claim.connect_seq;
                session.peer_global_seq = claim.global_seq;
                session.discard_up_to(claim.msg_seq);
                let answer = Answer::Resume { peer: session.peer.clone(), in_seq: session.in_seq };
                self.open(id, conn, answer);
            }
        }
    }

    /// The session that a peer may have back, or what it is told instead.
    fn judge(
        &self,
        entity: EntityName,
        addrs: &EntityAddrVec,
        claim: &SessionReconnect,
    ) -> Result<SessionId, Option<Answer>> {
        let addr = addrs.msgr2().ok_or(None)?;
        let gone = Some(Answer::Reset { full: self.options.policy.reset_check });
        let id = *self.by_addr.get(&AddrKey::of(&addr)).ok_or(gone.clone())?;
        let session = self.sessions.get(&id).ok_or(gone)?;
        if session.peer.entity != entity {
            return Err(None);
        }
        if session.client_cookie != claim.client_cookie {
            return Err(Some(Answer::Reset { full: self.options.policy.reset_check }));
        }
        if session.server_cookie == 0 {
            // Our connection got no answer that we saw.
            return Err(Some(Answer::Reset { full: false }));
        }
        if session.peer_global_seq > claim.global_seq {
            return Err(Some(Answer::RetryGlobal { global_seq: session.peer_global_seq }));
        }
        if session.connect_seq > claim.connect_seq {
            return Err(Some(Answer::Retry { connect_seq: session.connect_seq }));
        }
        let crossing = session.connect_seq == claim.connect_seq;
        if crossing && !self.loses_to(&addr) {
            return Err(Some(Answer::Wait));
        }
        Ok(id)
    }

    /// The peer was told to wait for our connection: it comes now.
    fn follow_through(&mut self, addrs: &EntityAddrVec) {
        let addr = addrs.msgr2().unwrap_or_default();
        let Some(&id) = self.by_addr.get(&AddrKey::of(&addr)) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.wanted = true;
        let idle = matches!(session.link, Link::Backoff { .. } | Link::Standby);
        if idle {
            self.dial(id);
        }
    }
}
