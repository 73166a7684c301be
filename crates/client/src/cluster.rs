//! The handle on a cluster: commands, statistics, pools.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spirula_maps::{MonMap, OsdMap};
use spirula_monc::{PoolRequest, Reply as MonReply, Request};
use spirula_wire::msg::command::{Command, CommandReply};
use spirula_wire::msg::mon::{GetPoolStatsReply, LogEntry, StatfsReply, pool_op};
use spirula_wire::types::{EntityName, PgId, Uuid};
use spirula_wire::{Features, Message as _};
use tokio::sync::{mpsc, oneshot};

use crate::config::{ConnectConfig, Overrides, client_name};
use crate::errno::Errno;
use crate::error::Error;
use crate::ioctx::IoCtx;
use crate::limits::LOG_LINES_MAX;
use crate::link::{Core, INFLIGHT_UNIT, Shared};
use crate::mgrc::Door;
use crate::objecter::{CommandTarget, Failure, OpReply, OpRequest, Reply, Work};

/// A connection to a cluster; clones share it. It ends when the last clone, [`IoCtx`] and running
/// request are dropped.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

/// What a command came to. A negative `r` is an error number, with its text in `rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    pub r: i32,
    pub rs: String,
    pub outbl: Bytes,
}

impl CommandOutput {
    pub fn error(&self) -> Option<Errno> {
        Errno::of(self.r)
    }

    /// The output, or the error number of a refusal.
    pub fn into_result(self) -> Result<Bytes, Error> {
        Error::check(self.r).map(|()| self.outbl)
    }
}

impl From<CommandReply> for CommandOutput {
    fn from(reply: CommandReply) -> Self {
        let CommandReply { r, rs, outbl } = reply;
        Self { r, rs, outbl }
    }
}

/// One daemon to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// By name: `a`.
    Mon(String),
    Osd(i32),
    /// The OSD that leads a PG.
    Pg(PgId),
    /// The active manager.
    Mgr,
}

impl Cluster {
    /// Returns when a session with a monitor is open and the cluster's map is here.
    pub async fn connect(config: ConnectConfig) -> Result<Self, Error> {
        let timeout = config.connect_timeout;
        let name = config.principal.name.clone();
        let cluster = Self { shared: Shared::start(config)? };
        cluster.shared.with(|core, now| core.monc.subscribe(now, "osdmap", 0, true));
        let mut status = cluster.shared.status();
        let ready = status.wait_for(|s| s.refused.is_some() || s.connected && s.epoch > 0);
        let refused = match tokio::time::timeout(timeout, ready).await {
            Ok(Ok(status)) => status.refused.clone(),
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => return Err(Error::TimedOut(timeout)),
        };
        match refused {
            Some(error) => Err(Error::Auth { name, error }),
            None => Ok(cluster),
        }
    }

    /// As Ceph's own tools would.
    pub async fn connect_from_conf(overrides: &Overrides) -> Result<Self, Error> {
        Self::connect(ConnectConfig::from_conf(overrides)?).await
    }

    pub fn fsid(&self) -> Uuid {
        self.map().fsid
    }

    /// Our number in the cluster.
    pub fn global_id(&self) -> u64 {
        self.shared.lock().monc.global_id()
    }

    /// How OSDs name us.
    pub fn entity(&self) -> EntityName {
        client_name(self.global_id())
    }

    /// The newest OSD map we have.
    pub fn map(&self) -> Arc<OsdMap> {
        self.shared.map().unwrap_or_default()
    }

    pub fn monmap(&self) -> Option<Arc<MonMap>> {
        self.shared.lock().monc.monmap().cloned()
    }

    /// Sends one JSON object to the monitors.
    pub async fn mon_command(
        &self,
        cmd: impl Into<String>,
        input: Bytes,
    ) -> Result<CommandOutput, Error> {
        let cmd = cmd.into();
        match self.ask_mon(Request::Command { cmd, inbl: input }).await? {
            MonReply::Command { r, rs, outbl, .. } => Ok(CommandOutput { r, rs, outbl }),
            _ => Err(Error::Closed),
        }
    }

    /// Sends one JSON object to the active manager; waits while there is none.
    pub async fn mgr_command(
        &self,
        cmd: impl Into<String>,
        input: Bytes,
    ) -> Result<CommandOutput, Error> {
        self.ask_mgr(Door::Cluster, cmd.into(), input).await
    }

    pub async fn osd_command(
        &self,
        osd: i32,
        cmd: impl Into<String>,
        input: Bytes,
    ) -> Result<CommandOutput, Error> {
        self.tell(&Daemon::Osd(osd), cmd, input).await
    }

    /// Sends one JSON object to one daemon.
    pub async fn tell(
        &self,
        daemon: &Daemon,
        cmd: impl Into<String>,
        input: Bytes,
    ) -> Result<CommandOutput, Error> {
        let (cmd, inbl) = (cmd.into(), input);
        let target = match daemon {
            Daemon::Mon(name) => return self.tell_mon(name, cmd, inbl).await,
            Daemon::Mgr => return self.ask_mgr(Door::Daemon, cmd, inbl).await,
            Daemon::Osd(osd) => CommandTarget::Osd(*osd),
            Daemon::Pg(pg) => CommandTarget::Pg(*pg),
        };
        // An OSD or pool that is not in our map may be in a newer one.
        self.wait_for_latest_map().await?;
        let work = Work::Command { target, cmd, inbl };
        match self.submit(work).await? {
            Ok(Reply::Command(reply)) => Ok(reply.into()),
            Ok(Reply::Op(_)) => Err(Error::Closed),
            Err(Failure::TimedOut) => Err(self.osd_timed_out()),
            Err(Failure::NoOsd) => match daemon {
                Daemon::Osd(osd) => Err(Error::NoDaemon(format!("osd.{osd}"))),
                _ => Err(Error::NoDaemon("OSD".to_owned())),
            },
            Err(Failure::NoPool) => match daemon {
                Daemon::Pg(pg) => Err(Error::NoPool(pg.pool.to_string())),
                _ => Err(Error::NoPool(String::new())),
            },
        }
    }

    pub async fn statfs(&self) -> Result<StatfsReply, Error> {
        match self.ask_mon(Request::Statfs { pool: None }).await? {
            MonReply::Statfs(reply) => Ok(reply),
            _ => Err(Error::Closed),
        }
    }

    /// Of the named pools; those that do not exist are left out.
    pub async fn pool_stats(&self, pools: Vec<String>) -> Result<GetPoolStatsReply, Error> {
        match self.ask_mon(Request::PoolStats { pools }).await? {
            MonReply::PoolStats(reply) => Ok(reply),
            _ => Err(Error::Closed),
        }
    }

    /// Ids and names of all pools.
    pub fn list_pools(&self) -> Vec<(i64, String)> {
        let map = self.map();
        let names = map.pool_names.iter();
        names.map(|(id, name)| (*id, name.clone())).collect()
    }

    /// EEXIST if there is one of this name.
    pub async fn create_pool(&self, name: &str) -> Result<(), Error> {
        // The monitors call making it again a success.
        self.wait_for_latest_map().await?;
        if self.map().pool_by_name(name).is_some() {
            return Err(Error::Server(Errno::EEXIST));
        }
        self.pool_op(PoolRequest {
            op: pool_op::CREATE,
            name: name.to_owned(),
            ..PoolRequest::default()
        })
        .await
    }

    /// Deletes a pool and everything in it.
    pub async fn delete_pool(&self, name: &str) -> Result<(), Error> {
        let pool = self.pool_id(name).await?;
        self.pool_op(PoolRequest {
            pool: u32::try_from(pool).unwrap_or(u32::MAX),
            op: pool_op::DELETE,
            // The id says which pool. Monitors do nothing, and call it a success, when this is
            // the name of any pool.
            name: "delete".to_owned(),
            ..PoolRequest::default()
        })
        .await
    }

    /// Objects of the pool of this name.
    pub async fn pool(&self, name: &str) -> Result<IoCtx, Error> {
        Ok(IoCtx::new(self.clone(), self.pool_id(name).await?))
    }

    /// If our map has no such pool, the newest one is asked for.
    pub async fn pool_id(&self, name: &str) -> Result<i64, Error> {
        if let Some(id) = self.map().pool_by_name(name) {
            return Ok(id);
        }
        self.wait_for_latest_map().await?;
        let id = self.map().pool_by_name(name);
        id.ok_or_else(|| Error::NoPool(name.to_owned()))
    }

    /// Returns when our map is at least as new as what the monitors have now.
    pub async fn wait_for_latest_map(&self) -> Result<(), Error> {
        let what = "osdmap".to_owned();
        match self.ask_mon(Request::GetVersion { what }).await? {
            MonReply::Version { newest, .. } => {
                let newest = u32::try_from(newest).unwrap_or(u32::MAX);
                self.wait_for_map(newest).await
            }
            _ => Err(Error::Closed),
        }
    }

    /// Returns when our map has this epoch or a newer one.
    pub async fn wait_for_map(&self, epoch: u32) -> Result<(), Error> {
        let mut status = self.shared.status();
        self.shared.with(|core, _| {
            if core.objecter.epoch() < epoch {
                core.objecter.want_newer();
            }
        });
        let reached = async {
            let reached = status.wait_for(|s| s.epoch >= epoch).await;
            reached.map(|_| ()).map_err(|_| Error::Closed)
        };
        within(self.shared.config.mon_timeout, reached).await
    }

    /// The cluster log as it grows, from `level` (`debug`, `info`, `sec`, `warn`, `error`) on.
    pub fn watch_log(&self, level: &str) -> mpsc::Receiver<LogEntry> {
        let (sender, receiver) = mpsc::channel(LOG_LINES_MAX);
        let what = format!("log-{level}");
        self.shared.with(|core, now| {
            core.log_watchers.push(sender);
            core.monc.subscribe(now, &what, 0, false);
        });
        receiver
    }

    pub(crate) async fn op(&self, request: OpRequest) -> Result<OpReply, Error> {
        let bytes: usize = request.ops.iter().map(|op| op.indata.len()).sum();
        let units = (bytes as u64).div_ceil(INFLIGHT_UNIT);
        let units = units.min(crate::limits::INFLIGHT_BYTES_MAX / INFLIGHT_UNIT) as u32;
        let _op = self.shared.inflight_ops.acquire().await;
        let _units = self.shared.inflight_units.acquire_many(units).await;
        match self.submit(Work::Op(request)).await? {
            Ok(Reply::Op(reply)) => Ok(reply),
            Ok(Reply::Command(_)) => Err(Error::Closed),
            Err(Failure::NoPool) => Err(Error::NoPool("(deleted)".to_owned())),
            Err(Failure::NoOsd) => Err(Error::NoDaemon("OSD".to_owned())),
            Err(Failure::TimedOut) => Err(self.osd_timed_out()),
        }
    }

    fn osd_timed_out(&self) -> Error {
        Error::TimedOut(self.shared.config.osd_timeout.unwrap_or_default())
    }

    async fn submit(&self, work: Work) -> Result<Result<Reply, Failure>, Error> {
        let (sender, receiver) = oneshot::channel();
        let timeout = self.shared.config.osd_timeout;
        let tid = self.shared.with_objecter(|core, now| {
            let tid = core.objecter.submit(now, work, timeout.map(|t| now + t));
            core.op_waiters.insert(tid, sender);
            tid
        });
        let guard = self.cancel_on_drop(|core: &mut Core| {
            if core.op_waiters.remove(&tid).is_some() {
                core.objecter.cancel(tid);
            }
        });
        let result = receiver.await.map_err(|_| Error::Closed);
        guard.disarm();
        result
    }

    async fn ask_mon(&self, request: Request) -> Result<MonReply, Error> {
        let (sender, receiver) = oneshot::channel();
        let tid = self.shared.with(|core, now| {
            let tid = core.monc.request(now, request);
            core.mon_waiters.insert(tid, sender);
            tid
        });
        let _guard = self.cancel_on_drop(|core: &mut Core| {
            if core.mon_waiters.remove(&tid).is_some() {
                core.monc.cancel(tid);
            }
        });
        self.answer(receiver).await
    }

    async fn ask_mgr(&self, door: Door, cmd: String, inbl: Bytes) -> Result<CommandOutput, Error> {
        let (sender, receiver) = oneshot::channel();
        let tid = self.shared.with(|core, now| {
            core.monc.subscribe(now, "mgrmap", 0, false);
            let tid = core.mgrc.submit(now.mono, door, cmd, inbl);
            core.mgr_waiters.insert(tid, sender);
            tid
        });
        let _guard = self.cancel_on_drop(|core: &mut Core| {
            if core.mgr_waiters.remove(&tid).is_some() {
                core.mgrc.cancel(tid);
            }
        });
        self.answer(receiver).await.map(CommandOutput::from)
    }

    /// On a session of its own, since ours may be with another monitor.
    async fn tell_mon(&self, name: &str, cmd: String, inbl: Bytes) -> Result<CommandOutput, Error> {
        let no_such = || Error::NoDaemon(format!("mon.{name}"));
        let monmap = self.monmap().ok_or(Error::Closed)?;
        let info = monmap.mons.get(name).ok_or_else(no_such)?;
        let addr = info.public_addrs.msgr2().and_then(|a| a.addr);
        let config =
            ConnectConfig { mons: vec![addr.ok_or_else(no_such)?], ..self.shared.config.clone() };
        let direct = Self { shared: Shared::start(config)? };
        let (sender, receiver) = oneshot::channel();
        direct.shared.with(|core, _| {
            let tid = 1;
            let command = Command { fsid: monmap.fsid, cmd: vec![cmd], inbl };
            core.tell_waiters.insert(tid, sender);
            core.monc.send(command.to_raw(tid, Features::PACIFIC));
        });
        direct.answer(receiver).await.map(CommandOutput::from)
    }

    async fn pool_op(&self, request: PoolRequest) -> Result<(), Error> {
        match self.ask_mon(Request::PoolOp(request)).await? {
            MonReply::PoolOp { r, epoch, .. } => {
                Error::check(r)?;
                self.wait_for_map(epoch).await
            }
            _ => Err(Error::Closed),
        }
    }

    async fn answer<T>(&self, receiver: oneshot::Receiver<T>) -> Result<T, Error> {
        let answer = async { receiver.await.map_err(|_| Error::Closed) };
        within(self.shared.config.mon_timeout, answer).await
    }

    fn cancel_on_drop<F: FnOnce(&mut Core)>(&self, cancel: F) -> CancelOnDrop<'_, F> {
        CancelOnDrop { shared: &self.shared, cancel: Some(cancel) }
    }
}

async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match limit {
        Some(limit) => {
            tokio::time::timeout(limit, future).await.unwrap_or(Err(Error::TimedOut(limit)))
        }
        None => future.await,
    }
}

/// Gives a request up when its caller does.
struct CancelOnDrop<'a, F: FnOnce(&mut Core)> {
    shared: &'a Arc<Shared>,
    cancel: Option<F>,
}

impl<F: FnOnce(&mut Core)> CancelOnDrop<'_, F> {
    /// The answer is here.
    fn disarm(mut self) {
        self.cancel = None;
    }
}

impl<F: FnOnce(&mut Core)> Drop for CancelOnDrop<'_, F> {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel(&mut self.shared.lock());
        }
    }
}
