//! One OSD on one xstream: the state that the stages share, and the way of a request through them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use spirula_auth::{CryptoKey, ServiceSecrets};
use spirula_maps::{OsdMap, flags};
use spirula_store::{OpenError, Store, StoreError};
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::types::{EntityAddrVec, SpgId, UTime, Uuid};
use spirula_wire::{Features, Message};
use spirula_xstream::sync::Notify;
use spirula_xstream::{Class, now, wall_now};

use crate::admit::{Admission, AdmitLimits, admit};
use crate::backoff::{self, Verdict};
use crate::boot::{alive_message, boot_message};
use crate::boot_maps;
use crate::clog::ClusterLog;
use crate::front::{OpRequest, Reply};
use crate::full::Fullness;
use crate::heartbeat::Heartbeat;
use crate::history::MapHistory;
use crate::list::pg_ops;
use crate::mgr::MgrLink;
use crate::mon::MonLink;
use crate::options::Options;
use crate::peers::Peers;
use crate::pg::Pg;
use crate::plan::Limits;
use crate::proxy::Links;
use crate::read::read;
use crate::reshape::Reshaping;
use crate::route::{Changes, PgTable, Routed, follow, route};
use crate::scrub::schedule::Scrubs;
use crate::session::{Session, Waiting};
use crate::shard::{self, Shards};
use crate::track::Tracker;
use crate::watch::drive::Watching;
use crate::write::write;

/// What a target is started with.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    pub osd_id: i32,
    pub fsid: Uuid,
    pub osd_uuid: Uuid,
    pub key: CryptoKey,
    /// `auth_cluster_required` and `auth_service_required`, preferred first.
    pub auth_methods: Vec<u32>,
    /// Monitors to boot at.
    pub mons: Vec<SocketAddr>,
    /// Where to listen; port 0 takes any.
    pub bind: SocketAddr,
    pub hostname: String,
    /// Told to the monitor at boot, over what the target finds itself.
    pub metadata: BTreeMap<String, String>,
    /// Options of the configuration file, which win over the monitor's.
    pub options: BTreeMap<String, String>,
}

/// Why a target stops.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("the target is stopping")]
    Stopped,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the map called this OSD dead {count} times in {seconds} seconds while it lived; look for a \
         slow or one-way network, then start it again"
    )]
    Flapping { count: u64, seconds: u64 },
    #[error("a log record of PG {0} does not decode")]
    BadPgRecord(SpgId),
    #[error("what PG {pgid} knows of its copies cannot be stored: {source}")]
    Peering { pgid: SpgId, source: spirula_vos::StageError },
    #[error("a write of PG {0} came from another OSD and cannot be understood")]
    BadReplica(SpgId),
    #[error("a PG cannot be split or merged: {0}")]
    Reshape(spirula_vos::StageError),
    #[error("cannot listen on {addr}; stop what uses the port, or choose another one")]
    Listen { addr: SocketAddr, source: std::io::Error },
}

/// Carries out `log dump`, `log flush` or `log reopen` on the process's log without waiting for the
/// disk, and calls back when it is done. [`LOG_LEVELS`] has it look at the target's options again.
pub type LogControl = Arc<dyn Fn(&str, Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What a [`LogControl`] is told when options have changed; no command of users.
pub const LOG_LEVELS: &str = "log levels";

/// Where a target listens: for clients, for other OSDs, and for their heartbeats on both networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addrs {
    pub public: EntityAddrVec,
    pub cluster: EntityAddrVec,
    pub hb_front: EntityAddrVec,
    pub hb_back: EntityAddrVec,
}

/// A running target; clones are handles on the same one.
#[derive(Clone)]
pub struct Target(Rc<Inner>);

struct Inner {
    config: TargetConfig,
    store: Store,
    addrs: Addrs,
    maps: RefCell<MapHistory>,
    /// The map, or the state of a PG, changed.
    changed: Notify,
    pgs: PgTable,
    shards: Shards,
    limits: Cell<Limits>,
    admit_limits: Cell<AdmitLimits>,
    options: RefCell<Options>,
    log_control: OnceCell<LogControl>,
    secrets: RefCell<Arc<ServiceSecrets>>,
    mon: MonLink,
    mgr: MgrLink,
    peers: Peers,
    heartbeat: Heartbeat,
    clog: ClusterLog,
    tracker: Tracker,
    watching: Watching,
    fullness: Fullness,
    reshaping: Reshaping,
    scrubs: Scrubs,
    links: Links,
    global_seq: Cell<u64>,
    /// Epoch that the last `osd_boot` was sent in.
    boot_epoch: Cell<u32>,
    /// Epoch in which this process was first up; 0 before.
    booted_epoch: Cell<u32>,
    /// The newest map when this process asked first; 0 before.
    first_epoch: Cell<u32>,
    /// A map was acted on.
    follows: Cell<bool>,
    /// The `up_thru` that was asked for last.
    up_thru_wanted: Cell<u32>,
    /// Statistics should be sent now.
    report_due: Notify,
    reported_up: Cell<bool>,
    stopping: Cell<bool>,
    /// By the map.
    told_to_stop: Cell<bool>,
    marked_down: Cell<bool>,
    failure: RefCell<Option<TargetError>>,
    stopped: Notify,
}

impl Target {
    pub fn new(config: TargetConfig, store: Store, addrs: Addrs) -> Self {
        let mut seed = [0; 32];
        spirula_xstream::fill_random(&mut seed);
        let options = Options { file: config.options.clone(), ..Options::default() };
        store.set_cache_bytes(options.cache_bytes());
        let target = Self(Rc::new(Inner {
            peers: Peers::new(addrs.cluster.clone(), spirula_xstream::random_u64()),
            heartbeat: Heartbeat::default(),
            clog: ClusterLog::default(),
            addrs,
            mon: MonLink::new(&config, seed),
            config,
            store,
            maps: RefCell::default(),
            changed: Notify::new(),
            pgs: PgTable::default(),
            shards: Shards::default(),
            limits: Cell::default(),
            admit_limits: Cell::default(),
            options: RefCell::new(options),
            log_control: OnceCell::new(),
            secrets: RefCell::default(),
            mgr: MgrLink::default(),
            tracker: Tracker::default(),
            watching: Watching::default(),
            fullness: Fullness::default(),
            reshaping: Reshaping::default(),
            scrubs: Scrubs::default(),
            links: Links::default(),
            global_seq: Cell::new(0),
            boot_epoch: Cell::new(0),
            booted_epoch: Cell::new(0),
            first_epoch: Cell::new(0),
            follows: Cell::new(false),
            up_thru_wanted: Cell::new(0),
            report_due: Notify::new(),
            reported_up: Cell::new(false),
            stopping: Cell::new(false),
            told_to_stop: Cell::new(false),
            marked_down: Cell::new(false),
            failure: RefCell::default(),
            stopped: Notify::new(),
        }));
        target.change_options(|_| ());
        target
    }

    pub fn config(&self) -> &TargetConfig {
        &self.0.config
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Where clients reach it.
    pub fn addrs(&self) -> &EntityAddrVec {
        &self.0.addrs.public
    }

    pub fn all_addrs(&self) -> &Addrs {
        &self.0.addrs
    }

    pub fn map(&self) -> Arc<OsdMap> {
        self.0.maps.borrow().current().clone()
    }

    pub fn epoch(&self) -> u32 {
        self.0.maps.borrow().epoch()
    }

    /// Where newer maps begin; 0 if there is none yet.
    pub fn next_epoch(&self) -> u32 {
        self.0.maps.borrow().next()
    }

    pub fn pgs(&self) -> &PgTable {
        &self.0.pgs
    }

    /// The copies of PGs here.
    pub fn shards(&self) -> &Shards {
        &self.0.shards
    }

    /// How many reads were answered here by copies that are not the primary.
    pub fn reads_at_copies(&self) -> u64 {
        self.0.shards.reads_at_copies()
    }

    /// What peering is told of the options.
    pub fn peering_config(&self) -> spirula_pg::Config {
        let options = self.0.options.borrow();
        let grace = options.seconds("osd_heartbeat_grace");
        let lease = grace.mul_f64(options.float("osd_pool_default_read_lease_ratio"));
        // What a write replaces is gone at once, so that overwriting takes no space.
        let log = spirula_pg::LogLimits { undoes: false, ..Default::default() };
        spirula_pg::Config { lease, log }
    }

    pub fn admit_limits(&self) -> AdmitLimits {
        self.0.admit_limits.get()
    }

    pub fn limits(&self) -> Limits {
        self.0.limits.get()
    }

    pub fn mon(&self) -> &MonLink {
        &self.0.mon
    }

    pub fn mgr(&self) -> &MgrLink {
        &self.0.mgr
    }

    /// The links to other OSDs.
    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The cluster's log.
    pub fn clog(&self) -> &ClusterLog {
        &self.0.clog
    }

    pub fn heartbeat(&self) -> &Heartbeat {
        &self.0.heartbeat
    }

    /// What brings a peer with map `known` on.
    pub fn maps_since(&self, known: u32) -> Option<OsdMapMsg> {
        self.0.maps.borrow().since(known)
    }

    pub fn tracker(&self) -> &Tracker {
        &self.0.tracker
    }

    pub fn watching(&self) -> &Watching {
        &self.0.watching
    }

    pub fn reshaping(&self) -> &Reshaping {
        &self.0.reshaping
    }

    /// Which PGs are scrubbed.
    pub fn scrubs(&self) -> &Scrubs {
        &self.0.scrubs
    }

    pub fn fullness(&self) -> &Fullness {
        &self.0.fullness
    }

    /// Connections to other OSDs.
    pub fn links(&self) -> &Links {
        &self.0.links
    }

    pub fn with_options<R>(&self, f: impl FnOnce(&Options) -> R) -> R {
        f(&self.0.options.borrow())
    }

    /// Changes options; those with an effect at run time have it from now on.
    pub fn change_options(&self, f: impl FnOnce(&mut Options)) {
        let mut options = self.0.options.borrow_mut();
        f(&mut options);
        self.0.limits.set(options.limits());
        self.0.admit_limits.set(options.admit_limits());
        self.store().set_cache_bytes(options.cache_bytes());
        self.store().set_trim(options.flag("bdev_enable_discard"));
        let seconds = Duration::from_secs(options.number("osd_op_history_duration"));
        self.0.tracker.keep(options.number("osd_op_history_size"), seconds);
        drop(options);
        self.log_command(LOG_LEVELS, Box::new(|| ()));
        self.schedule_scrubs();
    }

    /// The store is scrubbed by the options, unless the map forbids it.
    fn schedule_scrubs(&self) {
        let seconds = self.with_options(|o| o.seconds("osd_deep_scrub_interval"));
        let forbidden = self.map().flags & (flags::NOSCRUB | flags::NODEEP_SCRUB) != 0;
        let interval = (!seconds.is_zero() && !forbidden).then_some(seconds);
        self.store().set_scrub_interval(interval);
    }

    pub fn set_mon_options(&self, values: BTreeMap<String, String>) {
        self.change_options(|options| options.mon = values);
    }

    /// Whoever owns the process's log says how to act on it; the first one counts.
    pub fn set_log_control(&self, control: LogControl) {
        let _ = self.0.log_control.set(control);
    }

    /// Calls `done` when the command has been carried out, at once if there is no log.
    pub fn log_command(&self, prefix: &str, done: Box<dyn FnOnce() + Send>) {
        match self.0.log_control.get() {
            Some(control) => control(prefix, done),
            None => done(),
        }
    }

    pub fn option_number(&self, name: &str) -> u64 {
        self.0.options.borrow().number(name)
    }

    pub fn next_global_seq(&self) -> u64 {
        let seq = self.0.global_seq.get() + 1;
        self.0.global_seq.set(seq);
        seq
    }

    pub fn secrets(&self) -> Arc<ServiceSecrets> {
        self.0.secrets.borrow().clone()
    }

    pub fn set_secrets(&self, secrets: Arc<ServiceSecrets>) {
        *self.0.secrets.borrow_mut() = secrets;
    }

    pub fn wall_nanos(&self) -> u64 {
        u64::try_from(wall_now().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Waits for a new map, or for a PG to become active.
    pub async fn map_changed(&self) {
        self.0.changed.notified().await;
    }

    /// Waits until statistics should be sent at once.
    pub async fn report_due(&self) {
        self.0.report_due.notified().await;
    }

    /// Whether the map says that this very instance is up.
    pub fn is_up(&self) -> bool {
        let map = self.map();
        map.client_addrs(self.0.config.osd_id) == Some(&self.0.addrs.public)
    }

    /// Tells the monitor that this instance is here, unless the map says so already. Once per map,
    /// and again on each new session (`anew`).
    pub fn boot(&self, anew: bool) {
        let epoch = self.epoch();
        if epoch == 0 || self.is_catching_up() || self.is_up() || self.is_stopping() {
            return;
        }
        if anew || self.0.boot_epoch.get() != epoch {
            self.0.boot_epoch.set(epoch);
            self.mon().send(self, boot_message(self));
        }
    }

    /// The epoch in which this process was first up; 0 before.
    pub fn booted_epoch(&self) -> u32 {
        self.0.booted_epoch.get()
    }

    /// Asks the monitor for an `up_thru` of at least `want`, unless the map has it; what was asked for
    /// before and is not there yet is asked for again.
    pub fn want_up_thru(&self, want: u32) {
        let want = self.0.up_thru_wanted.get().max(want);
        let has = self.map().osd(self.0.config.osd_id).map_or(0, |osd| osd.info.up_thru);
        if want > has && self.is_up() {
            self.0.up_thru_wanted.set(want);
            self.mon().send(self, alive_message(self, want));
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.0.stopping.get()
    }

    /// From now on no connection is taken in, and nothing is tried again.
    pub fn set_stopping(&self) {
        self.0.stopping.set(true);
        self.0.links.close();
    }

    /// The monitor acknowledged that we go.
    pub fn marked_down(&self) {
        self.0.marked_down.set(true);
        self.0.changed.notify_all();
    }

    /// Waits until the map, or the monitor's answer, says that we are down.
    pub async fn wait_marked_down(&self) {
        while !self.0.marked_down.get() && self.is_up() {
            self.map_changed().await;
        }
    }

    /// Takes maps from the monitor; returns the epoch to ask it for maps from, if they do not lead
    /// to their end.
    pub fn handle_maps(&self, message: &OsdMapMsg) -> Option<u32> {
        if boot_maps::waits(self, message) {
            return None;
        }
        let old = self.map();
        let done = self.0.maps.borrow_mut().handle(message);
        if let Some(error) = &done.error {
            tracing::error!("from the monitor: {error}");
        }
        if done.advanced {
            self.map_advanced(&old, &done.maps);
        }
        done.ask
    }

    /// Whether it still looks at maps from before it was started.
    pub fn is_catching_up(&self) -> bool {
        self.epoch() < self.0.first_epoch.get()
    }

    /// The newest map when this process asked first; 0 before.
    pub fn first_epoch(&self) -> u32 {
        self.0.first_epoch.get()
    }

    pub fn set_first_epoch(&self, epoch: u32) {
        self.0.first_epoch.set(epoch);
    }

    fn map_advanced(&self, old: &Arc<OsdMap>, maps: &[Arc<OsdMap>]) {
        let (new, inner) = (self.map(), &self.0);
        let mut changes = Changes::default();
        let mut before = old.clone();
        for map in maps {
            shard::follow::awaken(self, map);
            shard::split::split_all(self, map);
            if map.epoch >= inner.first_epoch.get() {
                changes.add(self.update_pgs(&before, map));
            }
            changes.left.extend(shard::follow::advance(self, map));
            before = map.clone();
        }
        if self.is_catching_up() {
            return;
        }
        let news = !changes.added.is_empty() || !changes.left.is_empty();
        follow(self, changes, !inner.follows.replace(true));
        shard::follow::activate(self);
        inner.watching.follow(self, &new);
        inner.fullness.follow(self, old, &new);
        inner.peers.follow(self, old, &new);
        inner.heartbeat.follow(self, old, &new);
        if old.flags != new.flags {
            self.schedule_scrubs();
        }
        if inner.booted_epoch.get() == 0 && self.is_up() {
            inner.booted_epoch.set(new.epoch);
        }
        inner.changed.notify_all();
        if news || !inner.reported_up.get() && self.is_up() {
            inner.reported_up.set(self.is_up());
            inner.report_due.notify_all();
        }
    }

    /// Of which PGs this target is the primary now; the first map that it acts on says it of all.
    fn update_pgs(&self, old: &OsdMap, map: &Arc<OsdMap>) -> Changes {
        let nothing = OsdMap::default();
        let old = if self.0.follows.get() { old } else { &nothing };
        let shard = |pgid| shard::follow::of_primary(self, pgid, map);
        self.0.pgs.update(self.0.config.osd_id, old, map, wall_now(), &shard)
    }

    /// Requests that wait for a PG may look again.
    pub fn pg_became_active(&self) {
        self.0.changed.notify_all();
        self.report_now();
    }

    /// Statistics are sent at once instead of in a few seconds.
    pub fn report_now(&self) {
        self.0.report_due.notify_all();
    }

    /// Runs a task of the target; its failure stops the target.
    pub fn spawn<F>(&self, class: Class, task: impl FnOnce(Self) -> F)
    where
        F: Future<Output = Result<(), TargetError>> + 'static,
    {
        let (target, task) = (self.clone(), task(self.clone()));
        drop(spirula_xstream::spawn(class, async move {
            if let Err(e) = task.await {
                target.fail(e);
            }
        }));
    }

    /// The target cannot go on: what is planned from now on would stand on what failed.
    pub fn fail(&self, error: TargetError) {
        let closed = matches!(error, TargetError::Store(StoreError::Closed));
        if matches!(error, TargetError::Stopped) || closed && self.is_stopping() {
            return;
        }
        tracing::error!("osd.{} stops: {error}", self.0.config.osd_id);
        self.0.failure.borrow_mut().get_or_insert(error);
        self.0.stopped.notify_all();
    }

    /// The map says that this OSD shall stop.
    pub fn stop(&self) {
        tracing::info!("osd.{} is told to stop", self.0.config.osd_id);
        self.0.told_to_stop.set(true);
        self.0.stopped.notify_all();
    }

    /// Waits for a failure, or (`None`) to be told to stop.
    pub async fn ended(&self) -> Option<TargetError> {
        loop {
            if let Some(error) = self.0.failure.borrow_mut().take() {
                return Some(error);
            }
            if self.0.told_to_stop.get() {
                return None;
            }
            self.0.stopped.notified().await;
        }
    }

    /// Takes in what a client sent. What came on one session is begun in that order.
    pub fn take_in(&self, session: &Rc<Session>, item: Waiting) {
        let waits = if session.draining.get() { Some(item) } else { self.try_begin(session, item) };
        let Some(item) = waits else {
            return;
        };
        session.waiting.borrow_mut().push_back(item);
        if !session.draining.replace(true) {
            let (target, session) = (self.clone(), session.clone());
            drop(spirula_xstream::spawn(Class::Client, target.drain(session)));
        }
    }

    /// Begins what waits on a session, one after the other.
    async fn drain(self, session: Rc<Session>) {
        loop {
            let Some(mut item) = session.waiting.borrow_mut().pop_front() else {
                break;
            };
            while let Some(again) = self.try_begin(&session, item) {
                item = again;
                self.map_changed().await;
            }
        }
        session.draining.set(false);
    }

    /// Begins a request, or drops it; gives back what has to wait for a map or a PG.
    fn try_begin(&self, session: &Rc<Session>, item: Waiting) -> Option<Waiting> {
        let request = match item {
            Waiting::Request(request) => request,
            Waiting::Acknowledgement(backoff, _) => {
                session.backoffs.borrow_mut().acknowledge(backoff.pgid, backoff.id);
                return None;
            }
        };
        let pg = match route(self, &request) {
            Routed::Pg(pg) => pg,
            Routed::Later => return Some(Waiting::Request(request)),
            Routed::Nowhere => {
                if let Some(here) = shard::read::copy_for(self, &request) {
                    self.begin_at_copy(here, request);
                    return None;
                }
                self.share_map(session, request.msg.map_epoch);
                dropped(&request, "this OSD is not the PG's primary");
                return None;
            }
            Routed::Stale => {
                self.share_map(session, request.msg.map_epoch);
                dropped(&request, "the client sends it again by a newer map");
                return None;
            }
        };
        match backoff::check(session, &pg, self.epoch()) {
            Verdict::Serve if !pg.shard.may_serve() => return Some(Waiting::Request(request)),
            Verdict::Serve => self.begin(pg, request),
            Verdict::Wait => return Some(Waiting::Request(request)),
            Verdict::Drop => {
                self.share_map(session, request.msg.map_epoch);
                dropped(&request, "the PG is not active; the client backs off");
            }
        }
        None
    }

    /// Runs a request as far as it goes at once, so that it has its place in the order of its
    /// object; what is left becomes a task.
    fn begin(&self, pg: Rc<Pg>, request: OpRequest) {
        let mut serving = Box::pin(self.clone().serve(pg, request));
        // The task looks again at once, so that no wake-up is lost on this waker.
        let mut cx = Context::from_waker(Waker::noop());
        if serving.as_mut().poll(&mut cx).is_pending() {
            drop(spirula_xstream::spawn(Class::Client, serving));
        }
    }

    /// A read that need not be the primary's.
    fn begin_at_copy(&self, here: shard::read::Here, request: OpRequest) {
        self.spawn(Class::Client, |target| async move {
            let (id, tracked) = target.tracker().start(&request);
            target.share_map(&request.session, request.msg.map_epoch);
            tracked.started.set(Some(now()));
            let mut answered = None;
            if let Some((request, reply)) = shard::read::serve(&target, here, request).await? {
                answered = Some(reply.outputs.iter().map(|o| o.out_len() as u64).sum());
                request.answer(reply, target.epoch());
            }
            target.tracker().finish(id, answered);
            Ok(())
        });
    }

    /// Serves one request to its end.
    async fn serve(self, pg: Rc<Pg>, request: OpRequest) {
        let (id, tracked) = self.tracker().start(&request);
        tracing::debug!("{}", tracked.description());
        let (session, epoch) = (request.session.clone(), request.msg.map_epoch);
        self.share_map(&session, epoch);
        let limits = self.0.admit_limits.get();
        let (map, full) = (self.map(), self.fullness());
        let admission = admit(request, &pg, &map, &limits, full, UTime::from(wall_now()));
        tracked.started.set(Some(now()));
        let answered = match self.run(pg.clone(), admission).await {
            Ok(bytes) => bytes,
            Err(e) => {
                self.fail(e);
                None
            }
        };
        self.tracker().finish(id, answered);
        if answered.is_none() && !pg.active.get() {
            // Its interval is over, and the next one may serve already.
            if let Some(pg) = self.pgs().get(pg.pgid.pgid) {
                backoff::repeat(&session, &pg, self.epoch());
            }
            self.share_map(&session, epoch);
        }
    }

    /// Bytes of data answered with; `None`: dropped.
    async fn run(&self, pg: Rc<Pg>, admission: Admission) -> Result<Option<u64>, TargetError> {
        let (request, reply) = match admission {
            Admission::Run(admitted) if admitted.request.class.writes => {
                write(self, admitted).await?
            }
            Admission::Run(admitted) => read(self, admitted).await?,
            Admission::PgOps(request) => {
                let reply = pg_ops(self, &pg, &request).await?;
                // Of a PG that a new map took away while it was looked at, nothing is known.
                let reply = pg.active.get().then_some(reply);
                (request, reply)
            }
            Admission::Refuse(request, errno) => {
                let reply = Reply::refusal(&request, errno);
                (request, Some(reply))
            }
            Admission::Duplicate(request, ticket) => {
                pg.publisher.published(ticket).await?;
                let recorded = pg.recorded(&request.reqid);
                let reply = recorded.map(|(dup, _)| Reply::recorded(&request, &dup));
                (request, reply)
            }
            Admission::Drop(why) => {
                tracing::debug!("request dropped: {why}");
                return Ok(None);
            }
        };
        Ok(reply.map(|reply| {
            let bytes: u64 = reply.outputs.iter().map(|o| o.out_len() as u64).sum();
            tracing::debug!(reqid = %request.reqid, result = reply.result, bytes, "reply");
            request.answer(reply, self.epoch());
            bytes
        }))
    }

    /// Tells a client that is behind what happened since, before it gets its reply.
    fn share_map(&self, session: &Session, epoch_of_request: u32) {
        let known = session.known_epoch.get().max(epoch_of_request);
        session.known_epoch.set(known);
        if known >= self.epoch() {
            return;
        }
        if let Some(message) = self.0.maps.borrow().since(known) {
            let last = message.incremental_maps.keys().next_back().copied();
            session.link.send(message.to_raw(0, Features::PACIFIC));
            session.known_epoch.set(last.unwrap_or(known));
        }
    }
}

fn dropped(request: &OpRequest, why: &str) {
    tracing::debug!(reqid = %request.reqid, "dropped: {why}");
}
