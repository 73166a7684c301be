//! Sessions with OSDs: opening, losing and opening them again, and what may be sent on them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spirula_wire::msg::command::Ping;
use spirula_wire::msg::osd::{OsdBackoff, backoff_op};
use spirula_wire::types::{EntityAddr, HObject, SpgId};
use spirula_wire::{Features, Message as _};

use super::op::{Op, Work};
use super::{Action, Objecter, SessionId};
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, BACKOFFS_MAX, LAGGY_AFTER};

pub(super) struct OsdSession {
    pub(super) id: SessionId,
    pub(super) addr: EntityAddr,
    state: State,
    failures: u32,
    pub(super) ops: BTreeSet<u64>,
    /// By their numbers: what the OSD does not want to hear of.
    backoffs: BTreeMap<u64, Backoff>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    /// Lost; to be opened again.
    Waiting {
        until: Duration,
    },
}

struct Backoff {
    pg: SpgId,
    begin: HObject,
    end: HObject,
}

impl Backoff {
    fn covers(&self, pg: SpgId, object: &HObject) -> bool {
        let inside = *object >= self.begin && *object < self.end;
        self.pg == pg && (inside || self.begin == self.end && *object == self.begin)
    }
}

impl OsdSession {
    pub(super) fn retry_at(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            _ => None,
        }
    }

    fn is_held_back(&self, op: &Op) -> bool {
        let Work::Op(request) = &op.work else {
            return false;
        };
        if self.backoffs.is_empty() {
            return false;
        }
        let object = op.message(request, 0, Features::PACIFIC).object();
        self.backoffs.values().any(|b| b.covers(op.pg, &object))
    }
}

impl Objecter {
    /// Says something on the sessions that owe an answer for long: one whose other end is gone without
    /// a word breaks then, and its requests go out again.
    pub(super) fn ping_laggy(&mut self, now: Duration) {
        let laggy = |tid: &u64| {
            let sent_at = self.ops.get(tid).and_then(|op| op.sent_at);
            sent_at.is_some_and(|at| at + LAGGY_AFTER <= now)
        };
        let open = self.sessions.values().filter(|session| session.state == State::Open);
        for session in open.filter(|session| session.ops.iter().any(laggy)) {
            let message = Ping::default().to_raw(0, Features::PACIFIC);
            self.actions.push_back(Action::Send { session: session.id, message });
        }
    }

    /// A session is open; its requests go out.
    pub fn handle_connected(&mut self, now: Duration, session: SessionId) {
        let Some(osd) = self.osd_of(session) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&osd) {
            session.state = State::Open;
            session.failures = 0;
            let tids: Vec<u64> = session.ops.iter().copied().collect();
            for tid in tids {
                self.send(now, tid);
            }
        }
    }

    /// A session could not be opened, or has ended. What was unanswered goes out again on the next
    /// one, and if the OSD is really gone, the next map says so.
    pub fn handle_closed(&mut self, now: Duration, session: SessionId) {
        let Some(osd) = self.osd_of(session) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&osd) else {
            return;
        };
        session.backoffs.clear();
        for tid in &session.ops {
            if let Some(op) = self.ops.get_mut(tid) {
                op.sent_at = None;
            }
        }
        if session.ops.is_empty() {
            self.sessions.remove(&osd);
            return;
        }
        // The first time at once.
        let pause = match session.failures {
            0 => Duration::ZERO,
            n => (BACKOFF_MIN * (1 << (n - 1).min(10))).min(BACKOFF_MAX),
        };
        session.failures = session.failures.saturating_add(1);
        session.state = State::Waiting { until: now + pause };
        self.retry_sessions(now);
        self.want_newer();
    }

    pub(super) fn retry_sessions(&mut self, now: Duration) {
        self.sessions.retain(|_, s| s.retry_at().is_none() || !s.ops.is_empty());
        for (&osd, session) in &mut self.sessions {
            if session.retry_at().is_some_and(|at| at <= now) {
                self.last_session += 1;
                session.id = self.last_session;
                session.state = State::Connecting;
                self.actions.push_back(Action::Connect {
                    session: session.id,
                    osd,
                    addr: session.addr,
                });
            }
        }
    }

    pub(super) fn osd_of(&self, session: SessionId) -> Option<i32> {
        let found = self.sessions.iter().find(|(_, s)| s.id == session);
        found.map(|(osd, _)| *osd)
    }

    /// Gives a request to an OSD and sends it when the session is open.
    pub(super) fn assign(&mut self, now: Duration, tid: u64, osd: i32, pg: SpgId, hash: u32) {
        let Some(op) = self.ops.get(&tid) else {
            return;
        };
        if op.osd == Some(osd) && op.pg == pg {
            return;
        }
        self.unassign(tid);
        if !self.ensure_session(osd) {
            return self.want_newer();
        }
        self.homeless.remove(&tid);
        if let Some(op) = self.ops.get_mut(&tid) {
            op.osd = Some(osd);
            op.pg = pg;
            op.hash = hash;
        }
        if let Some(session) = self.sessions.get_mut(&osd) {
            session.ops.insert(tid);
        }
        self.send(now, tid);
    }

    /// Takes a request back from its OSD.
    pub(super) fn unassign(&mut self, tid: u64) {
        let Some(op) = self.ops.get_mut(&tid) else {
            return;
        };
        op.sent_at = None;
        if let Some(osd) = op.osd.take()
            && let Some(session) = self.sessions.get_mut(&osd)
        {
            session.ops.remove(&tid);
        }
        self.homeless.insert(tid);
    }

    /// False if the map knows no address.
    fn ensure_session(&mut self, osd: i32) -> bool {
        if self.sessions.contains_key(&osd) {
            return true;
        }
        let addrs = self.maps.current().client_addrs(osd);
        let Some(addr) = addrs.and_then(|a| a.msgr2()) else {
            return false;
        };
        self.last_session += 1;
        let id = self.last_session;
        self.sessions.insert(
            osd,
            OsdSession {
                id,
                addr,
                state: State::Connecting,
                failures: 0,
                ops: BTreeSet::new(),
                backoffs: BTreeMap::new(),
            },
        );
        self.actions.push_back(Action::Connect { session: id, osd, addr });
        true
    }

    /// Closes sessions with OSDs that are down or elsewhere; their requests become homeless.
    pub(super) fn drop_stale_sessions(&mut self) {
        let Some(map) = self.map().cloned() else {
            return;
        };
        let is_stale = |osd: i32, session: &OsdSession| {
            let addr = map.client_addrs(osd).and_then(|a| a.msgr2());
            !map.is_up(osd) || addr != Some(session.addr)
        };
        let stale = self.sessions.iter().filter(|(osd, s)| is_stale(**osd, s));
        let stale: Vec<i32> = stale.map(|(osd, _)| *osd).collect();
        for osd in stale {
            let Some(session) = self.sessions.remove(&osd) else {
                continue;
            };
            if session.retry_at().is_none() {
                self.actions.push_back(Action::Close { session: session.id });
            }
            for tid in session.ops {
                self.unassign(tid);
            }
        }
    }

    /// Sends a request if its session takes it and it has not gone out there yet.
    pub(super) fn send(&mut self, now: Duration, tid: u64) {
        let epoch = self.epoch();
        let fsid = self.maps.current().fsid;
        let Some(op) = self.ops.get_mut(&tid) else {
            return;
        };
        let session = op.osd.and_then(|osd| self.sessions.get(&osd));
        let Some(session) = session.filter(|s| s.state == State::Open) else {
            return;
        };
        if op.sent_at.is_some() || session.is_held_back(op) {
            return;
        }
        let message = op.encode(tid, epoch, fsid);
        op.sent_at = Some(now);
        op.attempts += 1;
        self.actions.push_back(Action::Send { session: session.id, message });
    }

    pub(super) fn handle_backoff(&mut self, now: Duration, osd: i32, message: OsdBackoff) {
        let Some(session) = self.sessions.get_mut(&osd) else {
            return;
        };
        match message.op {
            backoff_op::BLOCK if session.backoffs.len() < BACKOFFS_MAX => {
                let ack = OsdBackoff {
                    op: backoff_op::ACK_BLOCK,
                    map_epoch: self.maps.epoch(),
                    ..message.clone()
                };
                let backoff = Backoff { pg: message.pgid, begin: message.begin, end: message.end };
                session.backoffs.insert(message.id, backoff);
                self.actions.push_back(Action::Send {
                    session: session.id,
                    message: ack.to_raw(0, Features::PACIFIC),
                });
            }
            backoff_op::UNBLOCK => {
                let Some(freed) = session.backoffs.remove(&message.id) else {
                    return;
                };
                // The OSD has dropped what it held back.
                let tids: Vec<u64> = session.ops.iter().copied().collect();
                for tid in tids {
                    if self.forget_sent(tid, &freed) {
                        self.send(now, tid);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the request was in the backoff; it then counts as not sent.
    fn forget_sent(&mut self, tid: u64, freed: &Backoff) -> bool {
        let Some(op) = self.ops.get_mut(&tid) else {
            return false;
        };
        let Work::Op(request) = &op.work else {
            return false;
        };
        let object = op.message(request, 0, Features::PACIFIC).object();
        let inside = freed.covers(op.pg, &object);
        if inside {
            op.sent_at = None;
        }
        inside
    }
}
