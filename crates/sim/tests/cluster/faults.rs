//! One seed's run: load, faults one after the other, then quiet, in which all must heal.

use std::time::Duration;

use spirula_sim::Cluster;
use spirula_xstream::JoinHandle;
use spirula_xstream::sim::NetConfig;

use crate::work::Load;

const ROUNDS: u64 = 6;
const PG_NUM: u32 = 4;
/// Virtual time in which a cluster without faults has healed.
const HEALED_IN: Duration = Duration::from_secs(120);

/// What a run came to; equal for equal seeds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) trace: (u64, u64),
    pub(crate) took: Duration,
}

pub(crate) fn play(seed: u64) -> Outcome {
    let cluster = Cluster::new(seed, PG_NUM);
    let load = Load::default();
    cluster.start_mon();
    cluster.start_osd();
    let mut workers = load.start(&cluster);
    cluster.world.set_net(rough_net());
    for _ in 0..ROUNDS {
        cluster.world.run_for(millis(&cluster, 500));
        fault(&cluster, &load, &mut workers);
    }
    cluster.world.set_net(NetConfig::default());
    heal(&cluster);
    let before = load.requests();
    let progress = || load.requests() > before + 20;
    assert!(cluster.world.run_until(HEALED_IN, progress), "no progress");
    load.stop();
    let ended = || workers.iter().all(JoinHandle::is_finished);
    assert!(cluster.world.run_until(HEALED_IN, ended), "requests hang");
    cluster.osd_power_loss();
    cluster.start_osd();
    load.verify(&cluster, HEALED_IN);
    Outcome { requests: load.requests(), trace: cluster.world.trace(), took: cluster.world.now() }
}

/// Something breaks, for a while.
fn fault(cluster: &Cluster, load: &Load, workers: &mut Vec<JoinHandle<()>>) {
    let world = &cluster.world;
    let pause = || world.run_for(millis(cluster, 2500));
    match world.random_u64() % 8 {
        0..=2 => {
            cluster.osd_power_loss();
            pause();
            cluster.start_osd();
        }
        3 => {
            cluster.osd_kill();
            pause();
            cluster.start_osd();
        }
        4 => {
            cluster.mon.power_loss();
            pause();
            cluster.start_mon();
        }
        5 => {
            world.partition(&[&cluster.client], &[&cluster.osd]);
            pause();
            world.heal();
        }
        6 => {
            world.partition(&[&cluster.mon], &[&cluster.osd, &cluster.client]);
            pause();
            world.heal();
        }
        _ => {
            cluster.client.power_loss();
            // What it sent must have arrived, or be lost, before another client looks.
            heal(cluster);
            world.run_for(Duration::from_secs(2));
            *workers = load.start(cluster);
        }
    }
}

fn heal(cluster: &Cluster) {
    let healthy = cluster.world.run_until(HEALED_IN, || cluster.is_healthy());
    assert!(healthy, "the cluster does not heal: {}", cluster.describe());
}

/// Latency, loss and resets of a bad network.
fn rough_net() -> NetConfig {
    NetConfig {
        latency: Duration::from_micros(20)..Duration::from_millis(2),
        loss_per_million: 2000,
        reset_per_million: 3000,
        ..NetConfig::default()
    }
}

fn millis(cluster: &Cluster, max: u64) -> Duration {
    Duration::from_millis(1 + cluster.world.random_u64() % max)
}
