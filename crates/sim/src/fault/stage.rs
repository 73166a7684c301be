//! What faults act on: the cluster, what is broken at the moment, and how all of it is mended.

use std::collections::BTreeSet;
use std::time::Duration;

use spirula_osd::full::Level;
use spirula_wire::types::pg_state;
use spirula_xstream::JoinHandle;
use spirula_xstream::sim::{DiskConfig, NetConfig, SimHost};

use super::members::{self, Member};
use crate::load::Load;
use crate::{Client, Cluster, Spec};

/// A process that ended by itself is started again after this time.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// How often the monitor hears of the PGs what the manager would say.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// A cluster on which things go wrong.
pub struct Stage {
    pub cluster: Cluster,
    pub spec: Spec,
    pub load: Load,
    /// Its host is never lost.
    pub admin: Client,
    /// Of every client that was started.
    pub workers: Vec<JoinHandle<()>>,
    /// Processes that a fault has stopped.
    pub down: BTreeSet<Who>,
    /// Directions between hosts that faults have closed; each as often as it is there.
    pub cuts: Vec<(usize, usize)>,
    /// Kinds of trouble on all of the network.
    pub rough: Vec<Rough>,
    /// Something destroyed data, and not everything was whole since.
    pub wounded: bool,
    /// The OSD whose disk is damaged: nothing says when that is mended, so that no other may lose data.
    pub damaged: Option<usize>,
    /// Monitors that were removed and are not back yet.
    pub members: Vec<Member>,
    /// What a reader of a failure wants to know.
    pub notes: Vec<String>,
    /// Print notes as they come.
    pub aloud: bool,
    /// OSDs that ended by themselves, and when they are started again.
    restarts: Vec<(Duration, usize)>,
    report_at: Duration,
    /// Makes the names of pools.
    pub pools: u64,
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Mon(usize),
    Osd(usize),
    Client(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rough {
    Delays,
    Resets,
    Stalls,
    LeftBehind,
}

impl Stage {
    pub fn new(cluster: Cluster, spec: Spec, load: Load, admin: Client) -> Self {
        Self {
            cluster,
            spec,
            load,
            admin,
            workers: Vec::new(),
            down: BTreeSet::new(),
            cuts: Vec::new(),
            rough: Vec::new(),
            wounded: false,
            damaged: None,
            members: Vec::new(),
            notes: Vec::new(),
            aloud: false,
            restarts: Vec::new(),
            report_at: Duration::ZERO,
            pools: 0,
        }
    }

    pub fn note(&mut self, text: impl AsRef<str>) {
        let at = self.cluster.world.now().as_secs_f64();
        let note = format!("{at:9.3} {}", text.as_ref());
        if self.aloud {
            eprintln!("{note}");
        }
        self.notes.push(note);
    }

    /// All hosts: monitors, OSDs, clients, in this order.
    pub fn hosts(&self) -> Vec<SimHost> {
        let osds = (0..self.cluster.osd_count()).map(|id| self.cluster.osd_host(id).clone());
        let (mons, clients) = (self.cluster.mons.iter(), self.cluster.clients.iter());
        mons.cloned().chain(osds).chain(clients.cloned()).collect()
    }

    /// How many clients may be lost: all but the last, which the administrator uses.
    pub fn mortal_clients(&self) -> usize {
        self.cluster.clients.len() - 1
    }

    /// Lets time pass, and does what a host's supervisor and the manager would do meanwhile.
    pub fn run_until(&mut self, until: Duration) {
        loop {
            self.look_after();
            let now = self.cluster.world.now();
            if now >= until {
                return;
            }
            let step = Duration::from_millis(250).min(until - now);
            self.cluster.world.run_for(step);
        }
    }

    /// Lets time pass until something holds; false if it does not within `limit`.
    pub fn run_while(&mut self, limit: Duration, mut holds: impl FnMut(&Stage) -> bool) -> bool {
        let until = self.cluster.world.now() + limit;
        while !holds(self) {
            let now = self.cluster.world.now();
            if now >= until {
                return false;
            }
            self.run_until(now + Duration::from_millis(250));
        }
        true
    }

    fn look_after(&mut self) {
        let now = self.cluster.world.now();
        for id in 0..self.cluster.osd_count() {
            let Some(why) = self.cluster.osd_ended(id) else { continue };
            self.note(format!("osd.{id} ended: {why}"));
            self.restarts.push((now + RESTART_AFTER, id));
        }
        let (due, later) = self.restarts.iter().partition(|(at, _)| *at <= now);
        self.restarts = later;
        let due: Vec<(Duration, usize)> = due;
        for (_, id) in due {
            // A fault that has it down starts it in the end.
            if !self.down.contains(&Who::Osd(id)) && !self.cluster.osd_host(id).is_running() {
                self.cluster.start_osd_of(id);
            }
        }
        members::go_on(self);
        if self.report_at <= now {
            self.report_at = now + REPORT_EVERY;
            self.report();
        }
        self.wounded &= !self.is_clean();
    }

    /// What the manager would tell the monitor.
    fn report(&mut self) {
        let count = self.pg_num();
        if count == 0 {
            return;
        }
        let state = match self.is_clean() {
            true => pg_state::ACTIVE | pg_state::CLEAN,
            false => pg_state::PEERING,
        };
        let admin = self.admin.clone();
        self.on_admin(async move { admin.report_pgs(&[(state, count)]) });
    }

    /// Runs something short on the administrator's host.
    pub fn on_admin(&self, work: impl Future<Output = ()> + 'static) {
        if let Some(host) = self.cluster.clients.last() {
            drop(host.spawn(spirula_xstream::Class::Client, work));
        }
    }

    /// Has the monitors carry out a command, some time.
    pub fn command(&mut self, json: String) {
        self.note(format!("command {json}"));
        let admin = self.admin.clone();
        self.on_admin(async move { drop(admin.command(&json).await) });
    }

    /// PGs of the pool, as the newest map says that an OSD has.
    pub fn pg_num(&self) -> u32 {
        self.newest().and_then(|map| Some(map.pool(Cluster::POOL)?.pg_num)).unwrap_or(0)
    }

    fn newest(&self) -> Option<std::sync::Arc<spirula_maps::OsdMap>> {
        let targets = (0..self.cluster.osd_count()).filter_map(|id| self.cluster.target(id));
        targets.map(|target| target.map()).max_by_key(|map| map.epoch)
    }

    /// Whether every PG is active and clean with all its copies.
    pub fn is_clean(&self) -> bool {
        self.unclean().is_none()
    }

    /// Whether it is clean, and the monitor has nothing more to change about its number of PGs: data would
    /// move again.
    pub fn is_settled(&self) -> bool {
        let map = self.newest();
        let pool = map.as_ref().and_then(|map| map.pool(Cluster::POOL));
        let done =
            |p: &spirula_maps::PgPool| (p.pg_num, p.pgp_num) == (p.pg_num_target, p.pgp_num_target);
        self.is_clean() && pool.is_some_and(done)
    }

    /// Something that is not well, if there is anything.
    pub fn unclean(&self) -> Option<String> {
        if let Some(member) = self.members.first() {
            return Some(format!("mon.{} is not back", self.cluster.mon_name(member.rank).0));
        }
        let newest = self.newest();
        let Some(map) = newest.filter(|map| map.pool(Cluster::POOL).is_some()) else {
            return Some("no OSD has a map".into());
        };
        for id in 0..self.cluster.osd_count() {
            let up = self.cluster.target(id).is_some_and(|t| t.epoch() == map.epoch && t.is_up());
            if !up {
                return Some(format!("osd.{id} is not up in epoch {}", map.epoch));
            }
        }
        let count = map.pool(Cluster::POOL).map_or(0, |pool| pool.pg_num);
        (0..count).find_map(|seed| self.unclean_pg(&map, seed))
    }

    fn unclean_pg(&self, map: &spirula_maps::OsdMap, seed: u32) -> Option<String> {
        let pgid = spirula_wire::types::PgId { pool: Cluster::POOL, seed };
        let placed = map.pg_to_up_acting(pgid);
        let whole = placed.acting == placed.up && placed.acting.len() == self.spec.size;
        if !whole {
            return Some(format!("{pgid} is on {:?}, should be on {:?}", placed.acting, placed.up));
        }
        let id = usize::try_from(placed.acting_primary).ok()?;
        let target = self.cluster.target(id)?;
        let Some(pg) = target.pgs().get(pgid) else {
            return Some(format!("{pgid} is not on osd.{id}"));
        };
        let scrub = target.store().scrub_status();
        let stat = spirula_osd::stats::pg_stat(&pg, &scrub, map.epoch, 0, Default::default());
        let state = stat.state();
        let clean = state & pg_state::ACTIVE != 0 && state & pg_state::CLEAN != 0;
        (!clean).then(|| format!("{pgid} is {}", pg_state::name(state)))
    }

    /// Ends everything that is wrong, by force, and starts whatever is down.
    pub fn mend(&mut self) {
        let world = self.cluster.world.clone();
        world.heal();
        self.cuts.clear();
        self.rough.clear();
        world.set_net(NetConfig::default());
        for host in self.hosts() {
            host.resume();
            host.set_clock_ahead(Duration::ZERO);
        }
        self.down.clear();
        for id in 0..self.cluster.osd_count() {
            let disk = self.cluster.osd_disk(id);
            disk.fail_after(None);
            disk.set_config(DiskConfig::default());
            drop(self.cluster.pretend_full_of(id, Level::None));
            if !self.cluster.osd_host(id).is_running() {
                self.cluster.start_osd_of(id);
            }
        }
        let removed: Vec<usize> = self.members.iter().map(|member| member.rank).collect();
        for rank in (0..self.cluster.mons.len()).filter(|rank| !removed.contains(rank)) {
            if !self.cluster.mons[rank].is_running() {
                self.cluster.start_mon_of(rank);
            }
        }
    }
}
