//! PGs are split and merged while clients write, and the OSD loses power meanwhile.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use spirula_osd::Target;
use spirula_sim::{Client, Cluster, Spec};
use spirula_xstream::JoinHandle;
use spirula_xstream::sim::NetConfig;

use crate::Seed;
use crate::work::Load;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn pgs_are_split_and_merged_under_load_and_power_loss() {
    for seed in 100..112 {
        let _named = Seed(seed);
        play(seed);
    }
}

fn play(seed: u64) {
    let cluster = Cluster::new(seed, 4);
    let load = Load::default();
    cluster.start_mon();
    cluster.start_osd();
    let workers = load.start(&cluster);
    cluster.world.set_net(NetConfig {
        latency: Duration::from_micros(20)..Duration::from_millis(2),
        reset_per_million: 3000,
        ..NetConfig::default()
    });
    let admin = admin(&cluster);
    for round in 0..6 {
        cluster.world.run_for(Duration::from_millis(cluster.world.random_u64() % 500));
        let wanted = 1 + (cluster.world.random_u64() % 20) as u32;
        let crash = [Crash::Never, Crash::Meanwhile, Crash::Before][round % 3];
        resize(&cluster, &admin, wanted, crash);
    }
    cluster.world.set_net(NetConfig::default());
    let before = load.requests();
    assert!(cluster.world.run_until(LIMIT, || load.requests() > before + 20), "no progress");
    load.stop();
    let ended = || workers.iter().all(JoinHandle::is_finished);
    assert!(cluster.world.run_until(LIMIT, ended), "requests hang");
    let counted = counters(&cluster);
    for wanted in [13, 3, 1, 8] {
        resize(&cluster, &admin, wanted, Crash::Never);
        assert_eq!(counters(&cluster), counted, "with {wanted} PGs");
    }
    cluster.osd_power_loss();
    cluster.start_osd();
    load.verify(&cluster, LIMIT);
    assert_eq!(counters(&cluster), counted, "after a restart");
}

/// Three copies of each PG are split at once, one of them after it lost power.
#[test]
fn copies_are_split_together_under_load_and_power_loss() {
    for seed in 300..306 {
        let _named = Seed(seed);
        play_copies(seed);
    }
}

fn play_copies(seed: u64) {
    let cluster = Cluster::with(&Spec { osds: 4, size: 3, ..Spec::new(seed, 2) });
    let (load, world) = (Load::default(), &cluster.world);
    cluster.start_mon();
    cluster.start_osds();
    let serve = |wanted: u32| world.run_until(LIMIT, || served(&cluster) == wanted);
    assert!(serve(2), "{}", cluster.describe());
    let workers = load.start(&cluster);
    let admin = admin(&cluster);
    for (now, wanted) in [(2, 3), (3, 8), (8, 21)] {
        world.run_for(Duration::from_millis(world.random_u64() % 500));
        let has = |id| cluster.target(id).is_some_and(|t| pg_num_of(&t) == wanted);
        let asked = (0..20).any(|_| {
            ask(&cluster, &admin, now, wanted);
            world.run_until(Duration::from_secs(5), || (0..4).any(has))
        });
        assert!(asked, "{now} PGs do not become {wanted}");
        world.run_for(Duration::from_micros(world.random_u64() % 3000));
        let id = (world.random_u64() % 4) as usize;
        cluster.osd_power_loss_of(id);
        world.run_for(Duration::from_millis(world.random_u64() % 2000));
        cluster.start_osd_of(id);
        assert!(serve(wanted), "not served with {wanted} PGs: {}", cluster.describe());
    }
    let before = load.requests();
    assert!(world.run_until(LIMIT, || load.requests() > before + 20), "no progress");
    load.stop();
    let ended = || workers.iter().all(JoinHandle::is_finished);
    assert!(world.run_until(LIMIT, ended), "requests hang: {}", cluster.describe());
    load.verify(&cluster, LIMIT);
}

/// How many PGs have a primary that serves them.
fn served(cluster: &Cluster) -> u32 {
    let targets = (0..cluster.osd_count()).filter_map(|id| cluster.target(id));
    targets
        .map(|target| target.pgs().all().iter().filter(|pg| pg.active.get()).count() as u32)
        .sum()
}

fn pg_num_of(target: &Target) -> u32 {
    target.map().pool(Cluster::POOL).map_or(0, |pool| pool.pg_num)
}

fn admin(cluster: &Cluster) -> Client {
    let made = Rc::new(RefCell::new(None));
    let (connector, out) = (cluster.connector(), made.clone());
    let ready = cluster.client.block_on(async move {
        *out.borrow_mut() = Some(connector());
    });
    assert!(ready.is_ok());
    made.take().expect("a client")
}

/// When the OSD loses power.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Crash {
    Never,
    Before,
    /// In the middle of it.
    Meanwhile,
}

/// The pool has `wanted` PGs in the end, whatever happens to the OSD.
fn resize(cluster: &Cluster, admin: &Client, wanted: u32, crash: Crash) {
    let world = &cluster.world;
    assert!(world.run_until(LIMIT, || cluster.is_healthy()), "not healthy");
    let now = pg_num(cluster);
    if crash == Crash::Before {
        cluster.osd_power_loss();
        ask(cluster, admin, now, wanted);
        world.run_for(Duration::from_secs(2));
        cluster.start_osd();
    }
    let done = || pg_num(cluster) == wanted;
    // What says that all is well may be lost with its session.
    let asked = (0..20).any(|_| {
        ask(cluster, admin, now, wanted);
        world.run_until(Duration::from_secs(5), done)
    });
    assert!(asked, "{now} PGs do not become {wanted}");
    if crash == Crash::Meanwhile {
        world.run_for(Duration::from_micros(world.random_u64() % 3000));
        cluster.osd_power_loss();
        world.run_for(Duration::from_millis(world.random_u64() % 100));
        cluster.start_osd();
    }
    let healthy = || cluster.is_healthy() && done();
    assert!(
        world.run_until(LIMIT, healthy),
        "not healthy with {wanted} PGs: {}",
        cluster.describe()
    );
}

fn ask(cluster: &Cluster, admin: &Client, now: u32, wanted: u32) {
    let client = admin.clone();
    let asked = cluster.client.block_on(async move { client.set_pg_num("p", now, wanted) });
    assert!(asked.is_ok());
}

fn pg_num(cluster: &Cluster) -> u32 {
    let target = cluster.target(0);
    target.and_then(|t| Some(t.map().pool(Cluster::POOL)?.pg_num)).unwrap_or(0)
}

/// Objects and bytes.
fn counters(cluster: &Cluster) -> (i64, i64) {
    let pgs = cluster.target(0).map(|target| target.pgs().all()).unwrap_or_default();
    pgs.iter().fold((0, 0), |sum, pg| {
        let stats = pg.state.borrow().stats;
        (sum.0 + stats.num_objects, sum.1 + stats.num_bytes)
    })
}
