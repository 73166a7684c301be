//! Commands to the active manager: finding it, and asking again when it changes or goes away.
//!
//! Without I/O. Invariant: at most one connection is open or being opened; a command is answered
//! once, or cancelled, however many managers come and go.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use spirula_maps::MgrMap;
use spirula_wire::msg::command::{Command, CommandReply};
use spirula_wire::msg::mgr::{MgrCommand, MgrCommandReply};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddr, Uuid};
use spirula_wire::{DecodeError, Features, Message as _, RawMessage};

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};

pub(crate) type MgrConnId = u64;

#[derive(Debug)]
pub(crate) enum Action {
    Connect { conn: MgrConnId, addr: EntityAddr },
    Send { conn: MgrConnId, message: RawMessage },
    Close { conn: MgrConnId },
    Done { tid: u64, r: i32, rs: String, outbl: Bytes },
}

/// Which of the two doors of a manager a command goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// What the monitors' descriptions send there.
    Cluster,
    /// `ceph tell mgr`.
    Daemon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Connecting(MgrConnId),
    Open(MgrConnId),
}

struct Pending {
    door: Door,
    cmd: String,
    inbl: Bytes,
    sent: bool,
}

pub(crate) struct MgrClient {
    fsid: Uuid,
    /// Address and global id of the active manager.
    active: Option<(EntityAddr, u64)>,
    state: State,
    last_conn: MgrConnId,
    failures: u32,
    retry_at: Duration,
    last_tid: u64,
    pending: BTreeMap<u64, Pending>,
    actions: VecDeque<Action>,
}

impl MgrClient {
    pub(crate) fn new() -> Self {
        Self {
            fsid: Uuid::default(),
            active: None,
            state: State::Idle,
            last_conn: 0,
            failures: 0,
            retry_at: Duration::ZERO,
            last_tid: 0,
            pending: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn set_fsid(&mut self, fsid: Uuid) {
        self.fsid = fsid;
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let waits = self.state == State::Idle && self.active.is_some();
        (waits && !self.pending.is_empty()).then_some(self.retry_at)
    }

    pub(crate) fn submit(&mut self, now: Duration, door: Door, cmd: String, inbl: Bytes) -> u64 {
        self.last_tid += 1;
        let pending = Pending { door, cmd, inbl, sent: false };
        self.pending.insert(self.last_tid, pending);
        self.go_on(now);
        self.last_tid
    }

    pub(crate) fn cancel(&mut self, tid: u64) {
        self.pending.remove(&tid);
    }

    pub(crate) fn handle_map(&mut self, now: Duration, map: &MgrMap) {
        let addr = map.active_addrs.msgr2().filter(|_| map.available);
        let active = addr.map(|addr| (addr, map.active_gid));
        if active == self.active {
            return;
        }
        self.active = active;
        if let State::Connecting(conn) | State::Open(conn) = self.state {
            self.actions.push_back(Action::Close { conn });
            self.lost();
        }
        self.failures = 0;
        self.retry_at = now;
        self.go_on(now);
    }

    pub(crate) fn handle_connected(&mut self, now: Duration, conn: MgrConnId) {
        if self.state == State::Connecting(conn) {
            self.state = State::Open(conn);
            self.failures = 0;
            self.go_on(now);
        }
    }

    pub(crate) fn handle_closed(&mut self, now: Duration, conn: MgrConnId) {
        if self.state != State::Connecting(conn) && self.state != State::Open(conn) {
            return;
        }
        self.lost();
        self.retry_at = now + (BACKOFF_MIN * (1 << self.failures.min(10))).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        self.go_on(now);
    }

    pub(crate) fn handle_message(&mut self, now: Duration, conn: MgrConnId, raw: &RawMessage) {
        if self.state != State::Open(conn) {
            return;
        }
        if let Err(error) = self.dispatch(raw) {
            tracing::warn!("closing the session with the manager: {error}");
            self.actions.push_back(Action::Close { conn });
            self.handle_closed(now, conn);
        }
    }

    fn dispatch(&mut self, raw: &RawMessage) -> Result<(), DecodeError> {
        let (door, r, rs, outbl) = match raw.header.type_ {
            types::MGR_COMMAND_REPLY => {
                let m = MgrCommandReply::from_raw(raw)?;
                (Door::Cluster, m.r, m.rs, m.outbl)
            }
            types::COMMAND_REPLY => {
                let m = CommandReply::from_raw(raw)?;
                (Door::Daemon, m.r, m.rs, m.outbl)
            }
            _ => return Ok(()),
        };
        let tid = raw.header.tid;
        let answered = |p: &Pending| p.door == door && p.sent;
        if self.pending.get(&tid).is_some_and(answered) {
            self.pending.remove(&tid);
            self.actions.push_back(Action::Done { tid, r, rs, outbl });
        }
        Ok(())
    }

    fn lost(&mut self) {
        self.state = State::Idle;
        self.pending.values_mut().for_each(|p| p.sent = false);
    }

    /// Connects if there is a reason to, or sends what has not been sent.
    fn go_on(&mut self, now: Duration) {
        let fsid = self.fsid;
        match (self.state, self.active) {
            (State::Idle, Some((addr, _))) if !self.pending.is_empty() && now >= self.retry_at => {
                self.last_conn += 1;
                let conn = self.last_conn;
                self.state = State::Connecting(conn);
                self.actions.push_back(Action::Connect { conn, addr });
            }
            (State::Open(conn), _) => {
                for (&tid, pending) in self.pending.iter_mut().filter(|(_, p)| !p.sent) {
                    pending.sent = true;
                    let message = pending.encode(tid, fsid);
                    self.actions.push_back(Action::Send { conn, message });
                }
            }
            _ => {}
        }
    }
}

impl Pending {
    fn encode(&self, tid: u64, fsid: Uuid) -> RawMessage {
        let cmd = vec![self.cmd.clone()];
        let inbl = self.inbl.clone();
        match self.door {
            Door::Cluster => MgrCommand { fsid, cmd, inbl }.to_raw(tid, Features::PACIFIC),
            Door::Daemon => Command { fsid, cmd, inbl }.to_raw(tid, Features::PACIFIC),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(1);

    fn map(gid: u64, port: u16) -> MgrMap {
        let addr = EntityAddr::msgr2(([127, 0, 0, 1], port).into(), 7);
        MgrMap { active_gid: gid, available: true, active_addrs: addr.into(), ..MgrMap::default() }
    }

    fn sent(mgr: &mut MgrClient) -> Vec<u64> {
        let actions = std::iter::from_fn(|| mgr.poll_action());
        actions
            .filter_map(|a| match a {
                Action::Send { message, .. } => Some(message.header.tid),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn commands_survive_a_change_of_the_active_manager() {
        let mut mgr = MgrClient::new();
        let tid = mgr.submit(T, Door::Cluster, "{}".into(), Bytes::new());
        assert!(mgr.poll_action().is_none() && mgr.poll_timeout().is_none());
        mgr.handle_map(T, &map(1, 1000));
        assert!(matches!(mgr.poll_action(), Some(Action::Connect { conn: 1, .. })));
        mgr.handle_connected(T, 1);
        assert_eq!(sent(&mut mgr), [tid]);
        mgr.handle_map(T, &map(2, 1001));
        assert!(matches!(mgr.poll_action(), Some(Action::Close { conn: 1 })));
        mgr.handle_connected(T, 2);
        assert_eq!(sent(&mut mgr), [tid]);
        let reply = MgrCommandReply { r: -22, ..MgrCommandReply::default() };
        let raw = reply.to_raw(tid, Features::PACIFIC);
        mgr.handle_message(T, 1, &raw);
        assert!(mgr.poll_action().is_none());
        mgr.handle_message(T, 2, &raw);
        assert!(matches!(mgr.poll_action(), Some(Action::Done { r: -22, .. })));
        mgr.handle_closed(T, 2);
        assert_eq!(mgr.poll_timeout(), None);
    }
}
