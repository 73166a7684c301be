//! Readers and writers of the OSD map at each of three monitors, while one of these is cut off from the
//! others in one direction or both: an answer is never older than what was acknowledged to anybody
//! before the question.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use spirula_sim::{Client, Cluster};
use spirula_xstream::{Class, random_u64, sleep, spawn};

use crate::Seed;

const SEEDS: std::ops::Range<u64> = 50..52;
const ROUNDS: u64 = 6;
const HEALED_IN: Duration = Duration::from_secs(60);
/// What the writer at each monitor sets and takes back.
const FLAGS: [&str; 3] = ["noout", "noscrub", "nodeep-scrub"];

/// What the clients know together.
#[derive(Default)]
struct Known {
    /// The newest epoch that was acknowledged.
    epoch: Cell<u64>,
    reads: Cell<u64>,
    writes: Cell<u64>,
}

async fn read(client: Client, known: Rc<Known>) {
    loop {
        let before = known.epoch.get();
        let asked = client.command(r#"{"prefix": "osd dump", "format": "json"}"#).await;
        let Ok(reply) = asked else { return };
        let text = String::from_utf8_lossy(&reply.out);
        let epoch = text.split("\"epoch\":").nth(1).and_then(|rest| rest.split(',').next());
        let epoch = epoch.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        assert!(epoch >= before, "epoch {epoch} when {before} had been acknowledged");
        known.reads.set(known.reads.get() + 1);
        sleep(Duration::from_millis(random_u64() % 20)).await;
    }
}

async fn write(client: Client, flag: &str, known: Rc<Known>) {
    for verb in ["set", "unset"].iter().cycle() {
        let text = format!(r#"{{"prefix": "osd {verb}", "key": "{flag}"}}"#);
        let Ok(reply) = client.command(&text).await else { return };
        assert_eq!(reply.r, 0);
        known.epoch.set(known.epoch.get().max(reply.version));
        known.writes.set(known.writes.get() + 1);
        sleep(Duration::from_millis(random_u64() % 50)).await;
    }
}

fn play(seed: u64) {
    let cluster = Cluster::with_mons(seed, 4, 3);
    let known = Rc::new(Known::default());
    cluster.start_mon();
    for (rank, flag) in FLAGS.into_iter().enumerate() {
        let connectors = [cluster.connector_to(rank), cluster.connector_to(rank)];
        let known = known.clone();
        let started = cluster.client.block_on(async move {
            let [reader, writer] = connectors.map(|connect| connect());
            drop(spawn(Class::Client, read(reader, known.clone())));
            drop(spawn(Class::Client, write(writer, flag, known)));
        });
        assert!(started.is_ok());
    }
    let world = &cluster.world;
    for round in 0..ROUNDS {
        let more = |reads: u64, writes: u64| {
            world.run_until(HEALED_IN, || known.reads.get() > reads && known.writes.get() > writes)
        };
        assert!(more(known.reads.get() + 100, known.writes.get() + 30), "no progress");
        let lost = &cluster.mons[(world.random_u64() % 3) as usize];
        for other in cluster.mons.iter().filter(|m| m.ip() != lost.ip()) {
            match round % 3 {
                0 => world.partition(&[lost], &[other]),
                1 => world.block(lost, other),
                _ => world.block(other, lost),
            }
        }
        world.run_for(Duration::from_millis(200 + world.random_u64() % 4000));
        // The other two go on.
        assert!(more(known.reads.get() + 10, known.writes.get() + 10), "no progress by two");
        world.heal();
    }
}

#[test]
fn no_monitor_tells_a_map_older_than_an_acknowledged_one() {
    let one = std::env::var("SPIRULA_SIM_SEED").ok().and_then(|text| text.parse().ok());
    for seed in one.map_or(SEEDS, |seed: u64| seed..seed + 1) {
        let _named = Seed(seed);
        play(seed);
    }
}
