//! Deterministic simulation: several hosts in one thread, from one seed.
//!
//! A [`SimWorld`] has virtual time, a network and hosts; a [`SimHost`] has an address, disks that
//! survive it, and one xstream while its process runs. Which host runs next, which task of a class,
//! how long every packet and disk operation takes, all comes from the seed: the same program with
//! the same seed does the same things at the same times, which [`SimWorld::trace`] sums up. Time
//! passes only when nothing can run, plus a microsecond per step, so that loops end.
//!
//! Hosts share one clock for intervals; their wall clocks may be set ahead of it.
//!
//! The fault models are at the top of `sim/net.rs` and `sim/disk.rs`.
//!
//! ```
//! use std::time::Duration;
//! use spirula_xstream::{sim::SimWorld, sleep};
//!
//! let world = SimWorld::new(7);
//! let a = world.host("a");
//! let slept = a.block_on(async { sleep(Duration::from_secs(3600)).await });
//! assert!(slept.is_ok() && world.now() >= Duration::from_secs(3600));
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Class, Shares, StartError};
use crate::driver::Wait;
use crate::runtime::{Pace, Runtime, Shared, enter, is_current};
use crate::task::JoinHandle;

mod core;
mod disk;
mod driver;
mod net;
mod rng;

use self::core::{Core, DiskDone, Event, Host, HostId};
use self::disk::Disk;
use self::net::{Down, Net};

pub use self::disk::DiskConfig;
pub use self::net::NetConfig;

/// Virtual time that one step of one task takes.
const STEP_TIME: Duration = Duration::from_micros(1);

/// A world of simulated hosts. Clones are handles of the same world.
#[derive(Clone)]
pub struct SimWorld {
    world: Rc<RefCell<World>>,
}

/// Everything but the runtimes; never borrowed while a task runs.
struct World {
    core: Core,
    net: Net,
    disks: Vec<Disk>,
    /// Which disk a host finds under a path.
    names: BTreeMap<(HostId, PathBuf), usize>,
    runtimes: Vec<Option<Rc<Runtime>>>,
    /// Hosts whose processes are stopped.
    paused: BTreeSet<HostId>,
    /// Hosts that ended while one of their own tasks ran.
    ending: Vec<(HostId, Ending)>,
}

/// How a host's process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Exit,
    Killed,
    PowerLost,
}

impl SimWorld {
    pub fn new(seed: u64) -> SimWorld {
        let world = World {
            core: Core::new(seed),
            net: Net::new(),
            disks: Vec::new(),
            names: BTreeMap::new(),
            runtimes: Vec::new(),
            paused: BTreeSet::new(),
            ending: Vec::new(),
        };
        SimWorld { world: Rc::new(RefCell::new(world)) }
    }

    pub fn seed(&self) -> u64 {
        self.world.borrow().core.seed
    }

    pub fn now(&self) -> Duration {
        self.world.borrow().core.now
    }

    /// Adds a host with an address of its own.
    pub fn host(&self, name: impl Into<String>) -> SimHost {
        let mut world = self.world.borrow_mut();
        let id = world.core.hosts.len();
        world.core.hosts.push(Host {
            name: name.into(),
            ip: net::host_ip(id),
            powered: true,
            incarnation: 0,
            clock_ahead: Duration::ZERO,
            done: Vec::new(),
        });
        world.runtimes.push(None);
        SimHost { world: self.clone(), id }
    }

    /// Changes how the network behaves from now on.
    pub fn set_net(&self, config: NetConfig) {
        self.world.borrow_mut().net.config = config;
    }

    /// Nothing passes between these hosts, in either direction, until [`SimWorld::heal`].
    pub fn partition(&self, a: &[&SimHost], b: &[&SimHost]) {
        for one in a {
            for other in b {
                self.block(one, other);
                self.block(other, one);
            }
        }
    }

    /// Nothing passes from `from` to `to`; the way back stays open.
    pub fn block(&self, from: &SimHost, to: &SimHost) {
        self.world.borrow_mut().net.block(from.id, to.id);
    }

    /// Ends what [`SimWorld::block`] began.
    pub fn unblock(&self, from: &SimHost, to: &SimHost) {
        self.world.borrow_mut().net.unblock(from.id, to.id);
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.world.borrow_mut().net.unblock_all();
    }

    /// A number from the world's seed.
    pub fn random_u64(&self) -> u64 {
        self.world.borrow_mut().core.rng.next()
    }

    /// How many things happened, and a hash of what and when: equal for equal runs.
    pub fn trace(&self) -> (u64, u64) {
        let trace = self.world.borrow().core.trace();
        (trace.count, trace.hash)
    }

    /// Lets `duration` of virtual time pass.
    pub fn run_for(&self, duration: Duration) {
        let deadline = self.now() + duration;
        while self.now() < deadline && self.step(deadline) {}
        let mut world = self.world.borrow_mut();
        world.core.now = world.core.now.max(deadline);
    }

    /// Runs until `condition` holds (true), or time or all events are over (false).
    pub fn run_until(&self, limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let deadline = self.now() + limit;
        loop {
            if condition() {
                return true;
            }
            if self.now() >= deadline || !self.step(deadline) {
                return false;
            }
        }
    }

    /// One step: what is due, then one task of one host; or time moves, not past `limit`. False if
    /// nothing is left to do before that.
    fn step(&self, limit: Duration) -> bool {
        self.fire_due();
        if let Some(host) = self.pick_host() {
            let runtime = {
                let mut world = self.world.borrow_mut();
                world.core.note(host as u64);
                world.core.now += STEP_TIME;
                world.runtimes[host].clone()
            };
            if let Some(runtime) = runtime {
                let _entered = enter(runtime.clone());
                runtime.poll_driver(Wait::No);
                runtime.step();
            }
            self.end_hosts();
            return true;
        }
        match self.next_time() {
            Some(next) if next <= limit => {
                let mut world = self.world.borrow_mut();
                world.core.now = world.core.now.max(next);
                true
            }
            _ => false,
        }
    }

    fn fire_due(&self) {
        loop {
            let mut world = self.world.borrow_mut();
            let Some(event) = world.core.pop_due() else {
                break;
            };
            world.on_event(event);
        }
        let due: Vec<Rc<Runtime>> = {
            let world = self.world.borrow();
            let due = |at: Duration| at <= world.core.now;
            let runtimes = world.awake().map(|(_, runtime)| runtime);
            runtimes.filter(|runtime| runtime.next_deadline().is_some_and(due)).cloned().collect()
        };
        for runtime in due {
            let _entered = enter(runtime.clone());
            runtime.fire_timers();
        }
    }

    /// Chooses among the hosts that can run.
    fn pick_host(&self) -> Option<HostId> {
        let mut world = self.world.borrow_mut();
        let is_able = |(host, runtime): &(HostId, &Rc<Runtime>)| {
            runtime.is_runnable() || !world.core.hosts[*host].done.is_empty()
        };
        let able: Vec<HostId> = world.awake().filter(is_able).map(|(host, _)| host).collect();
        match able.len() {
            0 => None,
            len => Some(able[world.core.rng.below(len as u64) as usize]),
        }
    }

    fn next_time(&self) -> Option<Duration> {
        let world = self.world.borrow();
        let timers = world.awake().filter_map(|(_, runtime)| runtime.next_deadline());
        timers.chain(world.core.next_event_at()).min()
    }

    /// Ends a host's process: now, or after the current step if it is one of its own tasks that
    /// asks.
    fn end(&self, host: HostId, ending: Ending) {
        self.world.borrow_mut().ending.push((host, ending));
        let runtime = self.world.borrow().runtimes[host].clone();
        if !runtime.is_some_and(|runtime| is_current(&runtime)) {
            self.end_hosts();
        }
    }

    fn end_hosts(&self) {
        loop {
            let mut world = self.world.borrow_mut();
            let ready = world
                .ending
                .iter()
                .position(|(host, _)| !world.runtimes[*host].as_ref().is_some_and(is_current));
            let Some(ready) = ready else { return };
            let (host, ending) = world.ending.remove(ready);
            let runtime = world.runtimes[host].take();
            drop(world);
            self.end_host(host, ending, runtime);
        }
    }

    fn end_host(&self, host: HostId, ending: Ending, runtime: Option<Rc<Runtime>>) {
        if ending == Ending::Exit
            && let Some(runtime) = &runtime
        {
            // A process that ends in order closes what it has open.
            let _entered = enter(runtime.clone());
            runtime.drop_tasks();
        }
        let dropped = self.world.borrow_mut().host_down(host, ending);
        if let Some(runtime) = runtime {
            let _entered = enter(runtime.clone());
            runtime.drop_tasks();
            runtime.forget_operations();
        }
        drop(dropped);
    }
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimWorld(seed {} at {:?})", self.seed(), self.now())
    }
}

/// One host of a world. Clones are handles of the same host.
#[derive(Clone, Debug)]
pub struct SimHost {
    world: SimWorld,
    id: HostId,
}

impl SimHost {
    pub fn world(&self) -> &SimWorld {
        &self.world
    }

    pub fn name(&self) -> String {
        self.world.world.borrow().core.hosts[self.id].name.clone()
    }

    pub fn ip(&self) -> IpAddr {
        self.world.world.borrow().core.hosts[self.id].ip
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.world.world.borrow().runtimes[self.id].is_some()
    }

    /// Starts a task on this host, and the host if it is down.
    pub fn spawn<T: 'static>(
        &self,
        class: Class,
        future: impl Future<Output = T> + 'static,
    ) -> JoinHandle<T> {
        self.runtime(&Shares::default()).spawn(class, future)
    }

    /// Runs the world until `future`, run on this host, has ended. The host goes on afterwards.
    pub fn block_on<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
    ) -> Result<T, StartError> {
        self.drive(&Shares::default(), future)
    }

    /// Its process is gone at once; the machine and its disks' caches stay.
    pub fn kill(&self) {
        self.world.end(self.id, Ending::Killed);
    }

    /// Its process does nothing more, as if stopped by a signal, while its machine still takes what
    /// arrives, until [`SimHost::resume`] or its end.
    pub fn pause(&self) {
        self.world.world.borrow_mut().paused.insert(self.id);
    }

    /// Its process goes on.
    pub fn resume(&self) {
        self.world.world.borrow_mut().paused.remove(&self.id);
    }

    /// The machine loses power: its process, its connections and what was not flushed.
    pub fn power_loss(&self) {
        self.world.end(self.id, Ending::PowerLost);
    }

    /// Its wall clock jumps: from now on it is this far ahead of the world's. Intervals are measured by
    /// another clock, which does not jump.
    pub fn set_clock_ahead(&self, ahead: Duration) {
        self.world.world.borrow_mut().core.hosts[self.id].clock_ahead = ahead;
    }

    /// The disk under `path`, made with `size` zero bytes if it is not there.
    pub fn disk(&self, path: impl AsRef<Path>, size: u64) -> SimDisk {
        let mut world = self.world.world.borrow_mut();
        let name = (self.id, path.as_ref().to_path_buf());
        let disk = match world.names.get(&name) {
            Some(disk) => *disk,
            None => world.add_disk(name, size),
        };
        SimDisk { world: self.world.clone(), disk }
    }

    /// [`crate::run`] on this host: its process ends with `main`.
    pub(crate) fn run<T: 'static>(
        &self,
        shares: &Shares,
        main: impl Future<Output = T> + 'static,
    ) -> Result<T, StartError> {
        let result = self.drive(shares, main);
        self.world.end(self.id, Ending::Exit);
        result
    }

    fn drive<T: 'static>(
        &self,
        shares: &Shares,
        main: impl Future<Output = T> + 'static,
    ) -> Result<T, StartError> {
        let main = self.runtime(shares).spawn(Class::Client, main);
        loop {
            match main.try_take() {
                Some(Ok(value)) => return Ok(value),
                Some(Err(_)) => {
                    let (host, seed) = (self.name(), self.world.seed());
                    return Err(StartError::SimKilled { host, seed });
                }
                None if self.world.step(Duration::MAX) => {}
                None => {
                    return Err(StartError::SimStalled { seed: self.world.seed() });
                }
            }
        }
    }

    /// The runtime of this host, started if it is down.
    fn runtime(&self, shares: &Shares) -> Rc<Runtime> {
        let cell = &self.world.world;
        let mut world = cell.borrow_mut();
        if let Some(runtime) = &world.runtimes[self.id] {
            return runtime.clone();
        }
        let host = &mut world.core.hosts[self.id];
        host.powered = true;
        let driver = driver::SimDriver::new(Rc::downgrade(cell), self.id, host.incarnation);
        let shared = Arc::new(Shared::new(None));
        let runtime = Runtime::new(shared, Box::new(driver), shares, Pace::Simulated);
        world.runtimes[self.id] = Some(runtime.clone());
        runtime
    }
}

/// A disk of a simulated host. It outlives the host's process and power.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: SimWorld,
    disk: usize,
}

impl SimDisk {
    /// Writes, completed or in flight, that a loss of power may undo.
    pub fn unflushed(&self) -> usize {
        self.world.world.borrow().disks[self.disk].unflushed()
    }

    /// After that many more operations everything fails with `EIO`; `None` repairs it.
    pub fn fail_after(&self, operations: Option<u64>) {
        self.world.world.borrow_mut().disks[self.disk].fail_after(operations);
    }

    /// From now on ranges are not given back but with this error; `None`: they are.
    pub fn refuse_punches(&self, error: Option<io::ErrorKind>) {
        self.world.world.borrow_mut().disks[self.disk].refuse_punches(error);
    }

    /// How often that was tried in vain.
    pub fn refused_punches(&self) -> u64 {
        self.world.world.borrow().disks[self.disk].refused()
    }

    /// Flips one bit in each sector of a range, for good.
    pub fn corrupt(&self, offset: u64, len: u64) {
        let world = &mut *self.world.world.borrow_mut();
        world.disks[self.disk].corrupt(offset, len, &mut world.core.rng);
    }

    /// It is exchanged for an empty one of its size; no process may have it open.
    pub fn replace(&self) {
        let disk = &mut self.world.world.borrow_mut().disks[self.disk];
        *disk = Disk::new(disk.len());
    }

    /// Changes the times the disk takes.
    pub fn set_config(&self, config: DiskConfig) {
        self.world.world.borrow_mut().disks[self.disk].config = config;
    }

    /// What a program would read there now; short at the end of the disk.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let got = self.world.world.borrow().disks[self.disk].read(offset, &mut out);
        out.truncate(got);
        out
    }
}

impl Drop for World {
    /// Tasks and their runtime hold each other; this takes them apart. (A task that holds a handle
    /// of its own world keeps it alive: end such hosts by hand.)
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..).flatten() {
            let _entered = enter(runtime.clone());
            runtime.drop_tasks();
            runtime.forget_operations();
        }
    }
}

impl World {
    fn add_disk(&mut self, name: (HostId, PathBuf), size: u64) -> usize {
        self.disks.push(Disk::new(size));
        self.names.insert(name, self.disks.len() - 1);
        self.disks.len() - 1
    }

    fn on_event(&mut self, event: Event) {
        let core = &mut self.core;
        match event {
            Event::Wire { from } => self.net.on_wire(core, from),
            Event::Syn { from, since } => self.net.on_syn(core, from, since),
            Event::Connected { sock, errno } => self.net.on_connected(core, sock, errno),
            Event::Reset { sock } => self.net.on_reset(core, sock),
            Event::Disk { host, incarnation, key, done } => {
                self.on_disk(host, incarnation, key, done);
            }
        }
    }

    fn on_disk(&mut self, host: HostId, incarnation: u64, key: usize, done: DiskDone) {
        if self.core.hosts[host].incarnation == incarnation {
            let output = driver::finish(self, done);
            self.core.complete(host, key, output);
        }
    }

    /// Processes that may run.
    fn awake(&self) -> impl Iterator<Item = (HostId, &Rc<Runtime>)> {
        let running = self.runtimes.iter().enumerate();
        let running = running.filter_map(|(host, runtime)| Some((host, runtime.as_ref()?)));
        running.filter(|(host, _)| !self.paused.contains(host))
    }

    /// The host's process is gone. Returns outcomes nobody takes, to be dropped by the caller.
    fn host_down(&mut self, host: HostId, ending: Ending) -> impl Sized + use<> {
        self.paused.remove(&host);
        let power_lost = ending == Ending::PowerLost;
        let down = if power_lost { Down::PowerLost } else { Down::Killed };
        self.net.host_down(&mut self.core, host, down);
        for (_, disk) in self.names.iter().filter(|((owner, _), _)| *owner == host) {
            let disk = &mut self.disks[*disk];
            if power_lost {
                disk.on_power_loss(&mut self.core.rng);
            } else {
                disk.on_kill(&mut self.core.rng);
            }
        }
        let host = &mut self.core.hosts[host];
        host.incarnation += 1;
        host.powered &= !power_lost;
        std::mem::take(&mut host.done)
    }
}
