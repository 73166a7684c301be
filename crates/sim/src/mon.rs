//! The monitor's service on a simulated host.
//!
//! Its log outlives the host ([`MemoryStorage`]); an append takes a while, and one that has not
//! ended when the host loses power never happened.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spirula_auth::{
    ConMode, EntityAuth, KeyServer, METHOD_CEPHX, MonAcceptor, MonConnectConfig, MonConnector,
    MonGrant, Principal, RotatingSecrets,
};
use spirula_mon::storage::Write;
use spirula_mon::{Action, MemoryStorage, Now, Peer, Service, ServiceConfig, Storage};
use spirula_msgr::on_xstream::{self, Event, Session};
use spirula_msgr::{Accepted, Config, Target, Timeouts};
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityNameStr, EntityType};
use spirula_xstream::sync::{QueueReceiver, QueueSender, queue};
use spirula_xstream::{Class, TcpListener, random_u64, sleep, sleep_until, spawn};

/// What a monitor is started with.
#[derive(Clone, Debug)]
pub struct MonConfig {
    /// `a` of `mon.a`.
    pub name: String,
    pub storage: MemoryStorage,
    pub options: BTreeMap<String, String>,
    /// How long an append takes at most.
    pub append_max: Duration,
    /// Set once the monitor has seen that it is none any more.
    pub removed: Rc<Cell<bool>>,
}

/// Serves until the host ends. Panics on what only a broken monitor does: it is a test that fails.
pub(crate) async fn run(mut config: MonConfig) {
    let (state, stored) = match spirula_mon::open(&mut config.storage, None) {
        Ok(opened) => opened,
        Err(e) => panic!("the monitor's store does not open: {e}"),
    };
    let addrs = spirula_mon::addrs_of(&state, &stored, &config.name);
    let name = EntityName::mon(state.monmap.rank_of(&config.name));
    let Some(addr) = addrs.msgr2().and_then(|a| a.addr) else {
        return config.removed.set(true);
    };
    let listener = match TcpListener::bind(addr) {
        Ok(listener) => listener,
        Err(e) => panic!("mon.{} cannot listen on {addr}: {e}", config.name),
    };
    let mut seed = [0; 32];
    spirula_xstream::fill_random(&mut seed);
    let service_config = ServiceConfig {
        name: config.name.clone(),
        options: config.options.clone(),
        seed,
        ..ServiceConfig::default()
    };
    let (appends, work) = queue();
    let mon = Rc::new(Mon {
        service: Arc::new(Mutex::new(Service::new(service_config, state, &stored, now()))),
        sessions: RefCell::default(),
        peers: RefCell::default(),
        removed: config.removed.clone(),
        appends,
    });
    mon.with(|_, _| ());
    drop(spawn(Class::Client, links(mon.clone(), name, addrs.clone())));
    drop(spawn(Class::Client, commit(mon.clone(), config, work)));
    drop(spawn(Class::Client, tick(mon.clone())));
    serve(mon, listener, name, addrs).await;
}

struct Mon {
    /// Handshakes look keys up through a handle that the messenger wants to be `Send`.
    service: Arc<Mutex<Service>>,
    sessions: RefCell<BTreeMap<u64, Session>>,
    /// Open ways to other monitors, by name.
    peers: RefCell<BTreeMap<String, Session>>,
    /// It is no member any more and serves nobody.
    removed: Rc<Cell<bool>>,
    appends: QueueSender<Work>,
}

/// A batch for the store, by number.
type Work = (u64, Vec<Write>);

impl Mon {
    /// Runs an input and then does what the service wants.
    fn with(&self, input: impl FnOnce(&mut Service, Now)) {
        let mut service = lock(&self.service);
        input(&mut service, now());
        while let Some(action) = service.poll_action() {
            self.perform(action);
        }
    }

    fn perform(&self, action: Action) {
        let sessions = self.sessions.borrow();
        let work = match action {
            Action::Send(id, raw) | Action::Log(_, id, raw) => {
                return sessions.get(&id).into_iter().for_each(|s| s.send(raw.clone()));
            }
            Action::OptionsChanged => return,
            Action::Removed => {
                self.removed.set(true);
                self.peers.borrow().values().for_each(Session::close);
                return sessions.values().for_each(Session::close);
            }
            Action::Close(id) => return sessions.get(&id).into_iter().for_each(Session::close),
            Action::Peer(name, raw) => {
                return self
                    .peers
                    .borrow()
                    .get(&name)
                    .into_iter()
                    .for_each(|s| s.send(raw.clone()));
            }
            Action::Fail(why) => panic!("the monitor stops: {why}"),
            Action::Write(number, writes) => (number, writes),
        };
        // The committer lives as long as the host.
        let _ = self.appends.send(work);
    }

    fn handle(&self, session: &Session, event: Event) {
        let id = session.id();
        match event {
            Event::Ready(peer) => {
                let (addrs, socket_addr) = (peer.addrs, peer.socket_addr);
                let features = peer.features.0;
                let Some(auth) = peer.auth else {
                    return session.close();
                };
                let peer = Peer { auth, addrs, socket_addr, features };
                self.sessions.borrow_mut().insert(id, session.clone());
                self.with(|service, now| service.session_opened(now, id, peer));
            }
            Event::Message(incoming) => {
                self.with(|service, now| service.message(now, id, incoming.raw.clone()));
            }
            Event::KeepaliveAck | Event::Session(_) => {}
            Event::Closed(_) => {
                self.sessions.borrow_mut().remove(&id);
                self.with(|service, now| service.session_closed(now, id));
            }
        }
    }
}

fn lock(service: &Mutex<Service>) -> MutexGuard<'_, Service> {
    service.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Now {
    let now = on_xstream::now();
    Now { mono: now.mono, wall: now.wall }
}

/// The other monitors, as the map says.
fn others(mon: &Mon) -> BTreeMap<String, EntityAddr> {
    let service = lock(&mon.service);
    let map = service.monmap();
    let others = map.by_rank().filter(|m| m.name != service.live().name && !mon.removed.get());
    others.filter_map(|m| Some((m.name.clone(), m.public_addrs.msgr2()?))).collect()
}

/// Keeps a way to every other monitor that there is.
async fn links(mon: Rc<Mon>, entity: EntityName, addrs: EntityAddrVec) {
    let mut linked = BTreeMap::new();
    loop {
        let others = others(&mon);
        linked.retain(|name, addr| others.get(name) == Some(addr));
        for (name, addr) in others {
            if linked.insert(name.clone(), addr) != Some(addr) {
                let link = link(mon.clone(), name, addr, entity, addrs.clone());
                drop(spawn(Class::Client, link));
            }
        }
        sleep(LINK_LOOK).await;
    }
}

/// Keeps the way to another monitor while it is at this address.
async fn link(
    mon: Rc<Mon>,
    name: String,
    addr: EntityAddr,
    entity: EntityName,
    addrs: EntityAddrVec,
) {
    let mut global_seq = 0;
    while others(&mon).get(&name) == Some(&addr) {
        global_seq += 1;
        let timeouts = Timeouts { idle: LINK_IDLE, ..Timeouts::default() };
        let config = Config { global_seq, timeouts, ..Config::new(entity, addrs.clone()) };
        let target = Target { type_: EntityType::MON, addr };
        let (sender, mut events) = queue();
        let dispatch = move |_: &Session, event: Event| drop(sender.send(event));
        let auth = Box::new(connector(&mon));
        let session = on_xstream::open(Class::Client, config, target, auth, dispatch);
        let mut ready = false;
        loop {
            match spirula_xstream::timeout(LINK_BEAT, events.recv()).await {
                Ok(Some(Event::Ready(_))) => {
                    ready = true;
                    mon.peers.borrow_mut().insert(name.clone(), session.clone());
                    mon.with(|service, now| service.peer_connected(now, &name));
                }
                Ok(Some(Event::Closed(_)) | None) => break,
                Ok(Some(Event::Message(incoming))) => {
                    mon.with(|service, _| service.peer_answer(&incoming.raw));
                }
                Ok(Some(_)) => {}
                Err(_) if ready => session.keepalive(),
                Err(_) => {}
            }
        }
        mon.peers.borrow_mut().remove(&name);
        session.close();
        sleep(LINK_RETRY).await;
    }
}

const LINK_LOOK: Duration = Duration::from_millis(500);
const LINK_IDLE: Duration = Duration::from_secs(10);
const LINK_BEAT: Duration = Duration::from_secs(1);
const LINK_RETRY: Duration = Duration::from_millis(200);

/// Proves this monitor by the key that all monitors share.
fn connector(mon: &Mon) -> MonConnector {
    let name = EntityNameStr::new(EntityType::MON, "");
    let key = lock(&mon.service).auth_of(&name).map(|auth| auth.key).unwrap_or_default();
    let config = MonConnectConfig {
        principal: Principal { name, key },
        methods: vec![METHOD_CEPHX],
        modes: vec![ConMode::Crc],
        want: 0,
    };
    let mut seed = [0; 32];
    spirula_xstream::fill_random(&mut seed);
    MonConnector::new(config, &MonGrant::default(), now().wall, seed)
}

/// Makes writes durable, one batch after the other.
async fn commit(mon: Rc<Mon>, mut config: MonConfig, mut work: QueueReceiver<Work>) {
    while let Some((number, writes)) = work.recv().await {
        let max = config.append_max.as_micros().max(1) as u64;
        sleep(Duration::from_micros(random_u64() % max)).await;
        if let Err(e) = config.storage.write(&writes) {
            panic!("the monitor's store fails: {e}");
        }
        mon.with(|service, now| service.written(now, number));
    }
}

async fn tick(mon: Rc<Mon>) {
    loop {
        let due = lock(&mon.service).poll_timeout();
        sleep_until(due).await;
        mon.with(|service, now| service.tick(now));
    }
}

async fn serve(mon: Rc<Mon>, listener: TcpListener, name: EntityName, addrs: EntityAddrVec) {
    let mut global_seq = 0;
    let accept = |_| {
        if mon.removed.get() {
            return None;
        }
        let mut seed = [0; 32];
        spirula_xstream::fill_random(&mut seed);
        let auth_config = lock(&mon.service).handshake_config();
        global_seq += 1;
        let config = Config { global_seq, ..Config::new(name, addrs.clone()) };
        let keys = Keys(mon.service.clone());
        let mon = mon.clone();
        Some(Accepted {
            config,
            auth: Box::new(MonAcceptor::new(auth_config, keys, seed)),
            dispatch: move |session: &Session, event: Event| mon.handle(session, event),
        })
    };
    on_xstream::serve(Class::Client, listener, accept).await;
}

/// The auth database as handshakes see it.
struct Keys(Arc<Mutex<Service>>);

impl KeyServer for Keys {
    fn serves(&self, name: &EntityNameStr) -> bool {
        lock(&self.0).lets_in(now(), name)
    }

    fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth> {
        lock(&self.0).auth_of(name)
    }

    fn rotating(&self, service: EntityType) -> Option<RotatingSecrets> {
        lock(&self.0).rotating(service)
    }

    fn assign_global_id(&mut self) -> Option<u64> {
        lock(&self.0).assign_global_id()
    }
}
