//! Statistics: to the active manager by Ceph's messages, every few seconds and whenever the set of
//! PGs changes; and the beacon to the monitor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use spirula_maps::{MgrMap, pool_flags};
use spirula_msgr::{Target as Peer, on_xstream};
use spirula_pg::ReserveKind;
use spirula_wire::denc::encode_versioned;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mgr::{DaemonConfig, MgrConfigure, MgrOpen, MgrReport};
use spirula_wire::msg::osd::{OsdForceRecovery, OsdScrub2, PgStats};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddr, EntityType, OsdStat, StoreStatfs, UTime};
use spirula_wire::{Encode as _, Features, Message, RawMessage};
use spirula_xstream::{Class, sleep, timeout};

use crate::boot::{beacon_message, messenger_config, pg_created_message};
use crate::options::{OPTIONS, Options};
use crate::scrub::schedule;
use crate::shard::drive;
use crate::stats::{clocks, pg_stat};
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;
/// Until the manager says otherwise (`mgr_stats_period`).
const PERIOD: Duration = Duration::from_secs(5);
/// Wait before connecting again to a manager that was lost.
const RECONNECT: Duration = Duration::from_secs(1);

/// The link to the active manager.
#[derive(Default)]
pub struct MgrLink {
    /// Where the active manager is, if there is one.
    active: Cell<Option<EntityAddr>>,
    session: RefCell<Option<on_xstream::Session>>,
    /// Counts connection attempts: a task of an older one gives up.
    attempt: Cell<u64>,
    period: Cell<Option<Duration>>,
    reports: Cell<u64>,
    /// The options as the manager was last told of them.
    told_config: RefCell<DaemonConfig>,
}

impl MgrLink {
    /// How many times the PGs were reported.
    pub fn reported(&self) -> u64 {
        self.reports.get()
    }
}

/// Connects to the active manager of a new map, or hangs up.
pub fn follow_map(target: &Target, map: MgrMap) {
    let link = target.mgr();
    let active = map.active_addrs.msgr2().filter(|_| map.available);
    if link.active.get() == active {
        return;
    }
    link.active.set(active);
    link.attempt.set(link.attempt.get() + 1);
    if let Some(session) = link.session.borrow_mut().take() {
        session.close();
    }
    if active.is_some() {
        let attempt = link.attempt.get();
        target.spawn(Class::Background, |target| connect(target, attempt, Duration::ZERO));
    }
}

async fn connect(target: Target, attempt: u64, wait: Duration) -> Result<(), TargetError> {
    sleep(wait).await;
    let link = target.mgr();
    let Some(addr) = link.active.get().filter(|_| link.attempt.get() == attempt) else {
        return Ok(());
    };
    let auth = match target.mon().mgr_authorizer() {
        Ok(auth) => auth,
        Err(e) => {
            tracing::debug!("no ticket for the manager yet: {e}");
            retry(&target, attempt);
            return Ok(());
        }
    };
    let peer = Peer { type_: EntityType::MGR, addr };
    let dispatch = {
        let target = target.clone();
        move |session: &on_xstream::Session, event: on_xstream::Event| {
            handle_session(&target, attempt, session, event);
        }
    };
    let config = messenger_config(&target);
    on_xstream::open(Class::Background, config, peer, auth, dispatch);
    Ok(())
}

fn retry(target: &Target, attempt: u64) {
    if target.is_stopping() {
        return;
    }
    target.spawn(Class::Background, |target| connect(target, attempt, RECONNECT));
}

fn handle_session(
    target: &Target,
    attempt: u64,
    session: &on_xstream::Session,
    event: on_xstream::Event,
) {
    let link = target.mgr();
    match event {
        on_xstream::Event::Ready(_) if link.attempt.get() != attempt => session.close(),
        on_xstream::Event::Ready(_) => {
            session.send(open_message(target));
            *link.session.borrow_mut() = Some(session.clone());
            target.report_now();
        }
        on_xstream::Event::Message(incoming) => match incoming.raw.header.type_ {
            types::MGR_CONFIGURE => {
                if let Ok(configure) = MgrConfigure::from_raw(&incoming.raw) {
                    link.period.set(Some(Duration::from_secs(configure.stats_period.into())));
                }
            }
            types::OSD_FORCE_RECOVERY => match OsdForceRecovery::from_raw(&incoming.raw) {
                Ok(order) => force_recovery(target, &order),
                Err(e) => tracing::warn!("an order of the manager does not decode: {e}"),
            },
            types::OSD_SCRUB2 => {
                if let Ok(order) = OsdScrub2::from_raw(&incoming.raw) {
                    schedule::order(target, &order);
                }
            }
            _ => {}
        },
        on_xstream::Event::KeepaliveAck | on_xstream::Event::Session(_) => {}
        on_xstream::Event::Closed(reason) => {
            tracing::debug!("manager session ended: {reason}");
            let ours = link.session.borrow().as_ref().is_some_and(|s| s.id() == session.id());
            if ours {
                link.session.borrow_mut().take();
            }
            if link.attempt.get() == attempt {
                retry(target, attempt);
            }
        }
    }
}

/// The manager wants PGs recovered before others, or not any more.
fn force_recovery(target: &Target, order: &OsdForceRecovery) {
    if order.fsid != target.config().fsid {
        return;
    }
    let on = order.options & OsdForceRecovery::CANCEL == 0;
    let kinds = [
        (OsdForceRecovery::RECOVERY, ReserveKind::Recovery),
        (OsdForceRecovery::BACKFILL, ReserveKind::Backfill),
    ];
    for pg in order.pgs.iter().filter_map(|pgid| target.pgs().get(*pgid)) {
        for (_, kind) in kinds.iter().filter(|(bit, _)| order.options & bit != 0) {
            drive::input(target, &pg.shard, |machine| {
                let changed = machine.force(*kind, on);
                tracing::info!(pgid = %pg.pgid, ?kind, on, changed, "recovery is forced or not");
            });
        }
    }
    target.report_now();
}

/// `mgropen`: who we are, and our options.
fn open_message(target: &Target) -> RawMessage {
    let config = target.with_options(Options::report);
    let defaults = OPTIONS.iter().map(|o| (o.name.to_owned(), o.default.to_owned()));
    let defaults: BTreeMap<String, String> = defaults.collect();
    let open = MgrOpen {
        daemon_name: target.config().osd_id.to_string(),
        config: config.to_bytes(F).into(),
        config_defaults: defaults.to_bytes(F).into(),
        ..MgrOpen::default()
    };
    *target.mgr().told_config.borrow_mut() = config;
    open.to_raw(0, F)
}

/// The options, encoded, if the manager does not know them yet; else nothing.
fn changed_config(target: &Target) -> Vec<u8> {
    let config = target.with_options(Options::report);
    let mut told = target.mgr().told_config.borrow_mut();
    if *told == config {
        return Vec::new();
    }
    let bytes = config.to_bytes(F);
    *told = config;
    bytes
}

/// Reports for ever.
pub async fn report(target: Target) -> Result<(), TargetError> {
    let mut since_beacon = Duration::ZERO;
    loop {
        let period = target.mgr().period.get().filter(|p| !p.is_zero()).unwrap_or(PERIOD);
        let started = spirula_xstream::now();
        // Whether it was asked for or is due, it is time to report.
        let _ = timeout(period, target.report_due()).await;
        if let Some(session) = target.mgr().session.borrow().as_ref() {
            send_report(&target, session);
        }
        tell_created(&target);
        since_beacon += spirula_xstream::now().saturating_sub(started);
        let interval = target.with_options(Options::beacon_interval);
        if since_beacon >= interval && target.is_up() {
            since_beacon = Duration::ZERO;
            target.mon().send(&target, beacon_message(&target));
        }
    }
}

/// Says it again as long as the monitor has not heard it of all PGs of a pool.
fn tell_created(target: &Target) {
    let map = target.map();
    let creating = |pool| map.pool(pool).is_some_and(|p| p.has_flag(pool_flags::CREATING));
    for pg in target.pgs().all() {
        if pg.active.get() && creating(pg.pgid.pgid.pool) {
            target.mon().send(target, pg_created_message(pg.pgid.pgid));
        }
    }
}

fn send_report(target: &Target, session: &on_xstream::Session) {
    // No counters are declared; the manager wants the envelope of their values all the same.
    let mut packed = Vec::new();
    encode_versioned(&mut packed, 1, 1, |_| {});
    let report = MgrReport {
        daemon_name: target.config().osd_id.to_string(),
        packed: packed.into(),
        config: changed_config(target).into(),
        ..MgrReport::default()
    };
    session.send(report.to_raw(0, F));
    if target.is_up() {
        session.send(pg_stats(target));
    }
}

/// `pg_stats`: every PG of ours, and the store.
pub fn pg_stats(target: &Target) -> RawMessage {
    let link = target.mgr();
    let seq = link.reports.get() + 1;
    link.reports.set(seq);
    let (epoch, now) = (target.epoch(), clocks());
    let (pgs, scrub) = (target.pgs().all(), target.store().scrub_status());
    let mut pool_stat: BTreeMap<i64, StoreStatfs> = BTreeMap::new();
    // Every copy takes space, not the primary's alone.
    let shards = target.shards().all();
    for shard in &shards {
        let bytes = shard.state.borrow().stats.num_bytes;
        let pool = pool_stat.entry(shard.pgid.pgid.pool).or_default();
        pool.allocated += bytes.max(0);
        pool.data_stored += bytes.max(0);
    }
    PgStats {
        paxos: Paxos::default(),
        fsid: target.config().fsid,
        osd_stat: osd_stat(target, seq, shards.len()),
        pg_stat: pgs
            .iter()
            .map(|pg| (pg.pgid.pgid, pg_stat(pg, &scrub, epoch, seq, now)))
            .collect(),
        epoch,
        had_map_for: UTime::default(),
        pool_stat,
    }
    .to_raw(0, F)
}

/// The number of the newest report, as `flush_pg_stats` returns it.
pub fn report_seq(target: &Target) -> u64 {
    let up_from = target.map().osd(target.config().osd_id).map_or(0, |osd| osd.info.up_from);
    u64::from(up_from) << 32 | target.mgr().reports.get()
}

fn osd_stat(target: &Target, seq: u64, num_pgs: usize) -> OsdStat {
    let me = target.config().osd_id;
    let map = target.map();
    let up_from = map.osd(me).map_or(0, |osd| osd.info.up_from);
    let space = target.store().statfs();
    OsdStat {
        hb_peers: target.heartbeat().peers(),
        up_from,
        seq: u64::from(up_from) << 32 | seq,
        num_pgs: num_pgs as u32,
        num_osds: 1,
        num_per_pool_osds: 1,
        num_per_pool_omap_osds: 1,
        statfs: StoreStatfs {
            total: space.total,
            available: space.available,
            allocated: space.stored as i64,
            internal_metadata: space.metadata as i64,
            data_stored: space.stored as i64,
            ..StoreStatfs::default()
        },
        ..OsdStat::default()
    }
}
