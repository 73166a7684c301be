//! A client on a simulated host: the monitor client and the objecter over simulated sessions.
//!
//! Invariant: the core is never borrowed while anything waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{AuthError, ConnectAuth, Principal};
use spirula_client::objecter::{
    self, Failure, Objecter, OpReply, OpRequest, OpTarget, Reply, SessionId, Work,
};
use spirula_monc::{self as monc, ConnId, MonClient};
use spirula_msgr::on_xstream::{self, Event, Session, now};
use spirula_msgr::{AuthFailure, CloseReason, Config, Now, ProtocolError, Target};
use spirula_wire::RawMessage;
use spirula_wire::msg::osd_op::{OsdOp, flag};
use spirula_wire::types::{
    EntityAddr, EntityAddrVec, EntityName, EntityType, ObjectLocator, SnapContext, SnapId, UTime,
};
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

/// A handle of a client; clones reach the same one. Only for tasks of its own host.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

struct Inner {
    core: RefCell<Core>,
    /// A deadline may have moved.
    stirred: Notify,
}

struct Core {
    monc: MonClient,
    objecter: Objecter,
    /// `None` until the handshake is complete.
    links: BTreeMap<Peer, Option<Session>>,
    waiters: BTreeMap<u64, OneshotSender<Result<Reply, Failure>>>,
    /// The question behind [`objecter::Action::AskNewest`].
    newest_tid: Option<u64>,
    nonce: u32,
    global_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
            links: BTreeMap::new(),
            waiters: BTreeMap::new(),
            newest_tid: None,
            nonce: spirula_xstream::random_u64() as u32 | 1,
            global_seq: 0,
        };
        let client = Self(Rc::new(Inner { core: RefCell::new(core), stirred: Notify::new() }));
        client.with(|core, now| core.monc.subscribe(now, "osdmap", 0, false));
        drop(spawn(Class::Client, client.clone().run_timers()));
        client
    }

    /// Carries out operations on one object, atomically, however long it takes.
    pub async fn op(
        &self,
        pool: i64,
        oid: &str,
        ops: Vec<OsdOp>,
        write: bool,
    ) -> Result<OpReply, OpError> {
        let request = OpRequest {
            target: OpTarget::Object {
                locator: ObjectLocator::pool(pool),
                oid: Bytes::copy_from_slice(oid.as_bytes()),
            },
            ops,
            flags: flag::ONDISK | if write { flag::WRITE } else { flag::READ },
            snap: SnapId::HEAD,
            snapc: SnapContext::default(),
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

    /// Gives the cores an input and carries out what follows from it.
    fn with<R>(&self, input: impl FnOnce(&mut Core, Now) -> R) -> R {
        let now = now();
        let mut core = self.0.core.borrow_mut();
        let result = input(&mut core, now);
        loop {
            if let Some(action) = core.monc.poll_action() {
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

    fn do_monc(&self, core: &mut Core, now: Now, action: monc::Action) {
        match action {
            monc::Action::Connect { conn, addr, auth } => {
                let addr = EntityAddr::msgr2(addr, 0);
                self.connect(core, Peer::Mon(conn), EntityType::MON, addr, auth);
            }
            monc::Action::Send { conn, message } => core.send(Peer::Mon(conn), message),
            monc::Action::Keepalive { conn } => {
                if let Some(Some(session)) = core.links.get(&Peer::Mon(conn)) {
                    session.keepalive();
                }
            }
            monc::Action::Close { conn } => core.close(Peer::Mon(conn)),
            monc::Action::Event(event) => core.take_event(now, event),
        }
    }

    fn do_objecter(&self, core: &mut Core, now: Now, action: objecter::Action) {
        use objecter::Action;
        match action {
            Action::Connect { session, addr, .. } => {
                match core.monc.authorizer_for(EntityType::OSD) {
                    Ok(auth) => {
                        let peer = Peer::Osd(session);
                        self.connect(core, peer, EntityType::OSD, addr, Box::new(auth));
                    }
                    Err(_) => core.objecter.handle_closed(now.mono, session),
                }
            }
            Action::Send { session, message } => core.send(Peer::Osd(session), message),
            Action::Close { session } => core.close(Peer::Osd(session)),
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

    fn connect(
        &self,
        core: &mut Core,
        peer: Peer,
        type_: EntityType,
        addr: EntityAddr,
        auth: Box<dyn ConnectAuth>,
    ) {
        core.links.insert(peer, None);
        core.global_seq += 1;
        let config = Config {
            nonce: core.nonce,
            global_seq: core.global_seq,
            ..Config::new(client_name(core.monc.global_id()), EntityAddrVec::default())
        };
        let client = self.clone();
        drop(spawn(Class::Client, async move {
            let handler = client.clone();
            let dispatch =
                move |session: &Session, event: Event| handler.handle(peer, session, event);
            let target = Target { type_, addr };
            let connecting = on_xstream::connect(Class::Client, config, target, auth, dispatch);
            if connecting.await.is_err() {
                client.with(|core, now| core.lost(now, peer, None));
            }
        }));
    }

    fn handle(&self, peer: Peer, session: &Session, event: Event) {
        self.with(|core, now| match event {
            Event::Ready(info) => {
                let Some(link) = core.links.get_mut(&peer) else {
                    return session.close();
                };
                *link = Some(session.clone());
                match peer {
                    Peer::Mon(conn) => core.monc.handle_connected(now, conn, info.grant),
                    Peer::Osd(id) => core.objecter.handle_connected(now.mono, id),
                }
            }
            Event::Message(incoming) => match peer {
                Peer::Mon(conn) => core.monc.handle_message(now, conn, incoming.raw.clone()),
                Peer::Osd(id) => core.objecter.handle_message(now.mono, id, &incoming.raw),
            },
            Event::Closed(reason) => core.lost(now, peer, refusal(reason)),
        });
    }
}

impl Core {
    fn send(&mut self, peer: Peer, message: RawMessage) {
        if let Some(Some(session)) = self.links.get(&peer) {
            session.send(message);
        }
    }

    fn close(&mut self, peer: Peer) {
        if let Some(Some(session)) = self.links.remove(&peer) {
            session.close();
        }
    }

    fn lost(&mut self, now: Now, peer: Peer, refused: Option<AuthError>) {
        if self.links.remove(&peer).is_none() {
            return;
        }
        match peer {
            Peer::Mon(conn) => self.monc.handle_closed(now, conn, refused),
            Peer::Osd(id) => {
                if refused.is_some() {
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

fn refusal(reason: CloseReason) -> Option<AuthError> {
    match reason {
        CloseReason::Protocol(ProtocolError::Auth(AuthFailure::Connector(e))) => Some(e),
        _ => None,
    }
}
