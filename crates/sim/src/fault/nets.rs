//! Faults of the network: partitions, delays, broken and stalled connections.

use std::time::Duration;

use spirula_xstream::sim::NetConfig;

use super::Mark;
use super::stage::{Rough, Stage};

/// Closes directions; the mark lists them as pairs of hosts.
fn cut(stage: &mut Stage, pairs: impl IntoIterator<Item = (usize, usize)>) -> Option<Mark> {
    let hosts = stage.hosts();
    let mut about = Vec::new();
    for (from, to) in pairs.into_iter().filter(|(from, to)| from != to) {
        stage.cluster.world.block(&hosts[from], &hosts[to]);
        stage.cuts.push((from, to));
        about.extend([from, to]);
    }
    Some(Mark { about })
}

/// Opens what this fault closed and no other one has closed as well.
pub(super) fn rejoin(stage: &mut Stage, mark: Mark) {
    let hosts = stage.hosts();
    for pair in mark.about.chunks_exact(2) {
        let pair = (pair[0], pair[1]);
        if let Some(at) = stage.cuts.iter().position(|cut| *cut == pair) {
            stage.cuts.remove(at);
        }
        if !stage.cuts.contains(&pair) {
            stage.cluster.world.unblock(&hosts[pair.0], &hosts[pair.1]);
        }
    }
}

/// Two groups of hosts do not reach each other.
pub(super) fn split(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let count = stage.hosts().len();
    let left = |host: usize| pick >> (host % 64) & 1 == 0;
    let all = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
    cut(stage, all.filter(|(a, b)| left(*a) != left(*b)))
}

/// One host reaches nobody, and nobody reaches it.
pub(super) fn isolate(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let count = stage.hosts().len();
    let lonely = pick as usize % count;
    cut(stage, (0..count).flat_map(|other| [(lonely, other), (other, lonely)]))
}

/// What one host sends does not reach some others, or what they send does not reach it.
pub(super) fn one_way(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let count = stage.hosts().len();
    let deaf = pick as usize % count;
    let inward = (pick >> 32) & 1 == 0;
    let others = (0..count).filter(|other| pick >> (other % 24 + 8) & 1 == 0);
    cut(stage, others.map(|other| if inward { (other, deaf) } else { (deaf, other) }))
}

fn rough(stage: &mut Stage, kind: Rough) -> Option<Mark> {
    stage.rough.push(kind);
    apply(stage);
    Some(Mark { about: vec![kind as usize] })
}

pub(super) fn quiet(stage: &mut Stage, mark: Mark) {
    if let Some(at) = stage.rough.iter().position(|kind| mark.about.contains(&(*kind as usize))) {
        stage.rough.remove(at);
    }
    apply(stage);
}

pub(super) fn delays(stage: &mut Stage, _: u64) -> Option<Mark> {
    rough(stage, Rough::Delays)
}

pub(super) fn resets(stage: &mut Stage, _: u64) -> Option<Mark> {
    rough(stage, Rough::Resets)
}

pub(super) fn stalls(stage: &mut Stage, _: u64) -> Option<Mark> {
    rough(stage, Rough::Stalls)
}

pub(super) fn left_behind(stage: &mut Stage, _: u64) -> Option<Mark> {
    rough(stage, Rough::LeftBehind)
}

fn apply(stage: &Stage) {
    let mut config = NetConfig::default();
    for kind in &stage.rough {
        match kind {
            Rough::Delays => {
                config.latency = Duration::from_micros(20)..Duration::from_millis(80);
                config.loss_per_million = 5000;
            }
            Rough::Resets => config.reset_per_million = 3000,
            Rough::Stalls => config.stall_per_million = 5000,
            Rough::LeftBehind => config.left_behind_per_million = 3000,
        }
    }
    stage.cluster.world.set_net(config);
}
