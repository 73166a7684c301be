//! The manager on tokio: one task owns the core and everything it talks to.
//!
//! Invariant: only this task touches the core; sockets and timers send it events.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use spirula_auth::{
    ConnectAuth, CryptoKey, Principal, ServiceAcceptor, ServiceAuthConfig, ServiceSecrets,
};
use spirula_maps::{MgrMap, OsdMapFollower};
use spirula_mon::{LOG_LEVELS, LogControl};
use spirula_monc::{ConnId, Event as MonEvent, MonClient, Reply};
use spirula_msgr::on_tokio::{self, Event, Session};
use spirula_msgr::{Accepted, Config as MsgrConfig, MonAction, MonSessions, Outbox, Target};
use spirula_wire::msg::command::CommandReply;
use spirula_wire::msg::mgr::MgrCommandReply;
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::types::{
    AddrType, EntityAddr, EntityAddrVec, EntityName, EntityNameStr, EntityType, Uuid,
};
use spirula_wire::{Decode as _, RawMessage};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{Instrument as _, info, warn};

use crate::manager::{Identity, Manager, Output, TICK_PERIOD};

/// What a manager is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// `x` of `mgr.x`.
    pub name: String,
    pub fsid: Uuid,
    pub key: CryptoKey,
    pub mons: Vec<SocketAddr>,
    /// Port 0: any that is free.
    pub bind: SocketAddr,
    pub metadata: BTreeMap<String, String>,
    /// From which all of its randomness comes.
    pub seed: [u8; 32],
}

/// Why a manager did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("mgr.{name} cannot listen on {addr}; stop what uses the port, or choose another one")]
    Bind { name: String, addr: SocketAddr, source: io::Error },
}

/// A running manager. Dropping it ends the manager.
#[derive(Debug)]
pub struct Handle {
    pub addr: SocketAddr,
    inputs: mpsc::UnboundedSender<Input>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Handle {
    /// What answers the commands of the admin socket.
    pub fn admin(&self) -> Admin {
        Admin(self.inputs.clone())
    }

    /// Ends the manager and waits for it.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

/// Asks a running manager about itself.
#[derive(Clone)]
pub struct Admin(mpsc::UnboundedSender<Input>);

impl Admin {
    /// Runs a command, a JSON object with a `prefix`; nothing comes back from a manager that ended.
    pub async fn command(&self, json: String) -> Option<CommandReply> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Input::Admin(json, answer)).ok()?;
        answered.await.ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds and starts; the first beacon goes out once the monitor has let us in.
pub async fn start(config: Config, log: LogControl) -> Result<Handle, StartError> {
    let failed = |source| StartError::Bind { name: config.name.clone(), addr: config.bind, source };
    let listener = TcpListener::bind(config.bind).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let (stop, stopped) = oneshot::channel();
    let server = Server::new(config, addr, log);
    let inputs = server.inputs.clone();
    let task = tokio::spawn(server.run(listener, stopped).in_current_span());
    Ok(Handle { addr, inputs, stop: Some(stop), task })
}

/// What the task waits for.
enum Input {
    Client(Session, Event),
    Mon(ConnId, Event),
    /// A command of the admin socket.
    Admin(String, oneshot::Sender<CommandReply>),
    /// What a log command of this session did is done: the reply.
    Logged(u64, RawMessage),
}

/// What accepting a socket needs, shared with the accepting task.
struct Door {
    secrets: Arc<ServiceSecrets>,
    rng: ChaCha20Rng,
    config: MsgrConfig,
}

struct Server {
    monc: MonClient,
    /// Commands under way at the monitor, and what the manager calls them.
    questions: BTreeMap<u64, u64>,
    mon_config: MsgrConfig,
    mons: MonSessions<Arc<Mutex<Outbox>>>,
    manager: Manager,
    osdmap: OsdMapFollower,
    clients: HashMap<u64, Session>,
    log: LogControl,
    door: Arc<Mutex<Door>>,
    inputs: mpsc::UnboundedSender<Input>,
    receiver: mpsc::UnboundedReceiver<Input>,
}

impl Server {
    fn new(config: Config, addr: SocketAddr, log: LogControl) -> Self {
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let nonce = rng.next_u32();
        let addrs =
            EntityAddrVec(vec![EntityAddr { type_: AddrType::MSGR2, nonce, addr: Some(addr) }]);
        let name = EntityNameStr { type_: EntityType::MGR, id: config.name.clone() };
        let principal = Principal { name, key: config.key.clone() };
        let mut mon_seed = [0; 32];
        rng.fill_bytes(&mut mon_seed);
        let entity = EntityName { type_: EntityType::MGR, num: -1 };
        let door =
            Door { secrets: Arc::default(), rng, config: MsgrConfig::new(entity, addrs.clone()) };
        let mut metadata = config.metadata;
        metadata.insert("addr".to_owned(), addr.ip().to_string());
        metadata.insert("addrs".to_owned(), addrs.to_string());
        let identity = Identity {
            name: config.name,
            fsid: config.fsid,
            gid: 0,
            addrs: addrs.clone(),
            metadata,
        };
        let (inputs, receiver) = mpsc::unbounded_channel();
        Self {
            questions: BTreeMap::new(),
            monc: MonClient::new(spirula_monc::Config::new(principal, config.mons), mon_seed),
            mon_config: MsgrConfig::new(entity, addrs),
            mons: MonSessions::default(),
            manager: Manager::new(identity),
            osdmap: OsdMapFollower::verifying(),
            clients: HashMap::new(),
            log,
            door: Arc::new(Mutex::new(door)),
            inputs,
            receiver,
        }
    }

    async fn run(mut self, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
        let accepting = accept_clients(listener, self.door.clone(), self.inputs.clone());
        let accepting = tokio::spawn(accepting.in_current_span());
        let now = on_tokio::now();
        self.monc.subscribe(now, "osdmap", 1, false);
        self.monc.subscribe(now, "mgrmap", 0, false);
        self.monc.handle_timeout(now);
        let mut tick = tokio::time::interval(TICK_PERIOD);
        loop {
            self.act();
            let due = self.monc.poll_timeout(on_tokio::now());
            tokio::select! {
                Some(input) = self.receiver.recv() => self.handle_input(input),
                () = until(due) => self.monc.handle_timeout(on_tokio::now()),
                _ = tick.tick() => self.manager.tick(wall()),
                _ = &mut stopped => break,
            }
        }
        accepting.abort();
        self.clients.values().for_each(Session::close);
        self.mons.close();
    }

    fn handle_input(&mut self, input: Input) {
        match input {
            Input::Client(session, event) => self.handle_client(session, event),
            // The client of the socket may have left.
            Input::Admin(json, answer) => _ = answer.send(self.manager.handle_admin(&json)),
            Input::Logged(id, reply) => self.perform(Output::Send(id, reply)),
            Input::Mon(conn, event) => {
                self.mons.handle(&mut self.monc, on_tokio::now(), conn, event);
            }
        }
    }

    fn handle_client(&mut self, session: Session, event: Event) {
        let id = session.id();
        match event {
            Event::Ready(peer) => {
                self.clients.insert(id, session);
                self.manager.handle_ready(id, peer.auth, peer.features);
            }
            Event::Message(incoming) => {
                if let Err(error) = self.manager.handle_message(id, &incoming.raw, wall()) {
                    warn!(session = id, "message does not decode: {error}; closing");
                    session.close();
                }
            }
            Event::KeepaliveAck | Event::Session(_) => {}
            Event::Closed(_) => {
                self.clients.remove(&id);
                self.manager.handle_closed(id);
            }
        }
    }

    /// Does what the cores ask for.
    fn act(&mut self) {
        loop {
            while let Some(output) = self.manager.poll_output() {
                self.perform(output);
            }
            match self.mons.poll(&mut self.monc) {
                Some(MonAction::Connect { conn, target, auth }) => self.connect(conn, target, auth),
                Some(MonAction::Event(event)) => self.handle_mon_event(event),
                None => return,
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(id, message) => {
                if let Some(session) = self.clients.get(&id) {
                    session.send(message);
                }
            }
            Output::Close(id) => {
                if let Some(session) = self.clients.get(&id) {
                    session.close();
                }
            }
            Output::ToMon(message) => self.monc.send(message),
            Output::AskMon(question, command) => {
                let tid = self.monc.command(on_tokio::now(), command, Bytes::new());
                self.questions.insert(tid, question);
            }
            Output::OptionsChanged => (self.log)(LOG_LEVELS, Box::new(|| ())),
            Output::Log(prefix, id, reply) => {
                let inputs = self.inputs.clone();
                // The receiver is gone only when the manager ends.
                let done = move || _ = inputs.send(Input::Logged(id, reply));
                (self.log)(&prefix, Box::new(done));
            }
        }
    }

    fn connect(&mut self, conn: ConnId, target: Target, auth: Box<dyn ConnectAuth>) {
        let inputs = self.inputs.clone();
        self.mon_config.global_seq += 1;
        let dispatch = move |_: &Session, event: Event| {
            // The receiver is gone only when the manager ends.
            let _ = inputs.send(Input::Mon(conn, event));
        };
        let session = on_tokio::open(self.mon_config.clone(), target, auth, dispatch);
        self.mons.opened(conn, session);
    }

    fn handle_mon_event(&mut self, event: MonEvent) {
        match event {
            MonEvent::Connected { global_id } => {
                self.manager.set_gid(global_id);
                self.lock_door().config.name.num = global_id as i64;
            }
            MonEvent::Reply { tid, reply: Reply::Command { r, rs, outbl, .. } } => {
                if let Some(question) = self.questions.remove(&tid) {
                    self.manager.handle_mon_reply(question, MgrCommandReply { r, rs, outbl });
                }
            }
            MonEvent::RotatingKeys(secrets) => self.lock_door().secrets = secrets,
            MonEvent::MgrMap(bytes) => match MgrMap::from_bytes(&bytes) {
                Ok(map) => self.manager.handle_mgrmap(map.epoch),
                Err(error) => warn!("MgrMap from the monitor: {error}"),
            },
            MonEvent::Config(options) => self.manager.handle_config(options),
            MonEvent::OsdMap(message) => self.handle_osdmap(&message),
            MonEvent::AuthFailed(error) => warn!("the monitor refuses this manager: {error}"),
            MonEvent::Disconnected => info!("monitor session lost; looking for another"),
            _ => {}
        }
    }

    fn lock_door(&self) -> std::sync::MutexGuard<'_, Door> {
        // Nothing panics while it is held.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle_osdmap(&mut self, message: &OsdMapMsg) {
        let done = self.osdmap.handle(message);
        if let Some(error) = done.error {
            warn!("from the monitor: {error}");
        }
        if let Some(start) = done.ask {
            self.monc.subscribe(on_tokio::now(), "osdmap", start.into(), false);
        }
        if done.advanced {
            self.manager.handle_osdmap(self.osdmap.current().clone(), wall());
        }
    }
}

async fn accept_clients(
    listener: TcpListener,
    door: Arc<Mutex<Door>>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    on_tokio::serve(listener, move |_| {
        let mut door = door.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seed = [0; 32];
        door.rng.fill_bytes(&mut seed);
        let auth = ServiceAcceptor::new(
            ServiceAuthConfig::cephx(EntityType::MGR),
            door.secrets.clone(),
            seed,
        );
        let inputs = inputs.clone();
        Some(Accepted {
            config: door.config.clone(),
            auth: Box::new(auth),
            dispatch: move |session: &Session, event: Event| {
                let _ = inputs.send(Input::Client(session.clone(), event));
            },
        })
    })
    .await;
}

async fn until(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_sub(on_tokio::now().mono)).await,
        None => std::future::pending().await,
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
