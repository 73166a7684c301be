//! The engine against naive models: random transactions, eviction, checkpoints, crashes, reopening.
//!
//! Here in the order of their epochs and only the newest state is seen; in `versions` in any order, and
//! at all epochs.

mod bounds;
mod clones;
mod containers;
mod dkeys;
mod dtx;
mod ops;
mod prepared;
mod punches;
mod rig;
mod rules;
mod versions;

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spirula_vos::{Config, ContainerId, PAGE_SIZE, StageError, Tx};

use ops::{State, random_op, random_pair_op};
use rig::Rig;

const CONTAINERS: u8 = 3;
/// Further ones, which only come about when others are split.
const SPARE: u8 = 2;

fn run(seed: u64, steps: usize, pool_pages: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let config = Config { pool_bytes: pool_pages * PAGE_SIZE, ..Config::default() };
    let mut rig = Rig::new(config);
    let mut model: BTreeMap<ContainerId, State> =
        (0..CONTAINERS + SPARE).map(|i| (ContainerId([i; 16]), None)).collect();
    for step in 0..steps {
        let mut tx = Tx::new(step as u64);
        let mut after = model.clone();
        for _ in 0..rng.random_range(1..4) {
            let mut cid = ContainerId([rng.random_range(0..CONTAINERS + SPARE); 16]);
            if after[&cid].is_none() && cid.0[0] >= CONTAINERS {
                cid = ContainerId([0; 16]);
            }
            if rng.random_bool(0.05) {
                let pair =
                    [(); 2].map(|()| ContainerId([rng.random_range(0..CONTAINERS + SPARE); 16]));
                if let Some(op) = random_pair_op(pair, pair.map(|c| &after[&c]), &mut rng) {
                    op.add(&mut tx);
                    let mut states = pair.map(|c| after.insert(c, None).unwrap());
                    op.apply(&mut states);
                    after.extend(pair.into_iter().zip(states));
                    continue;
                }
            }
            let state = after.get_mut(&cid).unwrap();
            let op = random_op(state, &mut rng);
            ops::add(&mut tx, cid, &op);
            ops::apply(state, &op);
        }
        match rig.submit(&tx) {
            Ok(_) => model = after,
            Err(StageError::NoSpace) => rig.checkpoint(),
            Err(e) => panic!("step {step}: {e}"),
        }
        match rng.random_range(0..60) {
            0..4 => rig.checkpoint(),
            4..8 => rig.vos.evict_all(),
            8..20 => rig.collect(rng.random_range(1..40)),
            20..22 => rig.reopen(),
            22..24 => rig.check(),
            24..27 => {
                for (cid, state) in &model {
                    let found = rig.observe(*cid);
                    assert_eq!(*state, found, "step {step}: {}", ops::difference(state, &found));
                }
            }
            _ => rig.vos.evict(),
        }
    }
    rig.reopen();
    rig.check();
    for (cid, state) in &model {
        let found = rig.observe(*cid);
        assert!(*state == found, "{}", ops::difference(state, &found));
    }
    let left = model.iter().filter(|(_, s)| s.is_some()).map(|(cid, _)| *cid);
    rig.drain(&left.collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_the_model(
        seed in any::<u64>(),
        steps in 1usize..400,
        pool in prop_oneof![Just(16usize), Just(4096)],
    ) {
        run(seed, steps, pool);
    }
}
