//! Random reads, writes and checks, with caches of every size.

use proptest::prelude::*;

use super::naive::{History, Timestamps, path};
use crate::timestamp::{Cache, Level, Outcome, Path, TxId, TxStamp};

#[derive(Clone, Debug)]
enum Step {
    Read(String, TxStamp, Outcome),
    Write(String, TxStamp),
}

fn place() -> impl Strategy<Value = String> {
    (1..=4_usize, 0..2_u8, 0..4_u8, 0..4_u8, 0..12_u8).prop_map(|(levels, c, o, d, a)| {
        let keys = [c, o, d, a].map(|k| char::from(b'a' + k));
        keys.iter().take(levels).collect()
    })
}

fn stamp() -> impl Strategy<Value = TxStamp> {
    (1..5_u8, 1..100_u64, 0..20_u64).prop_map(|(id, epoch, uncertainty)| {
        TxStamp::uncertain(TxId([id; 16]), epoch, epoch, uncertainty)
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Found),
        1 => Just(Outcome::Missing(Level::Object)),
        1 => Just(Outcome::Missing(Level::Dkey)),
        1 => Just(Outcome::Missing(Level::Akey)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (place(), stamp(), outcome()).prop_map(|(p, s, o)| Step::Read(p, s, o)),
        1 => (place(), stamp()).prop_map(|(p, s)| Step::Write(p, s)),
    ];
    prop::collection::vec(step, 0..250)
}

/// Notes all steps in both.
fn play(steps: &[Step], cache: &mut Cache) -> History {
    let mut history = History::default();
    for step in steps {
        match step {
            Step::Read(place, by, outcome) => {
                cache.note(place, by, *outcome);
                history.note(place, by, *outcome);
            }
            Step::Write(place, by) => {
                cache.wrote(place, by);
                history.wrote(place, by);
            }
        }
    }
    history
}

/// Levels at which the cache may take one place for the other: they share a set there.
fn meeting<'a>(cache: &'a Cache, a: &'a Path, b: &'a Path) -> impl Iterator<Item = Level> + 'a {
    let pairs = a.levels().zip(b.levels());
    pairs.filter_map(|((level, a), (_, b))| {
        let table = &cache.tables[level as usize];
        (table.set_of(a) == table.set_of(b)).then_some(level)
    })
}

/// Whether something happened that the cache cannot tell from an operation in the way of one at
/// `at`.
fn blurred(cache: &Cache, at: &Path, other: &str) -> bool {
    let other = path(other);
    // At its own level all below counts, above it only what was done to the whole.
    meeting(cache, at, &other).any(|level| level == at.level() || level == other.level())
}

fn may_blame_a_write(cache: &Cache, history: &History, at: &Path, by: &TxStamp) -> bool {
    let seen = history.writes.iter().filter(|(place, _)| blurred(cache, at, place));
    let mut epochs: Vec<u64> = seen.map(|(_, w)| w.epoch).filter(|&e| e > by.epoch).collect();
    epochs.sort_unstable();
    epochs.dedup();
    // Only two epochs are kept: beyond the second anything may be hidden.
    by.epoch < by.bound && (epochs.len() > 1 || epochs.iter().any(|&e| e <= by.bound))
}

fn may_blame_a_read(cache: &Cache, history: &History, at: &Path, by: &TxStamp) -> bool {
    let late = |r: &TxStamp| r.epoch >= by.epoch;
    history.reads.iter().any(|(place, r)| late(r) && blurred(cache, at, place))
}

fn check(steps: &[Step], asked: &[(String, TxStamp)], bytes: usize) -> Result<(), TestCaseError> {
    let mut cache = Cache::new(0, bytes);
    let history = play(steps, &mut cache);
    for (place, by) in asked {
        let at = path(place);
        let blamed = may_blame_a_write(&cache, &history, &at, by);
        match cache.check_read(&at, by) {
            Ok(()) => prop_assert!(history.may_read(place, by), "{place} {by:?}"),
            Err(_) => prop_assert!(blamed, "{place} {by:?}: no write near it"),
        }
        match cache.check_write(&at, by) {
            Ok(()) => prop_assert!(history.may_write(place, by), "{place} {by:?}"),
            Err(restart) => {
                let blamed = blamed || may_blame_a_read(&cache, &history, &at, by);
                prop_assert!(blamed, "{place} {by:?}: no read near it");
                prop_assert!(restart.after >= by.epoch);
                let again = TxStamp { epoch: restart.after + 1, ..*by };
                prop_assert_eq!(cache.check_write(&at, &again), Ok(()));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Never "fine" where the history says conflict; a conflict only where the bound explains it.
    #[test]
    fn nothing_is_forgotten(
        steps in steps(),
        asked in prop::collection::vec((place(), stamp()), 60),
        bytes in prop_oneof![Just(0), Just(30_000), Just(100_000), Just(1_000_000)],
    ) {
        check(&steps, &asked, bytes)?;
    }

    /// With room for all, and for reads of what exists, the cache is the history.
    #[test]
    fn with_room_it_is_exact(
        steps in steps(),
        asked in prop::collection::vec((place(), stamp()), 60),
    ) {
        let found = |step: &Step| !matches!(step, Step::Read(_, _, Outcome::Missing(_)));
        let steps: Vec<Step> = steps.into_iter().filter(found).collect();
        let mut cache = Cache::new(0, 1 << 20);
        let history = play(&steps, &mut cache);
        for (place, by) in &asked {
            let by = TxStamp::certain(by.id, by.epoch);
            prop_assert_eq!(cache.may_write(place, &by), history.may_write(place, &by));
        }
    }
}
