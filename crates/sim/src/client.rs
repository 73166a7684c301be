//! A client on a simulated host: the monitor client and the objecter over simulated sessions.
//!
//! Invariant: the core is never borrowed while anything waits.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{ConnectAuth, Principal};
use spirula_client::objecter::{
    self, Failure, Objecter, OpReply, OpRequest, OpTarget, Reply, SessionId, Work,
};
use spirula_maps::PgMapDigest;
use spirula_monc::{self as monc, ConnId, MonClient, PoolRequest};
use spirula_msgr::on_xstream::{self, Event, Session, now};
use spirula_msgr::{Config, MonAction, MonSessions, Now, Outbox, Target};
use spirula_wire::msg::mgr::MonMgrReport;
use spirula_wire::msg::mon::pool_op;
use spirula_wire::msg::osd_op::{OsdOp, flag};
use spirula_wire::types::{
    EntityAddrVec, EntityName, EntityType, ObjectLocator, SnapContext, SnapId, UTime, pg_state,
};
use spirula_wire::{Encode, Features, Message};
use spirula_xstream::sync::{Notify, OneshotSender, oneshot};
use spirula_xstream::{Class, spawn, timeout};

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpError {
    /// The objecter gave up.
    Failed(Failure),
    /// The client is gone.
    Gone,
}

/// What the monitors answered to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReply {
    pub r: i32,
    pub out: Bytes,
    /// The epoch of the OSD map, if the command changed it.
    pub version: u64,
}

/// A handle of a client; clones reach the same one. Only for tasks of its own host.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

struct Inner {
    core: RefCell<Core>,
    /// A deadline may have moved.
    stirred: Notify,
    /// Any copy may answer reads.
    anywhere: Cell<bool>,
}

struct Core {
    monc: MonClient,
    objecter: Objecter,
    mons: MonSessions<Rc<RefCell<Outbox>>>,
    links: BTreeMap<SessionId, Session>,
    waiters: BTreeMap<u64, OneshotSender<Result<Reply, Failure>>>,
    commands: BTreeMap<u64, OneshotSender<CommandReply>>,
    /// The question behind [`objecter::Action::AskNewest`].
    newest_tid: Option<u64>,
    nonce: u32,
    global_seq: u64,
}

#[derive(Clone, Copy)]
enum Peer {
    Mon(ConnId),
    Osd(SessionId),
}

impl Client {
    /// Begins to look for a monitor; to be called on the client's host.
    pub fn start(principal: Principal, mons: Vec<SocketAddr>) -> Self {
        let mut seed = [0; 32];
        spirula_xstream::fill_random(&mut seed);
        let mut config = monc::Config::new(principal, mons);
        config.keep_rotating = false;
        let core = Core {
            monc: MonClient::new(config, seed),
            objecter: Objecter::new(),
            mons: MonSessions::default(),
            links: BTreeMap::new(),
            waiters: BTreeMap::new(),
            commands: BTreeMap::new(),
            newest_tid: None,
            nonce: spirula_xstream::random_u64() as u32 | 1,
            global_seq: 0,
        };
        let client = Self(Rc::new(Inner {
            core: RefCell::new(core),
            stirred: Notify::new(),
            anywhere: Cell::new(false),
        }));
        client.with(|core, now| core.monc.subscribe(now, "osdmap", 0, false));
        drop(spawn(Class::Client, client.clone().run_timers()));
        client
    }

    /// From now on any copy may answer reads.
    pub fn read_anywhere(&self) {
        self.0.anywhere.set(true);
    }

    /// Carries out operations on one object, atomically, however long it takes.
    pub async fn op(
        &self,
        pool: i64,
        oid: &str,
        ops: Vec<OsdOp>,
        write: bool,
    ) -> Result<OpReply, OpError> {
        self.op_at(pool, oid, ops, write, (SnapId::HEAD, SnapContext::default())).await
    }

    /// The same about a snapshot, or with a snapshot context.
    pub async fn op_at(
        &self,
        pool: i64,
        oid: &str,
        ops: Vec<OsdOp>,
        write: bool,
        (snap, snapc): (SnapId, SnapContext),
    ) -> Result<OpReply, OpError> {
        let request = OpRequest {
            target: OpTarget::Object {
                locator: ObjectLocator::pool(pool),
                oid: Bytes::copy_from_slice(oid.as_bytes()),
            },
            ops,
            flags: match (write, self.0.anywhere.get()) {
                (true, _) => flag::ONDISK | flag::WRITE,
                (false, false) => flag::ONDISK | flag::READ,
                (false, true) => flag::ONDISK | flag::READ | flag::BALANCE_READS,
            },
            snap,
            snapc,
            mtime: UTime::from(spirula_xstream::wall_now()),
        };
        let (sender, receiver) = oneshot();
        self.with(|core, now| {
            let tid = core.objecter.submit(now.mono, Work::Op(request), None);
            core.waiters.insert(tid, sender);
        });
        match receiver.await {
            Ok(Ok(Reply::Op(reply))) => Ok(reply),
            Ok(Err(failure)) => Err(OpError::Failed(failure)),
            Ok(Ok(Reply::Command(_))) | Err(_) => Err(OpError::Gone),
        }
    }

    /// Asks for another number of PGs; says, as the manager would, that those there are (`now`) are well.
    pub fn set_pg_num(&self, pool: &str, now: u32, wanted: u32) {
        let command = format!(
            r#"{{"prefix": "osd pool set", "pool": "{pool}", "var": "pg_num", "val": "{wanted}"}}"#
        );
        self.with(|core, at| core.monc.command(at, command, Bytes::new()));
        self.report_pgs(&[(pg_state::ACTIVE | pg_state::CLEAN, now)]);
    }

    /// Tells the monitor, as the manager would, how many PGs are in which state.
    pub fn report_pgs(&self, by_state: &[(u64, u32)]) {
        let digest = PgMapDigest {
            num_pg: by_state.iter().map(|(_, count)| i64::from(*count)).sum(),
            num_pg_by_state: by_state.iter().map(|(state, n)| (*state, *n as i32)).collect(),
            ..PgMapDigest::default()
        };
        let digest = digest.to_bytes(Features::PACIFIC).into();
        let report = MonMgrReport { digest, ..MonMgrReport::default() };
        self.with(|core, _| core.monc.send(report.to_raw(0, Features::PACIFIC)));
    }

    /// Runs a command at the monitors, however long it takes.
    pub async fn command(&self, text: &str) -> Result<CommandReply, OpError> {
        let (sender, receiver) = oneshot();
        self.with(|core, now| {
            let tid = core.monc.command(now, text, Bytes::new());
            core.commands.insert(tid, sender);
        });
        receiver.await.map_err(|_| OpError::Gone)
    }

    /// Has the monitors make a snapshot number of clients' own (`None`), or remove one; 0 if it is done.
    pub async fn own_snap(&self, pool: i64, remove: Option<u64>) -> Option<i32> {
        let (sender, receiver) = oneshot();
        let op = match remove {
            None => pool_op::CREATE_UNMANAGED_SNAP,
            Some(_) => pool_op::DELETE_UNMANAGED_SNAP,
        };
        let (pool, snap) = (pool as u32, SnapId(remove.unwrap_or_default()));
        self.with(|core, at| {
            let request = PoolRequest { pool, op, snap, ..PoolRequest::default() };
            let tid = core.monc.pool_op(at, request);
            core.commands.insert(tid, sender);
        });
        receiver.await.ok().map(|reply| reply.r)
    }

    /// The number of the session with the monitor, while there is one.
    pub fn mon_session(&self) -> Option<u64> {
        self.0.core.borrow().monc.session()
    }

    /// Gives the cores an input and carries out what follows from it.
    fn with<R>(&self, input: impl FnOnce(&mut Core, Now) -> R) -> R {
        let now = now();
        let mut core = self.0.core.borrow_mut();
        let result = input(&mut core, now);
        loop {
            let Core { mons, monc, .. } = &mut *core;
            if let Some(action) = mons.poll(monc) {
                self.do_monc(&mut core, now, action);
            } else if let Some(action) = core.objecter.poll_action() {
                self.do_objecter(&mut core, now, action);
            } else {
                break;
            }
        }
        self.0.stirred.notify_all();
        result
    }

    async fn run_timers(self) {
        loop {
            let due = self.with(|core, now| {
                core.monc.handle_timeout(now);
                core.objecter.handle_timeout(now.mono);
                let due = [core.monc.poll_timeout(now), core.objecter.poll_timeout()];
                due.into_iter().flatten().min()
            });
            let pause = due.map_or(Duration::from_secs(60), |at| at.saturating_sub(now().mono));
            // Either way the deadlines are looked at again.
            let _ = timeout(pause, self.0.stirred.notified()).await;
        }
    }

    fn do_monc(&self, core: &mut Core, now: Now, action: MonAction) {
        match action {
            MonAction::Connect { conn, target, auth } => {
                let session = self.open(core, Peer::Mon(conn), target, auth);
                core.mons.opened(conn, session);
            }
            MonAction::Event(event) => core.take_event(now, event),
        }
    }

    fn do_objecter(&self, core: &mut Core, now: Now, action: objecter::Action) {
        use objecter::Action;
        match action {
            Action::Connect { session, addr, .. } => {
                match core.monc.authorizer_for(EntityType::OSD) {
                    Ok(auth) => {
                        let target = Target { type_: EntityType::OSD, addr };
                        let opened = self.open(core, Peer::Osd(session), target, Box::new(auth));
                        core.links.insert(session, opened);
                    }
                    Err(_) => core.objecter.handle_closed(now.mono, session),
                }
            }
            Action::Send { session, message } => {
                if let Some(link) = core.links.get(&session) {
                    link.send(message);
                }
            }
            Action::Close { session } => {
                if let Some(link) = core.links.remove(&session) {
                    link.close();
                }
            }
            Action::WantMap { start } => core.monc.subscribe(now, "osdmap", start.into(), true),
            Action::AskNewest => core.newest_tid = Some(core.monc.get_version(now, "osdmap")),
            Action::MapChanged { epoch } => core.monc.got("osdmap", epoch.into()),
            Action::Done { tid, result } => {
                if let Some(waiter) = core.waiters.remove(&tid) {
                    // Whoever gave up does not hear of it.
                    let _ = waiter.send(result);
                }
            }
        }
    }

    fn open(
        &self,
        core: &mut Core,
        peer: Peer,
        target: Target,
        auth: Box<dyn ConnectAuth>,
    ) -> Session {
        core.global_seq += 1;
        let config = Config {
            nonce: core.nonce,
            global_seq: core.global_seq,
            ..Config::new(client_name(core.monc.global_id()), EntityAddrVec::default())
        };
        let client = self.clone();
        on_xstream::open(Class::Client, config, target, auth, move |_, event| {
            client.with(|core, now| match peer {
                Peer::Mon(conn) => core.mons.handle(&mut core.monc, now, conn, event),
                Peer::Osd(id) => core.handle_osd(now, id, event),
            });
        })
    }
}

impl Core {
    /// An event of a session with an OSD; one that was given up has no say any more.
    fn handle_osd(&mut self, now: Now, id: SessionId, event: Event) {
        if !self.links.contains_key(&id) {
            return;
        }
        match event {
            Event::Ready(_) => self.objecter.handle_connected(now.mono, id),
            Event::Message(incoming) => {
                self.objecter.handle_message(now.mono, id, &incoming.raw);
            }
            Event::KeepaliveAck | Event::Session(_) => {}
            Event::Closed(reason) => {
                self.links.remove(&id);
                if reason.refusal().is_some() {
                    self.monc.invalidate_ticket(now, EntityType::OSD);
                }
                self.objecter.handle_closed(now.mono, id);
            }
        }
    }

    fn take_event(&mut self, now: Now, event: monc::Event) {
        match event {
            monc::Event::OsdMap(maps) => self.objecter.handle_map(now.mono, &maps),
            monc::Event::Reply { tid, reply } if self.newest_tid == Some(tid) => {
                self.newest_tid = None;
                if let monc::Reply::Version { newest, .. } = reply {
                    let newest = u32::try_from(newest).unwrap_or(u32::MAX);
                    self.objecter.handle_newest(now.mono, newest);
                }
            }
            monc::Event::Reply { tid, reply } => {
                let answer = match reply {
                    monc::Reply::Command { r, outbl, version, .. } => {
                        CommandReply { r, out: outbl, version }
                    }
                    monc::Reply::PoolOp { r, epoch, .. } => {
                        CommandReply { r, out: Bytes::new(), version: epoch.into() }
                    }
                    _ => return,
                };
                if let Some(waiter) = self.commands.remove(&tid) {
                    // Whoever gave up does not hear of it.
                    let _ = waiter.send(answer);
                }
            }
            monc::Event::AuthFailed(e) => tracing::warn!("the monitor refuses the client: {e}"),
            _ => {}
        }
    }
}

/// A client's name in the messenger: `client.-1` before the monitor gave it a number.
fn client_name(global_id: u64) -> EntityName {
    match i64::try_from(global_id) {
        Ok(0) | Err(_) => EntityName::client(-1),
        Ok(id) => EntityName::client(id),
    }
}
