//! Three monitors that lose power and are cut off while clients write and the target restarts:
//! requests go on while two of them are there, and in the end all three hold the same.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use spirula_mon::Storage as _;
use spirula_sim::check::monitors;
use spirula_sim::{Client, Cluster};
use spirula_xstream::sim::SimHost;
use spirula_xstream::{Class, JoinHandle, spawn};

use crate::Seed;
use crate::work::Load;

const SEEDS: std::ops::Range<u64> = 0..3;
const ROUNDS: u64 = 6;
const HEALED_IN: Duration = Duration::from_secs(120);

#[test]
fn a_quorum_lives_through_the_loss_of_any_monitor() {
    let one = std::env::var("SPIRULA_SIM_SEED").ok().and_then(|text| text.parse().ok());
    for seed in one.map_or(SEEDS, |seed: u64| seed..seed + 1) {
        let _named = Seed(seed);
        play(seed);
    }
}

/// One monitor after the other loses its disk, until none has the store it began with.
#[test]
fn monitors_that_lost_their_disks_come_back() {
    let _named = Seed(40);
    let cluster = Cluster::with_mons(40, 4, 3);
    let load = Load::default();
    cluster.start_mon();
    cluster.start_osd();
    let workers = load.start(&cluster);
    for rank in 0..3 {
        assert!(cluster.world.run_until(HEALED_IN, || cluster.is_healthy()));
        cluster.world.run_for(Duration::from_secs(20));
        cluster.mons[rank].power_loss();
        cluster.lose_mon_store(rank);
        cluster.world.run_for(Duration::from_secs(1));
        cluster.start_mon_of(rank);
        cluster.world.run_for(Duration::from_secs(20));
        let (_, state) = cluster.mon_states().remove(rank);
        let stored = cluster.mon_stores()[rank].load();
        let node = stored.expect("in memory").node;
        assert_eq!(state.members.get(&node).map(String::as_str), Some(["a", "b", "c"][rank]));
        assert_eq!(state.members.len(), 3);
    }
    load.stop();
    let ended = || workers.iter().all(JoinHandle::is_finished);
    assert!(cluster.world.run_until(HEALED_IN, ended), "requests hang");
    load.verify(&cluster, HEALED_IN);
    cluster.world.run_for(Duration::from_secs(5));
    assert_eq!(monitors::check(&cluster.mon_states()), []);
}

/// Runs a command, however long it takes; what it printed.
fn run(cluster: &Cluster, client: &Client, text: String) -> String {
    let answer = Rc::new(RefCell::new(None));
    let (kept, client) = (answer.clone(), client.clone());
    let asked = cluster.client.block_on(async move {
        let asking = async move { *kept.borrow_mut() = client.command(&text).await.ok() };
        drop(spawn(Class::Client, asking));
    });
    assert!(asked.is_ok());
    assert!(cluster.world.run_until(HEALED_IN, || answer.borrow().is_some()), "no answer");
    let reply = answer.take().expect("an answer");
    assert_eq!(reply.r, 0);
    String::from_utf8_lossy(&reply.out).into_owned()
}

fn wait_for_quorum(cluster: &Cluster, client: &Client, names: &str) {
    for _ in 0..60 {
        let stat = run(cluster, client, r#"{"prefix": "mon stat"}"#.into());
        if stat.trim_end().ends_with(names) {
            return;
        }
        cluster.world.run_for(Duration::from_secs(1));
    }
    panic!("no quorum of {names}");
}

/// From three monitors to five and, without the first two, back to three, while clients write and one
/// or the other monitor loses power.
#[test]
fn monitors_are_added_and_removed_under_load() {
    let _named = Seed(41);
    let mut cluster = Cluster::with_mons(41, 4, 3);
    let load = Load::default();
    cluster.start_mon();
    cluster.start_osd();
    let workers = load.start(&cluster);
    let connect = cluster.connector_to(2);
    let client = cluster.client.block_on(async move { connect() }).expect("the host runs");
    assert!(cluster.world.run_until(HEALED_IN, || cluster.is_healthy()));
    for (name, names) in [("d", "a,b,c,d"), ("e", "a,b,c,d,e")] {
        let addr = cluster.add_mon(name);
        let add = format!(r#"{{"prefix": "mon add", "name": "{name}", "addr": "{addr}"}}"#);
        run(&cluster, &client, add);
        cluster.start_mon_of(cluster.mons.len() - 1);
        cluster.world.run_for(Duration::from_millis(cluster.world.random_u64() % 3000));
        cluster.mons[0].power_loss();
        cluster.world.run_for(Duration::from_secs(5));
        cluster.start_mon_of(0);
        wait_for_quorum(&cluster, &client, names);
    }
    for (name, names) in [("a", "b,c,d,e"), ("b", "c,d,e")] {
        run(&cluster, &client, format!(r#"{{"prefix": "mon rm", "name": "{name}"}}"#));
        cluster.mons[3].power_loss();
        cluster.world.run_for(Duration::from_secs(5));
        cluster.start_mon_of(3);
        wait_for_quorum(&cluster, &client, names);
    }
    let before = load.requests();
    assert!(cluster.world.run_until(HEALED_IN, || load.requests() > before + 20), "no progress");
    load.stop();
    let ended = || workers.iter().all(JoinHandle::is_finished);
    assert!(cluster.world.run_until(HEALED_IN, ended), "requests hang");
    load.verify(&cluster, HEALED_IN);
    cluster.world.run_for(Duration::from_secs(5));
    let states = cluster.mon_states_from(2);
    assert_eq!(states[0].1.members.len(), 3, "{:?}", states[0].1.members);
    assert_eq!(monitors::check(&states), []);
}

fn play(seed: u64) {
    let cluster = Cluster::with_mons(seed, 4, 3);
    let load = Load::default();
    cluster.start_mon();
    cluster.start_osd();
    let workers = load.start(&cluster);
    let world = &cluster.world;
    for _ in 0..ROUNDS {
        world.run_for(Duration::from_millis(1 + world.random_u64() % 3000));
        fault(&cluster);
        // With two of three there, the target must come up and serve.
        assert!(world.run_until(HEALED_IN, || cluster.is_healthy()), "no service without one");
    }
    let before = load.requests();
    assert!(world.run_until(HEALED_IN, || load.requests() > before + 20), "no progress");
    load.stop();
    let ended = || workers.iter().all(JoinHandle::is_finished);
    assert!(world.run_until(HEALED_IN, ended), "requests hang");
    load.verify(&cluster, HEALED_IN);
    world.run_for(Duration::from_secs(20));
    assert!(cluster.mon_states()[0].1.version > 3, "nothing happened");
    assert_eq!(monitors::check(&cluster.mon_states()), []);
}

/// One monitor is lost for a while, and sometimes the target restarts meanwhile.
fn fault(cluster: &Cluster) {
    let world = &cluster.world;
    let rank = (world.random_u64() % 3) as usize;
    let lost = &cluster.mons[rank];
    let cut = world.random_u64().is_multiple_of(2);
    if cut {
        let others: Vec<&SimHost> = cluster.mons.iter().filter(|m| m.ip() != lost.ip()).collect();
        let rest: Vec<&SimHost> =
            others.into_iter().chain([&cluster.osd, &cluster.client]).collect();
        world.partition(&[lost], &rest);
    } else {
        lost.power_loss();
    }
    if world.random_u64().is_multiple_of(3) {
        cluster.osd_power_loss();
        world.run_for(Duration::from_millis(300));
        cluster.start_osd();
    }
    world.run_for(Duration::from_millis(1 + world.random_u64() % 8000));
    assert!(world.run_until(HEALED_IN, || cluster.is_healthy()), "two monitors are a quorum");
    if cut { world.heal() } else { cluster.start_mon_of(rank) }
}
