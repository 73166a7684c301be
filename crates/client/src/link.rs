//! What joins the cores (monitor client, objecter, manager client) with sessions on tokio, and with
//! the callers who wait.
//!
//! Invariants: the cores are only touched under one lock, and under it nothing waits and no caller's
//! code runs; after every input the actions of all cores are carried out before the lock goes;
//! when the last handle of a cluster is dropped, every session is closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use spirula_auth::{AuthError, ConnectAuth};
use spirula_maps::{MgrMap, OsdMap};
use spirula_monc::{self as monc, MonClient};
use spirula_msgr::on_tokio::{self, Event, Session};
use spirula_msgr::{Config as MsgrConfig, MonAction, MonSessions, Now, Outbox, Target};
use spirula_wire::msg::command::CommandReply;
use spirula_wire::msg::mon::{Log, LogEntry};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddrVec, EntityType};
use spirula_wire::{Decode as _, Message as _, RawMessage};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::config::{ConnectConfig, client_name};
use crate::error::{Error, SetupError};
use crate::limits::{INFLIGHT_BYTES_MAX, INFLIGHT_OPS_MAX};
use crate::mgrc::{self, MgrClient, MgrConnId};
use crate::objecter::{self, Failure, Objecter, Reply, SessionId};

/// Bytes in flight are counted in units of this many.
pub(crate) const INFLIGHT_UNIT: u64 = 1024;

/// What callers may wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) connected: bool,
    /// Of the newest OSD map.
    pub(crate) epoch: u32,
    /// Why a monitor did not let us in, before the first session.
    pub(crate) refused: Option<AuthError>,
}

/// A daemon we have, or are opening, a session with; the monitors are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Peer {
    Osd(SessionId),
    Mgr(MgrConnId),
}

/// A manager's or daemon's answer to a command.
pub(crate) type CommandSender = oneshot::Sender<CommandReply>;

pub(crate) struct Core {
    pub(crate) monc: MonClient,
    pub(crate) objecter: Objecter,
    pub(crate) mgrc: MgrClient,
    mons: MonSessions<Arc<Mutex<Outbox>>>,
    links: HashMap<Peer, Session>,
    pub(crate) mon_waiters: HashMap<u64, oneshot::Sender<monc::Reply>>,
    pub(crate) op_waiters: HashMap<u64, oneshot::Sender<Result<Reply, Failure>>>,
    pub(crate) mgr_waiters: HashMap<u64, CommandSender>,
    /// Commands to the monitor itself.
    pub(crate) tell_waiters: HashMap<u64, CommandSender>,
    pub(crate) log_watchers: Vec<mpsc::Sender<LogEntry>>,
    /// The question behind [`objecter::Action::AskNewest`].
    newest_tid: Option<u64>,
    nonce: u32,
    global_seq: u64,
    /// When the timer task wakes next.
    armed: Option<Duration>,
}

pub(crate) struct Shared {
    pub(crate) config: ConnectConfig,
    core: Mutex<Core>,
    timer: Arc<Notify>,
    status: watch::Sender<Status>,
    pub(crate) inflight_ops: Semaphore,
    pub(crate) inflight_units: Semaphore,
}

impl Shared {
    /// Begins to look for a monitor.
    pub(crate) fn start(config: ConnectConfig) -> Result<Arc<Self>, Error> {
        let mut seed = [0; 32];
        let mut nonce = [0; 4];
        getrandom::fill(&mut seed).map_err(|_| SetupError::NoEntropy)?;
        getrandom::fill(&mut nonce).map_err(|_| SetupError::NoEntropy)?;
        let mut mon_config = monc::Config::new(config.principal.clone(), config.mons.clone());
        mon_config.methods.clone_from(&config.methods);
        mon_config.mon_modes.clone_from(&config.mon_modes);
        mon_config.service_modes.clone_from(&config.service_modes);
        mon_config.hostname.clone_from(&config.hostname);
        mon_config.keep_rotating = false;
        let core = Core {
            monc: MonClient::new(mon_config, seed),
            objecter: Objecter::new(),
            mgrc: MgrClient::new(),
            mons: MonSessions::default(),
            links: HashMap::new(),
            mon_waiters: HashMap::new(),
            op_waiters: HashMap::new(),
            mgr_waiters: HashMap::new(),
            tell_waiters: HashMap::new(),
            log_watchers: Vec::new(),
            newest_tid: None,
            nonce: u32::from_le_bytes(nonce),
            global_seq: 0,
            armed: None,
        };
        let timer = Arc::new(Notify::new());
        let units = (INFLIGHT_BYTES_MAX / INFLIGHT_UNIT) as usize;
        let shared = Arc::new(Self {
            config,
            core: Mutex::new(core),
            timer: Arc::clone(&timer),
            status: watch::Sender::new(Status::default()),
            inflight_ops: Semaphore::new(INFLIGHT_OPS_MAX),
            inflight_units: Semaphore::new(units),
        });
        tokio::spawn(run_timer(Arc::downgrade(&shared), timer));
        Ok(shared)
    }

    /// Gives the cores an input and carries out what follows from it.
    pub(crate) fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut Core, Now) -> R) -> R {
        let now = on_tokio::now();
        let mut core = self.lock();
        let result = f(&mut core, now);
        self.drain(&mut core, now);
        let next = core.next_timeout(now);
        self.arm(&mut core, next);
        result
    }

    /// As [`Self::with`], for requests and their answers: only the objecter is touched.
    pub(crate) fn with_objecter<R>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Core, Duration) -> R,
    ) -> R {
        let now = on_tokio::now();
        let mut core = self.lock();
        let result = f(&mut core, now.mono);
        let mut others = false;
        while let Some(action) = core.objecter.poll_action() {
            let plain =
                matches!(action, objecter::Action::Send { .. } | objecter::Action::Done { .. });
            others |= !plain;
            self.do_objecter(&mut core, now, action);
        }
        if others {
            self.drain(&mut core, now);
            let next = core.next_timeout(now);
            self.arm(&mut core, next);
        } else if let Some(next) = core.objecter.poll_timeout() {
            self.arm(&mut core, Some(next));
        }
        result
    }

    /// What is due; when to come back.
    fn tick(self: &Arc<Self>) -> Option<Duration> {
        let now = on_tokio::now();
        let mut core = self.lock();
        core.monc.handle_timeout(now);
        core.objecter.handle_timeout(now.mono);
        core.mgrc.handle_timeout(now.mono);
        self.drain(&mut core, now);
        core.armed = core.next_timeout(now);
        core.armed
    }

    /// Without carrying anything out: for getters, and for cancelling from destructors.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock ends this program's use of the client, not its memory safety.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) fn map(&self) -> Option<Arc<OsdMap>> {
        self.lock().objecter.map().cloned()
    }

    /// Wakes the timer task if something is due before it would wake by itself.
    fn arm(&self, core: &mut Core, next: Option<Duration>) {
        let Some(next) = next else {
            return;
        };
        if core.armed.is_none_or(|at| next < at) {
            core.armed = Some(next);
            self.timer.notify_one();
        }
    }

    fn drain(self: &Arc<Self>, core: &mut Core, now: Now) {
        loop {
            if let Some(action) = core.mons.poll(&mut core.monc) {
                self.do_monc(core, now, action);
            } else if let Some(action) = core.objecter.poll_action() {
                self.do_objecter(core, now, action);
            } else if let Some(action) = core.mgrc.poll_action() {
                self.do_mgrc(core, now, action);
            } else {
                return;
            }
        }
    }

    fn do_monc(self: &Arc<Self>, core: &mut Core, now: Now, action: MonAction) {
        match action {
            MonAction::Connect { conn, target, auth } => {
                let session = self.open(core, target, auth, move |shared, event| {
                    shared.with(|core, now| core.mons.handle(&mut core.monc, now, conn, event));
                });
                core.mons.opened(conn, session);
            }
            MonAction::Event(event) => self.take_event(core, now, event),
        }
    }

    fn take_event(&self, core: &mut Core, now: Now, event: monc::Event) {
        match event {
            monc::Event::Connected { .. } => self.status.send_modify(|s| s.connected = true),
            monc::Event::AuthFailed(error) => self.status.send_modify(|s| {
                if !s.connected {
                    s.refused = Some(error);
                }
            }),
            monc::Event::MonMap(map) => core.mgrc.set_fsid(map.fsid),
            monc::Event::OsdMap(maps) => core.objecter.handle_map(now.mono, &maps),
            monc::Event::MgrMap(bytes) => match MgrMap::from_bytes(&bytes) {
                Ok(map) => core.mgrc.handle_map(now.mono, &map),
                Err(error) => tracing::warn!("mgrmap ignored: {error}"),
            },
            monc::Event::Reply { tid, reply } if core.newest_tid == Some(tid) => {
                core.newest_tid = None;
                if let monc::Reply::Version { newest, .. } = reply {
                    let newest = u32::try_from(newest).unwrap_or(u32::MAX);
                    core.objecter.handle_newest(now.mono, newest);
                }
            }
            monc::Event::Reply { tid, reply } => {
                if let Some(waiter) = core.mon_waiters.remove(&tid) {
                    // Whoever gave up does not hear of it.
                    let _ = waiter.send(reply);
                }
            }
            monc::Event::Message(raw) => core.take_mon_message(&raw),
            // A command to the monitor itself is not repeated at another one.
            monc::Event::Disconnected => core.tell_waiters.clear(),
            monc::Event::Config(_) | monc::Event::RotatingKeys(_) => {}
        }
    }

    fn do_objecter(self: &Arc<Self>, core: &mut Core, now: Now, action: objecter::Action) {
        use objecter::Action;
        match action {
            Action::Connect { session, addr, osd } => {
                let peer = Peer::Osd(session);
                match core.monc.authorizer_for(EntityType::OSD) {
                    Ok(auth) => {
                        let type_ = EntityType::OSD;
                        self.connect(core, peer, Target { type_, addr }, Box::new(auth));
                    }
                    Err(error) => {
                        tracing::debug!(osd, "cannot connect yet: {error}");
                        core.objecter.handle_closed(now.mono, session);
                    }
                }
            }
            Action::Send { session, message } => core.send(Peer::Osd(session), message),
            Action::Close { session } => core.close(Peer::Osd(session)),
            Action::WantMap { start } => {
                core.monc.subscribe(now, "osdmap", start.into(), true);
            }
            Action::AskNewest => core.newest_tid = Some(core.monc.get_version(now, "osdmap")),
            Action::MapChanged { epoch } => {
                core.monc.got("osdmap", epoch.into());
                self.status.send_modify(|s| s.epoch = epoch);
            }
            Action::Done { tid, result } => {
                if let Some(waiter) = core.op_waiters.remove(&tid) {
                    let _ = waiter.send(result);
                }
            }
        }
    }

    fn do_mgrc(self: &Arc<Self>, core: &mut Core, now: Now, action: mgrc::Action) {
        use mgrc::Action;
        match action {
            Action::Connect { conn, addr } => match core.monc.authorizer_for(EntityType::MGR) {
                Ok(auth) => {
                    let type_ = EntityType::MGR;
                    self.connect(core, Peer::Mgr(conn), Target { type_, addr }, Box::new(auth));
                }
                Err(error) => {
                    tracing::debug!("cannot connect to the manager yet: {error}");
                    core.mgrc.handle_closed(now.mono, conn);
                }
            },
            Action::Send { conn, message } => core.send(Peer::Mgr(conn), message),
            Action::Close { conn } => core.close(Peer::Mgr(conn)),
            Action::Done { tid, r, rs, outbl } => {
                if let Some(waiter) = core.mgr_waiters.remove(&tid) {
                    let _ = waiter.send(CommandReply { r, rs, outbl });
                }
            }
        }
    }

    /// Opens a session with an OSD or a manager.
    fn connect(
        self: &Arc<Self>,
        core: &mut Core,
        peer: Peer,
        target: Target,
        auth: Box<dyn ConnectAuth>,
    ) {
        let session =
            self.open(core, target, auth, move |shared, event| shared.handle(peer, event));
        core.links.insert(peer, session);
    }

    /// Opens a session whose events go to `handle`, on the task that drives it.
    fn open(
        self: &Arc<Self>,
        core: &mut Core,
        target: Target,
        auth: Box<dyn ConnectAuth>,
        handle: impl Fn(&Arc<Self>, Event) + Send + 'static,
    ) -> Session {
        core.global_seq += 1;
        let name = client_name(core.monc.global_id());
        let mut config = MsgrConfig::new(name, EntityAddrVec::default());
        config.nonce = core.nonce;
        config.global_seq = core.global_seq;
        let weak = Arc::downgrade(self);
        on_tokio::open(config, target, auth, move |session: &Session, event: Event| {
            match weak.upgrade() {
                Some(shared) => handle(&shared, event),
                None => session.close(),
            }
        })
    }

    /// An event of a session with an OSD or a manager; one that was given up has no say any more.
    fn handle(self: &Arc<Self>, peer: Peer, event: Event) {
        match (peer, event) {
            (Peer::Osd(id), Event::Message(incoming)) => self.with_objecter(|core, now| {
                core.objecter.handle_message(now, id, &incoming.raw);
            }),
            (Peer::Mgr(conn), Event::Message(incoming)) => self.with(|core, now| {
                core.mgrc.handle_message(now.mono, conn, &incoming.raw);
            }),
            (_, Event::Ready(_)) => self.with(|core, now| core.ready(now, peer)),
            (_, Event::KeepaliveAck | Event::Session(_)) => {}
            (_, Event::Closed(reason)) => {
                tracing::debug!(?peer, "session ended: {reason}");
                self.with(|core, now| core.lost(now, peer, reason.refusal()));
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
        core.mons.close();
        core.links.values().for_each(Session::close);
        self.timer.notify_one();
    }
}

impl Core {
    fn send(&mut self, peer: Peer, message: RawMessage) {
        if let Some(session) = self.links.get(&peer) {
            session.send(message);
        }
    }

    fn close(&mut self, peer: Peer) {
        if let Some(session) = self.links.remove(&peer) {
            session.close();
        }
    }

    fn ready(&mut self, now: Now, peer: Peer) {
        if !self.links.contains_key(&peer) {
            return;
        }
        match peer {
            Peer::Osd(id) => self.objecter.handle_connected(now.mono, id),
            Peer::Mgr(conn) => self.mgrc.handle_connected(now.mono, conn),
        }
    }

    fn lost(&mut self, now: Now, peer: Peer, refused: Option<AuthError>) {
        if self.links.remove(&peer).is_none() {
            return;
        }
        let stale_ticket = refused.is_some();
        match peer {
            Peer::Osd(id) => {
                if stale_ticket {
                    self.monc.invalidate_ticket(now, EntityType::OSD);
                }
                self.objecter.handle_closed(now.mono, id);
            }
            Peer::Mgr(conn) => {
                if stale_ticket {
                    self.monc.invalidate_ticket(now, EntityType::MGR);
                }
                self.mgrc.handle_closed(now.mono, conn);
            }
        }
    }

    fn take_mon_message(&mut self, raw: &RawMessage) {
        match raw.header.type_ {
            types::LOG => {
                let Ok(log) = Log::from_raw(raw) else {
                    return;
                };
                self.log_watchers.retain(|watcher| {
                    let mut entries = log.entries.iter();
                    entries.all(|entry| {
                        use mpsc::error::TrySendError;
                        let sent = watcher.try_send(entry.clone());
                        !matches!(sent, Err(TrySendError::Closed(_)))
                    })
                });
            }
            types::COMMAND_REPLY => {
                if let Some(waiter) = self.tell_waiters.remove(&raw.header.tid)
                    && let Ok(reply) = CommandReply::from_raw(raw)
                {
                    let _ = waiter.send(reply);
                }
            }
            other => tracing::debug!(type_ = other, "message from the monitor ignored"),
        }
    }

    fn next_timeout(&self, now: Now) -> Option<Duration> {
        [self.monc.poll_timeout(now), self.objecter.poll_timeout(), self.mgrc.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

async fn run_timer(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let armed = strong.tick();
        drop(strong);
        let pause = armed.map(|at| at.saturating_sub(on_tokio::now().mono));
        // Without anything due, another input will notify.
        let pause = pause.unwrap_or(Duration::from_secs(3600));
        let _ = tokio::time::timeout(pause, wake.notified()).await;
    }
}
