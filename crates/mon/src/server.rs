//! The monitor as a process part: tokio around [`Service`], and a thread for the store.
//!
//! Every input runs under one lock: handle it, then hand out what the service wants done. Sessions
//! only get messages queued; the store has a thread of its own and comes back with its commits.
//!
//! Invariant: a store that fails stops the monitor; it never goes on with less than it promised.

mod host;
mod mgr_link;
mod peer_links;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_auth::{EntityAuth, KeyServer, MonAcceptor, RotatingSecrets};
use spirula_msgr::on_tokio::{self, Event, Session};
use spirula_msgr::{Accepted, Config};
use spirula_wire::types::{EntityName, EntityNameStr, EntityType, Uuid};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tracing::{Instrument as _, error, info, warn};

use crate::service::{Action, CommandResult, Peer, Service, ServiceConfig};
use crate::storage::{Storage, StorageError, Write};
use crate::{MkfsError, Now, addrs_of, open};

pub use host::metadata as host_metadata;

/// Carries out `log dump`, `log flush` or `log reopen` on the process's log without waiting for the
/// disk, and calls back when it is done. [`LOG_LEVELS`] has it look at the daemon's options again.
pub type LogControl = Arc<dyn Fn(&str, Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What a [`LogControl`] is told when options have changed; no command of users.
pub const LOG_LEVELS: &str = "log levels";

/// How a monitor is started.
pub struct MonServerConfig {
    /// `a` of `mon.a`.
    pub name: String,
    /// Refuse a store of another cluster.
    pub fsid: Option<Uuid>,
    pub storage: Box<dyn Storage>,
    /// Options from the configuration file.
    pub options: BTreeMap<String, String>,
    pub log: LogControl,
}

/// Why a monitor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] MkfsError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("mon.{0} is not in the monitor map of this store")]
    Stranger(String),
    #[error("cannot listen on {addr}; stop what uses the port, or choose another one")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("no randomness from the system: {0}")]
    Random(getrandom::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A monitor that serves.
pub struct MonServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
}

impl MonServer {
    /// Opens the store, listens, and serves on the current tokio runtime.
    pub async fn start(mut config: MonServerConfig) -> Result<Self, StartError> {
        let (state, stored) = open(config.storage.as_mut(), config.fsid)?;
        let addrs = addrs_of(&state, &stored, &config.name);
        let addr = addrs.msgr2().and_then(|a| a.addr);
        let addr = addr.ok_or_else(|| StartError::Stranger(config.name.clone()))?;
        let listen = |source| StartError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(StartError::Random)?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut service_seed = [0; 32];
        rng.fill_bytes(&mut service_seed);
        let service_config = ServiceConfig {
            name: config.name.clone(),
            metadata: host_metadata(&addrs),
            options: config.options,
            seed: service_seed,
        };
        let mut service = Service::new(service_config, state, &stored, now());
        let rank = service.monmap().rank_of(&config.name).map_or(-1, |rank| rank as i64);
        first_writes(&mut service, config.storage.as_mut())?;
        let (commits, work) = mpsc::channel();
        let (sessions, peers, log) = (HashMap::new(), HashMap::new(), config.log);
        let core = Core {
            service,
            sessions,
            peers,
            rng,
            log,
            commits: Some(commits),
            failed: None,
            removed: false,
        };
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            failed: AtomicBool::new(false),
            stopped: Notify::new(),
        });
        let committer = start_committer(shared.clone(), config.storage, work)?;
        shared.with(|_, _| ());
        let (entity, session_addrs) = (EntityName::mon(rank), addrs.clone());
        let tasks = vec![
            tokio::spawn(serve(listener, shared.clone(), entity, addrs).in_current_span()),
            tokio::spawn(tick(shared.clone()).in_current_span()),
            tokio::spawn(
                peer_links::run(shared.clone(), entity, session_addrs.clone()).in_current_span(),
            ),
            tokio::spawn(mgr_link::run(shared.clone(), entity, session_addrs).in_current_span()),
        ];
        info!(%addr, "mon.{} serves", config.name);
        Ok(Self { addr, shared, tasks, committer: Some(committer) })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the store has failed; the monitor then serves nobody.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Whether it stopped since it was taken out of the cluster.
    pub fn is_removed(&self) -> bool {
        self.shared.lock().removed
    }

    /// Ends once the store has failed, or the monitor was taken out of the cluster.
    pub async fn failed(&self) {
        while !self.has_failed() {
            self.shared.stopped.notified().await;
        }
    }

    /// Looks at the service, for tests and status lines.
    pub fn inspect<T>(&self, look: impl FnOnce(&Service) -> T) -> T {
        look(&self.shared.lock().service)
    }

    /// What answers the commands of the admin socket, from any thread.
    pub fn admin(&self) -> impl Fn(&str) -> CommandResult + Send + Sync + use<> {
        let shared = self.shared.clone();
        move |text| shared.with(|core, now| core.service.admin_command(now, text))
    }

    /// Closes every session and the store.
    pub async fn stop(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        {
            let mut core = self.shared.lock();
            core.sessions.values().chain(core.peers.values()).for_each(Session::close);
            // The committer ends when nobody can send it work any more.
            core.commits = None;
        }
        if let Some(committer) = self.committer.take() {
            _ = tokio::task::spawn_blocking(move || committer.join()).await;
        }
    }
}

/// What the tasks and the committer share.
struct Shared {
    core: Mutex<Core>,
    failed: AtomicBool,
    stopped: Notify,
}

struct Core {
    service: Service,
    sessions: HashMap<u64, Session>,
    /// Open ways to other monitors, by name.
    peers: HashMap<String, Session>,
    rng: ChaCha20Rng,
    log: LogControl,
    commits: Option<mpsc::Sender<Work>>,
    /// Why the service cannot go on.
    failed: Option<String>,
    /// It is no member any more, which is no failure.
    removed: bool,
}

/// A batch for the store, by number.
type Work = (u64, Vec<Write>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock would leave the service in the middle of an input.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an input and then does what the service wants.
    fn with<T>(&self, input: impl FnOnce(&mut Core, Now) -> T) -> T {
        let mut core = self.lock();
        let value = input(&mut core, now());
        while let Some(action) = core.service.poll_action() {
            core.perform(action);
        }
        if let Some(why) = core.failed.take() {
            self.end(core, &why);
        }
        value
    }

    fn fail(&self, e: &StorageError) {
        self.end(self.lock(), &e.to_string());
    }

    fn end(&self, mut core: MutexGuard<'_, Core>, why: &str) {
        error!("the monitor stops: {why}");
        self.failed.store(true, Ordering::Release);
        core.commits = None;
        core.peers.values().for_each(Session::close);
        core.sessions.values().for_each(Session::close);
        self.stopped.notify_waiters();
    }
}

impl Core {
    fn perform(&mut self, action: Action) {
        let work = match action {
            Action::Send(id, raw) => {
                if let Some(session) = self.sessions.get(&id) {
                    session.send(raw);
                }
                return;
            }
            Action::Close(id) => {
                if let Some(session) = self.sessions.get(&id) {
                    session.close();
                }
                return;
            }
            Action::Log(prefix, id, reply) => {
                if let Some(session) = self.sessions.get(&id).cloned() {
                    (self.log)(&prefix, Box::new(move || session.send(reply)));
                }
                return;
            }
            Action::OptionsChanged => return (self.log)(LOG_LEVELS, Box::new(|| ())),
            Action::Peer(name, raw) => {
                if let Some(session) = self.peers.get(&name) {
                    session.send(raw);
                }
                return;
            }
            Action::Fail(why) => return self.failed = Some(why),
            Action::Removed => {
                self.removed = true;
                return self.failed = Some("it was taken out of the monitor map".into());
            }
            Action::Write(number, writes) => (number, writes),
        };
        if let Some(commits) = &self.commits {
            _ = commits.send(work);
        }
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}

/// The clocks, as the messenger sees them.
fn now() -> Now {
    let now = on_tokio::now();
    Now { mono: now.mono, wall: now.wall }
}

/// Does the writes that a monitor begins with, so that a lone one serves from its first connection
/// on.
fn first_writes(service: &mut Service, storage: &mut dyn Storage) -> Result<(), StorageError> {
    let mut later = Vec::new();
    while let Some(action) = service.poll_action() {
        match action {
            Action::Write(number, writes) => {
                storage.write(&writes)?;
                service.written(now(), number);
            }
            other => later.push(other),
        }
    }
    service.put_back(later);
    Ok(())
}

/// A thread that makes writes durable, one batch after the other.
fn start_committer(
    shared: Arc<Shared>,
    mut storage: Box<dyn Storage>,
    work: mpsc::Receiver<Work>,
) -> Result<JoinHandle<()>, StartError> {
    let run = move || {
        for (number, writes) in work {
            match storage.write(&writes) {
                Ok(()) => shared.with(|core, now| core.service.written(now, number)),
                Err(e) => return shared.fail(&e),
            }
        }
    };
    std::thread::Builder::new().name("mon-store".into()).spawn(run).map_err(StartError::Thread)
}

async fn tick(shared: Arc<Shared>) {
    loop {
        let due = shared.with(|core, now| core.service.poll_timeout().saturating_sub(now.mono));
        tokio::time::sleep(due.max(Duration::from_millis(10))).await;
        shared.with(|core, now| core.service.tick(now));
    }
}

async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    name: EntityName,
    addrs: spirula_wire::types::EntityAddrVec,
) {
    let mut global_seq = 0;
    let accept = |_: SocketAddr| {
        if shared.failed.load(Ordering::Acquire) {
            return None;
        }
        let (auth_config, seed) = {
            let mut core = shared.lock();
            (core.service.handshake_config(), core.seed())
        };
        global_seq += 1;
        let config = Config { global_seq, ..Config::new(name, addrs.clone()) };
        let auth = MonAcceptor::new(auth_config, Keys(shared.clone()), seed);
        Some(Accepted { config, auth: Box::new(auth), dispatch: dispatcher(shared.clone()) })
    };
    on_tokio::serve(listener, accept).await;
}

fn dispatcher(shared: Arc<Shared>) -> impl FnMut(&Session, Event) + Send {
    move |session, event| {
        let id = session.id();
        match event {
            Event::Ready(peer) => {
                let (addrs, socket_addr) = (peer.addrs, peer.socket_addr);
                let features = peer.features.0;
                let Some(auth) = peer.auth else {
                    warn!("a session without a proven peer; closed");
                    return session.close();
                };
                shared.with(|core, now| {
                    core.sessions.insert(id, session.clone());
                    core.service.session_opened(
                        now,
                        id,
                        Peer { auth, addrs, socket_addr, features },
                    );
                });
            }
            Event::Message(incoming) => {
                shared.with(|core, now| core.service.message(now, id, incoming.raw.clone()));
            }
            Event::KeepaliveAck | Event::Session(_) => {}
            Event::Closed(_) => shared.with(|core, now| {
                core.sessions.remove(&id);
                core.service.session_closed(now, id);
            }),
        }
    }
}

/// The auth database as handshakes see it.
struct Keys(Arc<Shared>);

impl KeyServer for Keys {
    fn serves(&self, name: &EntityNameStr) -> bool {
        self.0.lock().service.lets_in(now(), name)
    }

    fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth> {
        self.0.lock().service.auth_of(name)
    }

    fn rotating(&self, service: EntityType) -> Option<RotatingSecrets> {
        self.0.lock().service.rotating(service)
    }

    fn assign_global_id(&mut self) -> Option<u64> {
        self.0.lock().service.assign_global_id()
    }
}
