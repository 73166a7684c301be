//! A model of a whole PG: five OSDs with logs and objects in memory, a monitor, clients, from one seed.
//!
//! Faults: OSDs crash and lose what was not flushed, are marked down though they live, go out and in,
//! are cut off from others (one way too) and from the monitor, lose a disk; messages are delayed and some
//! of peering come twice; sources of objects fail or are given up; slots are taken away; the pool's size
//! and min_size change, and so do exceptions (`pg_temp`); clocks run apart.
//! While faults go on, no read may miss an acknowledged write. When they stop, the PG must become clean
//! and finish every request; each was carried out once, and the copies are the same.
//!
//! A failing seed replays: `SPIRULA_PG_SEED=n cargo test -p spirula-pg --test model`;
//! `SPIRULA_PG_SEEDS=n` plays n, from `SPIRULA_PG_FROM` on.

mod mon;
mod node;
mod world;

use world::World;

/// Seeds of every run; those that found a bug stay.
const SEEDS: u64 = 30;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_pg_survives_anything() {
    let seeds = match number("SPIRULA_PG_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("SPIRULA_PG_FROM").unwrap_or(0);
            from..from + number("SPIRULA_PG_SEEDS").unwrap_or(SEEDS)
        }
    };
    let mut total = world::Seen::default();
    for seed in seeds.clone() {
        let played = std::panic::catch_unwind(|| World::new(seed).play());
        match played {
            Ok(seen) => total.add(&seen),
            Err(_) => panic!("seed {seed} failed: SPIRULA_PG_SEED={seed} replays it"),
        }
    }
    println!("{total:?}");
    if seeds.end - seeds.start >= SEEDS {
        // Otherwise the model shows nothing.
        for (what, count) in total.counts() {
            assert!(count > 0, "{what} never happened: {total:?}");
        }
    }
}
