//! The hosts of a simulated cluster, and how their processes start and end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_auth::{CryptoKey, METHOD_CEPHX, Principal};
use spirula_mon::{
    MemoryStorage, MkfsConfig, NewOsd, NewPoolSpec, Now, Proposal, State, Storage as _, Stored,
};
use spirula_osd::full::Level;
use spirula_osd::{Target, TargetConfig, TargetError};
use spirula_store::Options;
use spirula_wire::Decode as _;
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityNameStr, EntityType, Uuid};
use spirula_xstream::sim::{SimDisk, SimHost, SimWorld};
use spirula_xstream::{Class, JoinHandle};

use crate::Client;
use crate::mon::{self, MonConfig};

pub(crate) const DISK: &str = "/dev/disk";
pub(crate) const DISK_BYTES: u64 = 64 << 20;
const MON_PORT: u16 = 3300;
const OSD_PORT: u16 = 6800;

/// Monitors, OSDs and a host for clients.
pub struct Cluster {
    pub world: SimWorld,
    /// The first monitor.
    pub mon: SimHost,
    /// All of them, by rank.
    pub mons: Vec<SimHost>,
    /// The host of osd.0.
    pub osd: SimHost,
    pub client: SimHost,
    /// That host and more for clients.
    pub clients: Vec<SimHost>,
    mon_configs: Vec<RefCell<MonConfig>>,
    osds: Vec<Osd>,
    admin: Principal,
    /// A target that stops by itself is no failure of the run.
    tolerant: Cell<bool>,
}

/// An OSD on a host of its own.
struct Osd {
    host: SimHost,
    config: TargetConfig,
    target: Rc<RefCell<Option<Target>>>,
    /// Why its last process ended by itself.
    ended: Rc<RefCell<Option<TargetError>>>,
}

/// What a cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub seed: u64,
    pub pg_num: u32,
    pub mons: usize,
    pub osds: usize,
    /// Copies of the pool that is there from the start.
    pub size: usize,
    /// Hosts for clients.
    pub clients: usize,
}

impl Spec {
    pub fn new(seed: u64, pg_num: u32) -> Self {
        Self { seed, pg_num, mons: 1, osds: 1, size: 1, clients: 1 }
    }
}

impl Cluster {
    /// The pool that is there from the start.
    pub const POOL: i64 = 1;

    /// A new cluster of one OSD, formatted but not started; all of it follows from `seed`.
    pub fn new(seed: u64, pg_num: u32) -> Self {
        Self::with(&Spec::new(seed, pg_num))
    }

    /// As [`Self::new`], with this many OSDs on as many hosts.
    pub fn with_osds(seed: u64, pg_num: u32, count: usize) -> Self {
        Self::with(&Spec { osds: count, ..Spec::new(seed, pg_num) })
    }

    /// As [`Self::new`], with this many monitors.
    pub fn with_mons(seed: u64, pg_num: u32, count: usize) -> Self {
        Self::with(&Spec { mons: count, ..Spec::new(seed, pg_num) })
    }

    /// A new cluster, formatted but not started.
    pub fn with(spec: &Spec) -> Self {
        let world = SimWorld::new(spec.seed);
        let names = &["a", "b", "c", "d", "e"][..spec.mons];
        let (mon, osd, client) = (world.host("mon"), world.host("osd"), world.host("client"));
        let more = (1..spec.osds).map(|id| world.host(format!("osd{id}")));
        let hosts: Vec<SimHost> = std::iter::once(osd.clone()).chain(more).collect();
        hosts.iter().for_each(|host| drop(host.disk(DISK, DISK_BYTES)));
        let more = names[1..].iter().map(|name| world.host(format!("mon.{name}")));
        let mons: Vec<SimHost> = std::iter::once(mon.clone()).chain(more).collect();
        let more = (1..spec.clients).map(|n| world.host(format!("client{n}")));
        let clients: Vec<SimHost> = std::iter::once(client.clone()).chain(more).collect();
        let mut rng_seed = [0; 32];
        for part in rng_seed.chunks_exact_mut(8) {
            part.copy_from_slice(&world.random_u64().to_le_bytes());
        }
        let mut rng = ChaCha20Rng::from_seed(rng_seed);
        let mon_addrs: Vec<SocketAddr> =
            mons.iter().map(|host| SocketAddr::new(host.ip(), MON_PORT)).collect();
        let fsid = uuid(&mut rng);
        let osds: Vec<Osd> = (0..)
            .zip(hosts)
            .map(|(id, host)| {
                let config = osd_config(id, fsid, &host, &mon_addrs, &mut rng);
                Osd { host, config, target: Rc::default(), ended: Rc::default() }
            })
            .collect();
        let mkfs = mkfs_config(&osds, names, spec, &mut rng);
        let admin = Principal {
            name: EntityNameStr::new(EntityType::CLIENT, "admin"),
            key: mkfs.admin_key.clone(),
        };
        let mon_config = |(name, _): &(String, EntityAddrVec)| {
            RefCell::new(MonConfig {
                name: name.clone(),
                storage: MemoryStorage::default(),
                options: mkfs.options.clone(),
                append_max: Duration::from_millis(5),
                removed: Rc::default(),
            })
        };
        let mon_configs = mkfs.mons.iter().map(mon_config).collect();
        let tolerant = Cell::new(false);
        let cluster =
            Self { world, mon, mons, osd, client, clients, mon_configs, osds, admin, tolerant };
        cluster.format(mkfs);
        cluster
    }

    /// Starts the monitors on what their stores hold.
    pub fn start_mon(&self) {
        (0..self.mons.len()).for_each(|n| self.start_mon_of(n));
    }

    /// Starts the monitor of a rank.
    pub fn start_mon_of(&self, rank: usize) {
        let config = self.mon_configs[rank].borrow().clone();
        drop(self.mons[rank].spawn(Class::Client, mon::run(config)));
    }

    /// The store of a monitor is lost while it is down; it comes back with an empty one.
    pub fn lose_mon_store(&self, rank: usize) {
        let blank = self.blank_mon(rank);
        let mut config = self.mon_configs[rank].borrow_mut();
        config.storage = blank;
        config.removed.set(false);
    }

    /// A host for another monitor, with an empty store; it joins once the map names it (`mon add`).
    pub fn add_mon(&mut self, name: &str) -> SocketAddr {
        let host = self.world.host(format!("mon.{name}"));
        let addr = SocketAddr::new(host.ip(), MON_PORT);
        self.mons.push(host);
        let like = self.mon_configs[0].borrow().clone();
        self.mon_configs.push(RefCell::new(MonConfig {
            name: name.to_owned(),
            removed: Rc::default(),
            ..like
        }));
        self.lose_mon_store(self.mons.len() - 1);
        addr
    }

    /// The store of a monitor that joins, made of what another one knows.
    fn blank_mon(&self, rank: usize) -> MemoryStorage {
        let positions = self.mon_positions();
        let others = (0..positions.len()).filter(|other| *other != rank);
        let newest = others.max_by_key(|other| positions[*other]).expect("there are several");
        let mut other = self.mon_configs[newest].borrow().storage.clone();
        let state = spirula_mon::open(&mut other, None).expect("another monitor's store").0;
        let mut monmap = state.monmap.map().clone();
        let addr = SocketAddr::new(self.mons[rank].ip(), MON_PORT);
        monmap.add(&self.mon_configs[rank].borrow().name, EntityAddr::msgr2(addr, 0).into());
        let name = EntityNameStr::new(EntityType::MON, "");
        let key = state.auth.get(&name).expect("monitors have a key").key.clone();
        let mut fresh = MemoryStorage::default();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.world.random_u64().to_le_bytes());
        let now = Now { mono: self.world.now(), wall: state.stamp };
        let made = spirula_mon::mkfs_join(monmap, key, now, seed, &mut fresh);
        assert!(made.is_ok(), "{made:?}");
        fresh
    }

    /// A monitor's name and address.
    pub fn mon_name(&self, rank: usize) -> (String, SocketAddr) {
        let name = self.mon_configs[rank].borrow().name.clone();
        (name, SocketAddr::new(self.mons[rank].ip(), MON_PORT))
    }

    /// Whether the store of another monitor names this one in the monitor map.
    pub fn mon_is_named(&self, rank: usize) -> bool {
        let (name, _) = self.mon_name(rank);
        let others = (0..self.mons.len()).filter(|other| *other != rank);
        others.map(|other| self.mon_configs[other].borrow().storage.clone()).any(|mut store| {
            let (state, _) = spirula_mon::open(&mut store, None).expect("another monitor's store");
            state.monmap.map().mons.contains_key(&name)
        })
    }

    /// Whether a monitor has seen that it was removed; its process has ended then.
    pub fn mon_removed(&self, rank: usize) -> bool {
        let removed = self.mon_configs[rank].borrow().removed.get();
        if removed {
            self.mons[rank].kill();
        }
        removed
    }

    /// What the stores of the monitors hold, by rank.
    pub fn mon_stores(&self) -> Vec<MemoryStorage> {
        self.mon_configs.iter().map(|c| c.borrow().storage.clone()).collect()
    }

    /// What the monitors hold, by name, after the last entry that all of them have.
    pub fn mon_states(&self) -> Vec<(String, State)> {
        self.mon_states_from(0)
    }

    /// The same of those from a rank on: one that was removed is left behind.
    pub fn mon_states_from(&self, first: usize) -> Vec<(String, State)> {
        let stored: Vec<_> = self.mon_stores()[first..].iter_mut().map(load).collect();
        let last = |s: &Stored| {
            let start = s.snapshot.as_ref().map_or(0, |s| s.index);
            s.log.last().map_or(start, |e| e.index)
        };
        let common = stored.iter().map(last).min().unwrap_or(0);
        let names = self.mon_configs.iter().skip(first).map(|config| config.borrow().name.clone());
        names.zip(stored.iter().map(|stored| state_at(stored, common))).collect()
    }

    /// The indexes of the last entries of the monitors' logs.
    pub fn mon_positions(&self) -> Vec<u64> {
        let stores = self.mon_stores();
        let last = |mut store: MemoryStorage| {
            let stored = load(&mut store);
            stored.log.last().map_or(0, |e| e.index).max(stored.snapshot.map_or(0, |s| s.index))
        };
        stores.into_iter().map(last).collect()
    }

    /// Starts osd.0 on what its disk holds.
    pub fn start_osd(&self) {
        self.start_osd_of(0);
    }

    /// Starts all OSDs.
    pub fn start_osds(&self) {
        (0..self.osds.len()).for_each(|id| self.start_osd_of(id));
    }

    /// Starts a target on what its disk holds.
    pub fn start_osd_of(&self, id: usize) {
        let osd = &self.osds[id];
        let (config, target) = (osd.config.clone(), osd.target.clone());
        let (seed, tolerant, why) = (self.world.seed(), self.tolerant.get(), osd.ended.clone());
        drop(osd.host.spawn(Class::Client, async move {
            let started = |started: &Target, _| *target.borrow_mut() = Some(started.clone());
            let ended = spirula_osd::start(config, Path::new(DISK), Options::default(), started);
            let ended = ended.await;
            target.take();
            if let Err(e) = ended {
                assert!(tolerant, "seed {seed}: the target stopped: {e}");
                *why.borrow_mut() = Some(e);
            }
        }));
    }

    /// From now on a target may stop by itself: [`Cluster::osd_ended`] tells.
    pub fn tolerate_stops(&self) {
        self.tolerant.set(true);
    }

    /// Why an OSD's process ended by itself, once; its host is down then.
    pub fn osd_ended(&self, id: usize) -> Option<TargetError> {
        let why = self.osds[id].ended.take()?;
        self.osd_kill_of(id);
        Some(why)
    }

    /// How many OSDs there are.
    pub fn osd_count(&self) -> usize {
        self.osds.len()
    }

    /// The host of an OSD loses power.
    pub fn osd_power_loss_of(&self, id: usize) {
        self.osds[id].target.take();
        self.osds[id].host.power_loss();
    }

    /// The disk of an OSD.
    pub fn osd_disk(&self, id: usize) -> SimDisk {
        self.osds[id].host.disk(DISK, DISK_BYTES)
    }

    /// The disk of an OSD that does not run is exchanged for an empty one, formatted for the same id.
    pub fn replace_osd_disk(&self, id: usize) {
        self.osd_disk(id).replace();
        self.format_osd(&self.osds[id]);
    }

    /// The host of osd.0 loses power.
    pub fn osd_power_loss(&self) {
        self.osd_power_loss_of(0);
    }

    /// The process of osd.0 is killed; the machine and its caches live on.
    pub fn osd_kill(&self) {
        self.osd_kill_of(0);
    }

    /// The process of an OSD is killed.
    pub fn osd_kill_of(&self, id: usize) {
        self.osds[id].target.take();
        self.osds[id].host.kill();
    }

    /// The host of an OSD.
    pub fn osd_host(&self, id: usize) -> &SimHost {
        &self.osds[id].host
    }

    /// What runs of an OSD.
    pub fn target(&self, id: usize) -> Option<Target> {
        self.osds[id].target.borrow().clone()
    }

    /// A new client; to be called in a task of [`Cluster::client`].
    pub fn connector(&self) -> impl FnOnce() -> Client + use<> {
        let principal = self.admin.clone();
        let mons = self.osds[0].config.mons.clone();
        move || Client::start(principal, mons)
    }

    /// As [`Self::connector`], of a client that knows only the monitor of this rank.
    pub fn connector_to(&self, rank: usize) -> impl FnOnce() -> Client + use<> {
        let principal = self.admin.clone();
        let mon = SocketAddr::new(self.mons[rank].ip(), MON_PORT);
        move || Client::start(principal, vec![mon])
    }

    /// Whether the target runs, the map says so, and its PGs take requests.
    pub fn is_healthy(&self) -> bool {
        self.target(0).is_some_and(|target| {
            let pgs = target.pgs().all();
            target.is_up() && !pgs.is_empty() && pgs.iter().all(|pg| pg.active.get())
        })
    }

    /// What its OSDs say of themselves, for those who look for a fault.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for id in 0..self.osds.len() {
            match self.target(id) {
                None => out += &format!("\nosd.{id} does not run"),
                Some(t) => {
                    let (up, epoch, first) = (t.is_up(), t.epoch(), t.first_epoch());
                    out += &format!("\nosd.{id} up {up} epoch {epoch} first {first}");
                    for shard in t.shards().all() {
                        let active = t.pgs().get(shard.pgid.pgid).map(|pg| pg.active.get());
                        out += &format!("\n  {shard:?}, active {active:?}");
                    }
                }
            }
        }
        out
    }

    /// The number of the target's session with the monitor, while there is one.
    pub fn osd_mon_session(&self) -> Option<u64> {
        self.target(0).and_then(|target| target.mon().session())
    }

    /// The target counts as this full until it is told otherwise.
    pub fn pretend_full(&self, level: Level) {
        let told = self.pretend_full_of(0, level);
        let told = told.expect("it runs");
        assert!(self.world.run_until(Duration::from_secs(1), || told.is_finished()));
    }

    /// The same of any OSD that runs, as soon as it does something.
    pub fn pretend_full_of(&self, id: usize, level: Level) -> Option<JoinHandle<()>> {
        let target = self.target(id)?;
        Some(self.osds[id].host.spawn(Class::Client, async move {
            target.fullness().inject(&target, level, -1);
        }))
    }

    fn format(&self, mkfs: MkfsConfig) {
        let seed = self.world.seed();
        let mut stores = self.mon_stores();
        let made = self.mon.block_on(async move {
            let now = Now { mono: spirula_xstream::now(), wall: spirula_xstream::wall_now() };
            let state = spirula_mon::mkfs(&mkfs, now, &mut stores[0])?;
            for ((name, _), store) in mkfs.mons.iter().zip(&mut stores).skip(1) {
                spirula_mon::mkfs_peer(&state, name, store)?;
            }
            Ok::<(), spirula_mon::MkfsError>(())
        });
        assert!(matches!(made, Ok(Ok(()))), "seed {seed}: mkfs: {made:?}");
        self.osds.iter().for_each(|osd| self.format_osd(osd));
    }

    fn format_osd(&self, osd: &Osd) {
        let config = osd.config.clone();
        let formatting = async move { spirula_osd::format(Path::new(DISK), None, &config).await };
        let made = osd.host.block_on(formatting);
        let seed = self.world.seed();
        assert!(matches!(made, Ok(Ok(()))), "seed {seed}: format: {made:?}");
    }
}

impl Drop for Cluster {
    /// A target's tasks and its handle here would keep each other, and the world, alive.
    fn drop(&mut self) {
        for osd in &self.osds {
            osd.target.take();
        }
    }
}

fn load(store: &mut MemoryStorage) -> Stored {
    store.load().expect("in memory")
}

/// The state after the entry at `index`.
fn state_at(stored: &Stored, index: u64) -> State {
    let snapshot = stored.snapshot.as_ref().expect("every store has one");
    let mut state = State::from_bytes(&snapshot.state).expect("its own encoding");
    for entry in stored.log.iter().filter(|e| e.index <= index) {
        if !entry.config && !entry.data.is_empty() {
            let proposal = Proposal::from_bytes(&entry.data).expect("its own encoding");
            state.apply(&proposal).expect("what was agreed on applies");
        }
    }
    state
}

fn osd_config(
    osd_id: i32,
    fsid: Uuid,
    host: &SimHost,
    mons: &[SocketAddr],
    rng: &mut ChaCha20Rng,
) -> TargetConfig {
    TargetConfig {
        osd_id,
        fsid,
        osd_uuid: uuid(rng),
        key: CryptoKey::generate(Duration::ZERO, rng),
        auth_methods: vec![METHOD_CEPHX],
        mons: mons.to_vec(),
        bind: SocketAddr::new(host.ip(), OSD_PORT),
        hostname: host.name(),
        metadata: Default::default(),
        options: Default::default(),
    }
}

fn mkfs_config(osds: &[Osd], names: &[&str], spec: &Spec, rng: &mut ChaCha20Rng) -> MkfsConfig {
    let (pg_num, size) = (spec.pg_num, spec.size.to_string());
    let options = [
        ("osd_pool_default_size", size.as_str()),
        ("osd_crush_chooseleaf_type", "0"),
        ("mon_allow_pool_delete", "true"),
        // All OSDs are below one host in the CRUSH map.
        ("mon_osd_reporter_subtree_level", "osd"),
    ];
    let new = |osd: &Osd| NewOsd {
        uuid: osd.config.osd_uuid,
        key: osd.config.key.clone(),
        bytes: DISK_BYTES,
    };
    let addr = |addr: &SocketAddr| EntityAddr::msgr2(*addr, 0).into();
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    MkfsConfig {
        fsid: osds[0].config.fsid,
        mons: names
            .iter()
            .zip(&osds[0].config.mons)
            .map(|(name, at)| ((*name).to_owned(), addr(at)))
            .collect(),
        hostname: osds[0].config.hostname.clone(),
        admin_key: CryptoKey::generate(Duration::ZERO, rng),
        mgrs: Vec::new(),
        osds: osds.iter().map(new).collect(),
        device_class: "ssd".into(),
        pools: vec![NewPoolSpec { name: "p".into(), pg_num, application: String::new() }],
        options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        seed,
    }
}

fn uuid(rng: &mut ChaCha20Rng) -> Uuid {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    Uuid(bytes)
}
