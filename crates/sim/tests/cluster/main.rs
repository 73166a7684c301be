//! A monitor, a target and a client in one thread: what one seed does to them, and what must hold.
//!
//! `SPIRULA_SIM_SEED=n` plays one seed; a failure names the seed it happened with.

mod copies;
mod copy_from;
mod cut_off;
mod faults;
mod lost;
mod monitors;
mod peers;
mod reads;
mod redirects;
mod reshape;
mod scrub;
mod shared;
mod work;

use std::time::Duration;

use faults::{Outcome, play};
use spirula_osd::full::Level;
use spirula_sim::Cluster;
use work::{Load, OBJECTS};

const SEEDS: std::ops::Range<u64> = 0..20;

/// Names the seed when a check fails, wherever that is.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SPIRULA_SIM_SEED={}", self.0);
        }
    }
}

fn play_named(seed: u64) -> Outcome {
    let _named = Seed(seed);
    play(seed)
}

#[test]
fn acknowledged_writes_survive_every_fault_and_the_cluster_heals() {
    let one = std::env::var("SPIRULA_SIM_SEED").ok();
    if let Some(seed) = one.and_then(|text| text.parse().ok()) {
        println!("seed {seed}: {:?}", play_named(seed));
        return;
    }
    let mut requests = 0;
    for seed in SEEDS {
        requests += play_named(seed).requests;
    }
    assert!(requests > 1000, "only {requests} requests were acknowledged: nothing was tested");
}

#[test]
fn equal_seeds_make_equal_runs() {
    for seed in 0..2 {
        assert_eq!(play_named(seed), play_named(seed), "seed {seed}");
    }
    assert_ne!(play_named(0).trace, play_named(1).trace);
}

/// A monitor that is cut off without a word is noticed by the keepalives that it does not answer;
/// one that only has nothing to say keeps its sessions.
#[test]
fn a_silent_monitor_is_noticed() {
    let _named = Seed(78);
    let cluster = Cluster::new(78, 4);
    cluster.start_mon();
    cluster.start_osd();
    let connect = cluster.connector();
    let client = cluster.client.block_on(async move { connect() });
    let client = client.expect("the client's host runs");
    let world = &cluster.world;
    let sessions = || [cluster.osd_mon_session(), client.mon_session()];
    assert!(world.run_until(Duration::from_secs(60), || sessions().iter().all(Option::is_some)));
    let first = sessions();
    world.run_for(Duration::from_secs(300));
    assert_eq!(sessions(), first);
    world.partition(&[&cluster.mon], &[&cluster.osd, &cluster.client]);
    world.run_for(Duration::from_secs(45));
    assert_eq!(sessions(), [None, None]);
    world.heal();
    assert!(world.run_until(Duration::from_secs(60), || sessions().iter().all(Option::is_some)));
    assert!(sessions() != first);
}

/// Writes that come when the device is too full are dropped, whether their clients know it or not:
/// each is carried out when there is space again, once.
#[test]
fn writes_wait_while_the_device_is_full() {
    let _named = Seed(79);
    let cluster = Cluster::new(79, 4);
    cluster.start_mon();
    cluster.start_osd();
    let load = Load::default();
    let workers = load.start(&cluster);
    let (world, limit) = (&cluster.world, Duration::from_secs(60));
    assert!(world.run_until(limit, || load.requests() > OBJECTS));
    // Now and then it is over before anybody was told.
    for lasts in [20_000, 0, 1, 30, 1_500, 300, 5, 20_000] {
        cluster.pretend_full(Level::Failsafe);
        world.run_for(Duration::from_millis(lasts));
        let before = load.requests();
        if lasts > 10_000 {
            world.run_for(Duration::from_secs(10));
            assert_eq!(load.requests(), before);
        }
        cluster.pretend_full(Level::None);
        assert!(world.run_until(limit, || load.requests() > before + OBJECTS * 4));
    }
    load.stop();
    assert!(world.run_until(limit, || workers.iter().all(|w| w.is_finished())));
    load.verify(&cluster, limit);
}

/// Tickets of an hour are renewed, and rotating secrets replaced, while nothing else happens.
#[test]
fn sessions_and_new_ones_live_through_rotation() {
    let _named = Seed(77);
    let cluster = Cluster::new(77, 4);
    cluster.start_mon();
    cluster.start_osd();
    let load = Load::default();
    let workers = load.start(&cluster);
    let limit = Duration::from_secs(60);
    let world = &cluster.world;
    assert!(world.run_until(limit, || load.requests() > OBJECTS));
    load.stop();
    assert!(world.run_until(limit, || workers.iter().all(|w| w.is_finished())));
    world.run_for(Duration::from_secs(5 * 3600));
    load.verify(&cluster, limit);
    // The target meets a client of the new secrets on a new session of its own as well.
    cluster.osd_power_loss();
    cluster.start_osd();
    load.verify(&cluster, limit);
}
