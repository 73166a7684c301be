//! Starting and stopping daemons inside this process, from a cluster's identity.
//!
//! Invariants: each OSD is one thread with its own xstream; OSDs stop before the manager and the
//! monitor, so that they can say goodbye; a daemon that fails is reported by name.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result, anyhow, bail};
use spirula_auth::{CryptoKey, Keyring};
use spirula_maps::MonMap;
use spirula_mon::{
    LogControl, MkfsConfig, MonServer, MonServerConfig, NewOsd, NewPoolSpec, RedbStorage,
    StartError,
};
use spirula_osd::TargetConfig;
use spirula_wire::Decode as _;
use spirula_wire::types::{EntityAddr, EntityNameStr, EntityType, Uuid, pg_state};
use tokio::sync::mpsc;

use crate::admin_socket::{
    self, AdminReply, AdminSocket, DaemonAdmin, FnAdmin, MgrAdmin, OsdInbox,
};
use crate::cluster_dir::{DeviceClass, Identity, OsdIdentity, create_store_dir, mon_name, osd_dir};
use crate::logging::{self, LogHandle};
use crate::mkfs::entropy;
use crate::print::say;
use crate::procs::Role;

/// The pool that every new cluster has.
const FIRST_POOL: &str = "rbd";
const FIRST_POOL_PGS: u32 = 32;
/// How long OSDs may take to format and to listen.
const OSD_START_MAX: Duration = Duration::from_secs(30);

/// How long PGs may take to become active and clean, and how often to look.
const CLEAN_MAX: Duration = Duration::from_secs(30);
const CLEAN_POLL: Duration = Duration::from_millis(5);

/// All monitors of this process were taken out of the cluster: no failure, but nothing is left to do.
#[derive(Debug, thiserror::Error)]
#[error("the monitor was taken out of the monitor map")]
pub(crate) struct Removed;

/// Daemons that run in this process.
pub(crate) struct Daemons {
    mons: Vec<MonServer>,
    mgr: Option<spirula_mgr::server::Handle>,
    osds: Vec<Osd>,
    sockets: Vec<AdminSocket>,
    /// Names and errors of OSDs that ended.
    ended: mpsc::UnboundedReceiver<(String, Option<String>)>,
    ended_sender: mpsc::UnboundedSender<(String, Option<String>)>,
}

struct Osd {
    handle: spirula_xstream::Handle,
    thread: JoinHandle<()>,
}

/// Makes the stores of a new cluster: the monitor's, and one for each OSD.
pub(crate) async fn mkfs(dir: &Path, identity: &Identity) -> Result<()> {
    let config = MkfsConfig {
        fsid: fsid(identity)?,
        mons: identity
            .mons()
            .into_iter()
            .map(|(name, port)| (name, EntityAddr::msgr2(local(port), 0).into()))
            .collect(),
        hostname: hostname(),
        admin_key: key(&identity.admin_key)?,
        mgrs: vec![("x".into(), key(&identity.mgr_key)?)],
        osds: identity.osds.iter().map(|o| new_osd(o, identity)).collect::<Result<_>>()?,
        device_class: "ssd".into(),
        pools: vec![NewPoolSpec {
            name: FIRST_POOL.into(),
            pg_num: FIRST_POOL_PGS,
            application: "rbd".into(),
        }],
        options: options(identity),
        seed: entropy()?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?;
    let now = spirula_mon::Now { mono: Duration::ZERO, wall: now };
    let mut first = None;
    for (name, _) in identity.mons() {
        let mut storage = RedbStorage::create(&mon_dir(dir, &name))?;
        match &first {
            None => first = Some(spirula_mon::mkfs(&config, now, &mut storage)?),
            Some(state) => spirula_mon::mkfs_peer(state, &name, &mut storage)?,
        }
    }
    Ok(())
}

/// Makes the store of a monitor that joins: it knows the others by a monitor map and proves itself
/// to them by the key of the keyring's `mon.`, and takes the rest over from them.
pub(crate) fn mkfs_mon(dir: &Path, id: &str, monmap: &Path, keyring: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let map = MonMap::from_bytes(&read(monmap)?)
        .with_context(|| format!("{}: no monitor map", monmap.display()))?;
    if map.rank_of(id).is_none() {
        bail!(
            "{}: it does not name mon.{id}; `ceph mon add {id} ADDR`, then get the map again",
            monmap.display()
        );
    }
    let keys =
        Keyring::parse_bytes(&read(keyring)?).with_context(|| keyring.display().to_string())?;
    let name = EntityNameStr::new(EntityType::MON, "");
    let auth = keys.get(&name);
    let auth = auth.with_context(|| format!("{}: no key of mon.", keyring.display()))?;
    let path = mon_dir(dir, id);
    if path.exists() {
        bail!("{}: there is a store; without --monmap and --keyring it starts", path.display());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?;
    let now = spirula_mon::Now { mono: Duration::ZERO, wall: now };
    let mut storage = RedbStorage::create(&path)?;
    Ok(spirula_mon::mkfs_join(map, auth.key.clone(), now, entropy()?, &mut storage)?)
}

fn new_osd(osd: &OsdIdentity, identity: &Identity) -> Result<NewOsd> {
    Ok(NewOsd { uuid: uuid(&osd.uuid)?, key: key(&osd.key)?, bytes: identity.device_bytes })
}

/// Starts one daemon in this process.
pub(crate) async fn start_one(dir: &Path, identity: &Identity, role: Role) -> Result<Daemons> {
    let mut daemons = Daemons::new();
    match role {
        Role::Mon(n) => daemons.start_mon(dir, identity, &mon_name(n)).await?,
        Role::Mgr => daemons.start_mgr(dir, identity).await?,
        Role::Osd(id) => {
            let osd = identity.osds.iter().find(|o| o.id == id);
            let osd = osd.with_context(|| format!("this cluster has no osd.{id}"))?;
            daemons.start_osds(dir, identity, &[osd])?;
        }
    }
    Ok(daemons)
}

impl Daemons {
    pub(crate) fn new() -> Self {
        let (ended_sender, ended) = mpsc::unbounded_channel();
        Self {
            mons: Vec::new(),
            mgr: None,
            osds: Vec::new(),
            sockets: Vec::new(),
            ended,
            ended_sender,
        }
    }

    /// Starts all daemons and waits until every PG is active and clean. After an error, or given up
    /// early, there may be some to stop.
    pub(crate) async fn start(
        &mut self,
        dir: &Path,
        identity: &Identity,
        is_new: bool,
    ) -> Result<()> {
        if is_new {
            mkfs(dir, identity).await?;
        }
        for (name, _) in identity.mons() {
            self.start_mon_if_member(dir, identity, &name).await?;
        }
        self.start_mgr(dir, identity).await?;
        let osds: Vec<_> = identity.osds.iter().collect();
        self.start_osds(dir, identity, &osds)?;
        match tokio::time::timeout(CLEAN_MAX, self.wait_clean()).await {
            Ok(result) => result,
            Err(_) => bail!(
                "not all placement groups were active+clean after {CLEAN_MAX:?}; see the logs"
            ),
        }
    }

    /// Waits until the manager has told the monitor, if that runs here, that every PG is active and
    /// clean.
    pub(crate) async fn wait_clean(&mut self) -> Result<()> {
        while self.mons.iter().any(|mon| !mon.inspect(is_clean)) {
            tokio::select! {
                error = self.failed() => return Err(error),
                () = tokio::time::sleep(CLEAN_POLL) => {}
            }
        }
        Ok(())
    }

    async fn start_mon(&mut self, dir: &Path, identity: &Identity, id: &str) -> Result<()> {
        let storage = RedbStorage::open(&mon_dir(dir, id))?;
        let name = format!("mon.{id}");
        let config = MonServerConfig {
            name: id.into(),
            fsid: Some(fsid(identity)?),
            storage: Box::new(storage),
            options: options(identity),
            log: log_control(&name)?,
        };
        let mon = logging::scope(&name, MonServer::start(config)).await.context(name.clone())?;
        let admin = mon.admin();
        let answer = move |json: &str| {
            let result = admin(json);
            AdminReply { code: result.code, status: result.status, out: result.out.to_vec() }
        };
        self.mons.push(mon);
        self.listen(dir, &name, Arc::new(FnAdmin(answer)))
    }

    async fn start_mgr(&mut self, dir: &Path, identity: &Identity) -> Result<()> {
        let config = spirula_mgr::server::Config {
            name: "x".into(),
            fsid: fsid(identity)?,
            key: key(&identity.mgr_key)?,
            mons: mon_addrs(identity),
            bind: bind_addr(identity, 1),
            metadata: metadata(),
            seed: entropy()?,
        };
        let start = spirula_mgr::server::start(config, log_control("mgr.x")?);
        let mgr = logging::scope("mgr.x", start).await?;
        let admin = MgrAdmin(mgr.admin());
        self.mgr = Some(mgr);
        self.listen(dir, "mgr.x", Arc::new(admin))
    }

    /// As [`Self::start_mon`]; one that the cluster removed since it was made is left out.
    async fn start_mon_if_member(
        &mut self,
        dir: &Path,
        identity: &Identity,
        id: &str,
    ) -> Result<()> {
        let result = self.start_mon(dir, identity, id).await;
        match result.as_ref().err().and_then(|e| e.downcast_ref()) {
            Some(StartError::Stranger(_)) => {
                say!("mon.{id} was taken out of the monitor map; it does not start");
                Ok(())
            }
            _ => result,
        }
    }

    /// Opens the admin socket of a daemon.
    fn listen(&mut self, dir: &Path, name: &str, daemon: Arc<dyn DaemonAdmin>) -> Result<()> {
        let log = log_handle()?;
        self.sockets.push(AdminSocket::bind_with_log(&admin_socket(dir, name), name, daemon, log)?);
        Ok(())
    }

    /// Starts the OSDs side by side and waits until all of them listen.
    fn start_osds(&mut self, dir: &Path, identity: &Identity, osds: &[&OsdIdentity]) -> Result<()> {
        let (started, starting) = std_mpsc::channel();
        for osd in osds {
            let (admin, inbox) = admin_socket::osd();
            let job = OsdJob::new(dir, identity, osd, inbox)?;
            let (started, ended) = (started.clone(), self.ended_sender.clone());
            let name = format!("osd.{}", osd.id);
            let thread = std::thread::Builder::new().name(name.clone());
            let for_thread = name.clone();
            let thread = thread.spawn(move || {
                let name = for_thread;
                let _log = logging::daemon(&name);
                let result = job.run(&started);
                let error = result.err().map(|e| format!("{e:#}"));
                // Nobody listens any more when the process is ending.
                let _ =
                    started.send(Err(format!("{name}: {}", error.as_deref().unwrap_or("ended"))));
                let _ = ended.send((name, error));
            })?;
            match starting.recv_timeout(OSD_START_MAX) {
                Ok(Ok(handle)) => self.osds.push(Osd { handle, thread }),
                Ok(Err(error)) => bail!(error),
                Err(_) => bail!("osd.{} did not start in {OSD_START_MAX:?}", osd.id),
            }
            self.listen(dir, &name, Arc::new(admin))?;
        }
        Ok(())
    }

    /// Returns when a daemon ends by itself.
    pub(crate) async fn failed(&mut self) -> Error {
        let mut mons: Vec<_> =
            self.mons.iter().map(|mon| (mon, Some(Box::pin(mon.failed())))).collect();
        let mon = std::future::poll_fn(|cx| {
            for (mon, failed) in &mut mons {
                if failed.as_mut().is_some_and(|f| f.as_mut().poll(cx).is_ready()) {
                    *failed = None;
                    // One that was removed is not missed, unless it is all that runs here.
                    if !mon.is_removed() {
                        return Poll::Ready(anyhow!("a monitor stopped: its store failed"));
                    }
                }
            }
            let all = !mons.is_empty() && mons.iter().all(|(_, failed)| failed.is_none());
            if all { Poll::Ready(Removed.into()) } else { Poll::Pending }
        });
        tokio::select! {
            error = mon => error,
            Some((name, error)) = self.ended.recv() => {
                anyhow!("{name} stopped: {}", error.unwrap_or_else(|| "no reason given".into()))
            }
        }
    }

    /// Stops OSDs, manager and monitor, in this order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.sockets.clear();
        self.osds.iter().for_each(|osd| osd.handle.stop());
        let threads: Vec<_> = self.osds.drain(..).map(|osd| osd.thread).collect();
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        let panicked = joined.await?;
        if let Some(mgr) = self.mgr.take() {
            mgr.stop().await;
        }
        for mon in self.mons.drain(..) {
            mon.stop().await;
        }
        let mut errors = Vec::new();
        while let Ok((name, error)) = self.ended.try_recv() {
            errors.extend(error.map(|e| format!("{name}: {e}")));
        }
        if panicked > 0 || !errors.is_empty() {
            bail!("{panicked} OSD thread(s) panicked; {}", errors.join("; "));
        }
        Ok(())
    }
}

fn log_handle() -> Result<&'static LogHandle> {
    logging::handle().context("logging was not started")
}

/// How `ceph tell NAME log ...` reaches the log.
fn log_control(name: &str) -> Result<LogControl> {
    let (log, name) = (log_handle()?.clone(), name.to_owned());
    Ok(Arc::new(move |prefix, done| log.command(&name, prefix, done)))
}

fn is_clean(service: &spirula_mon::Service) -> bool {
    let pgs: i64 = service.state().osd.map().pools.values().map(|p| i64::from(p.pg_num)).sum();
    let digest = &service.live().digest;
    let clean = pg_state::ACTIVE | pg_state::CLEAN;
    digest.num_pg == pgs && digest.num_pg_by_state.keys().all(|state| state & clean == clean)
}

/// What one OSD thread does.
struct OsdJob {
    config: TargetConfig,
    device: PathBuf,
    device_bytes: u64,
    inbox: OsdInbox,
    log: LogControl,
}

impl OsdJob {
    fn new(dir: &Path, identity: &Identity, osd: &OsdIdentity, inbox: OsdInbox) -> Result<Self> {
        let config = TargetConfig {
            osd_id: osd.id as i32,
            fsid: fsid(identity)?,
            osd_uuid: uuid(&osd.uuid)?,
            key: key(&osd.key)?,
            mons: mon_addrs(identity),
            bind: bind_addr(identity, 2 + osd.id as u16),
            hostname: hostname(),
            metadata: metadata(),
            options: osd_options(identity),
            auth_methods: vec![spirula_auth::METHOD_CEPHX],
        };
        Ok(Self {
            config,
            device: device(dir, identity, osd)?,
            device_bytes: identity.device_bytes,
            inbox,
            log: log_control(&format!("osd.{}", osd.id))?,
        })
    }

    /// Formats the device if it is new, then serves until told to stop.
    fn run(
        self,
        started: &std_mpsc::Sender<Result<spirula_xstream::Handle, String>>,
    ) -> Result<()> {
        let name = format!("osd.{}", self.config.osd_id);
        let started = started.clone();
        let config = spirula_xstream::Config::new(name).pin_nth(self.config.osd_id as usize);
        let done = spirula_xstream::run(config, async move {
            if !self.device.exists() {
                // Under another name until complete: a crash leaves no half-made store behind.
                let fresh = self.device.with_extension("new");
                let _ = std::fs::remove_file(&fresh);
                spirula_osd::format(&fresh, Some(self.device_bytes), &self.config).await?;
                std::fs::rename(&fresh, &self.device)?;
            }
            let (inbox, log) = (self.inbox, self.log);
            spirula_osd::start(self.config, &self.device, Default::default(), move |target, _| {
                target.set_log_control(log);
                let serve = inbox.serve(target.clone());
                drop(spirula_xstream::spawn(spirula_xstream::Class::Background, serve));
                let _ = started.send(Ok(spirula_xstream::handle()));
            })
            .await?;
            Ok::<(), Error>(())
        });
        done.context("xstream")?
    }
}

/// The OSD's device: a file in its directory, or one in memory for class `ram`.
fn device(dir: &Path, identity: &Identity, osd: &OsdIdentity) -> Result<PathBuf> {
    let parent = match identity.class {
        DeviceClass::File => osd_dir(dir, osd.id),
        DeviceClass::Ram => {
            PathBuf::from(format!("/dev/shm/spirula.{}.osd.{}", identity.fsid, osd.id))
        }
    };
    create_store_dir(&parent).with_context(|| parent.display().to_string())?;
    Ok(parent.join("block"))
}

/// Removes what class `ram` left in memory.
pub(crate) fn forget_ram(identity: &Identity) {
    if identity.class == DeviceClass::Ram {
        for osd in &identity.osds {
            let path = format!("/dev/shm/spirula.{}.osd.{}", identity.fsid, osd.id);
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

pub(crate) fn admin_socket(dir: &Path, name: &str) -> PathBuf {
    dir.join("run").join(format!("ceph-{name}.asok"))
}

fn mon_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("mon.{name}"))
}

fn mon_addrs(identity: &Identity) -> Vec<SocketAddr> {
    identity.mons().into_iter().map(|(_, port)| local(port)).collect()
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The base plus `offset`, or any free port.
fn bind_addr(identity: &Identity, offset: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, identity.port_base.map_or(0, |base| base + offset)).into()
}

/// Those of an OSD: the devices it is made with, too.
fn osd_options(identity: &Identity) -> BTreeMap<String, String> {
    let mut all = options(identity);
    let sizes = [
        ("bluestore_block_db_size", identity.meta_device_bytes),
        ("bluestore_block_wal_size", identity.wal_device_bytes),
    ];
    all.extend(sizes.map(|(name, bytes)| (name.to_owned(), bytes.to_string())));
    all
}

/// Options of the generated ceph.conf that daemons honour.
fn options(identity: &Identity) -> BTreeMap<String, String> {
    let (size, min_size) = (identity.size.to_string(), identity.min_size().to_string());
    [
        ("osd_pool_default_size", size.as_str()),
        ("osd_pool_default_min_size", &min_size),
        ("osd_pool_default_pg_num", "32"),
        ("osd_pool_default_pgp_num", "32"),
        ("osd_pool_default_pg_autoscale_mode", "off"),
        ("osd_crush_chooseleaf_type", "0"),
        ("mon_allow_pool_size_one", "true"),
        ("mon_allow_pool_delete", "true"),
        ("mon_warn_on_pool_no_redundancy", "false"),
        ("mon_osd_reporter_subtree_level", "osd"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

fn metadata() -> BTreeMap<String, String> {
    spirula_mon::server::host_metadata(&Default::default())
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // CRUSH names hosts by their short name.
    name.trim().split('.').next().filter(|n| !n.is_empty()).unwrap_or("localhost").to_owned()
}

fn fsid(identity: &Identity) -> Result<Uuid> {
    uuid(&identity.fsid)
}

fn uuid(text: &str) -> Result<Uuid> {
    text.parse().map_err(|_| anyhow!("spirula.json: `{text}` is not a UUID"))
}

fn key(text: &str) -> Result<CryptoKey> {
    CryptoKey::from_base64(text).context("spirula.json: a key does not decode")
}
