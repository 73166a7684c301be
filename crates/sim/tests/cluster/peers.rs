//! Several OSDs that watch each other: one is cut off, dies, or does not see the monitor.

use std::time::Duration;

use spirula_sim::Cluster;
use spirula_xstream::sim::NetConfig;

use crate::Seed;

const OSDS: usize = 4;
/// All are up, or somebody notices that one is not, by then.
const SOON: Duration = Duration::from_secs(120);

fn started(seed: u64) -> Cluster {
    let cluster = Cluster::with_osds(seed, 8, OSDS);
    cluster.start_mon();
    cluster.start_osds();
    let all_up = || (0..OSDS).all(|id| sees(&cluster, 0, id, true));
    assert!(cluster.world.run_until(SOON, all_up), "the OSDs do not come up");
    // So that everybody has heard of everybody.
    cluster.world.run_for(Duration::from_secs(15));
    cluster
}

/// Whether `witness` has a map in which `id` is up, or not.
fn sees(cluster: &Cluster, witness: usize, id: usize, up: bool) -> bool {
    cluster.target(witness).is_some_and(|t| t.map().is_up(id as i32) == up)
}

/// How long until `witness` sees it so.
fn until(cluster: &Cluster, witness: usize, id: usize, up: bool) -> Duration {
    let before = cluster.world.now();
    let seen = cluster.world.run_until(SOON, || sees(cluster, witness, id, up));
    assert!(seen, "osd.{id} should be {} for osd.{witness}", if up { "up" } else { "down" });
    cluster.world.now() - before
}

fn others(cluster: &Cluster, id: usize) -> Vec<&spirula_xstream::sim::SimHost> {
    (0..OSDS).filter(|other| *other != id).map(|other| cluster.osd_host(other)).collect()
}

#[test]
fn an_osd_cut_off_from_its_peers_is_reported_and_comes_back() {
    for seed in 0..4 {
        let _named = Seed(seed);
        let cluster = started(seed);
        // It sees the monitor all the time, and would boot again and again but for the cut.
        cluster.world.partition(&[cluster.osd_host(3)], &others(&cluster, 3));
        let took = until(&cluster, 0, 3, false);
        let (grace, slack) = (Duration::from_secs(20), Duration::from_secs(20));
        assert!(took >= grace - Duration::from_secs(7) && took < grace + slack, "{took:?}");
        cluster.world.heal();
        until(&cluster, 0, 3, true);
        cluster.world.run_for(Duration::from_secs(60));
        assert!((0..OSDS).all(|id| sees(&cluster, 1, id, true)), "it is quiet again");
    }
}

#[test]
fn a_killed_osd_is_noticed_at_once() {
    for seed in 0..4 {
        let _named = Seed(seed);
        let cluster = started(seed);
        cluster.osd_kill_of(2);
        let took = until(&cluster, 0, 2, false);
        assert!(took < Duration::from_secs(10), "{took:?}");
        let dead = cluster.target(0).map(|t| t.map().osd(2).unwrap().xinfo.dead_epoch);
        assert!(dead > Some(0));
        cluster.start_osd_of(2);
        until(&cluster, 1, 2, true);
    }
}

/// Maps reach an OSD that does not see the monitor, from its peers, over their lossless sessions.
#[test]
fn peers_pass_maps_on() {
    for seed in 0..4 {
        let _named = Seed(seed);
        let cluster = started(seed);
        cluster.world.set_net(NetConfig { reset_per_million: 3000, ..NetConfig::default() });
        cluster.world.partition(&[&cluster.mon], &[cluster.osd_host(1)]);
        cluster.osd_kill_of(2);
        until(&cluster, 0, 2, false);
        until(&cluster, 1, 2, false);
        assert!(sees(&cluster, 0, 1, true), "its peers hear it");
    }
}

#[test]
fn nothing_is_reported_on_a_rough_network() {
    for seed in 0..4 {
        let _named = Seed(seed);
        let cluster = started(seed);
        let epoch = cluster.target(0).unwrap().epoch();
        cluster.world.set_net(NetConfig {
            latency: Duration::from_micros(20)..Duration::from_millis(50),
            loss_per_million: 2000,
            reset_per_million: 3000,
            ..NetConfig::default()
        });
        cluster.world.run_for(Duration::from_secs(600));
        assert_eq!(cluster.target(0).unwrap().epoch(), epoch);
    }
}
