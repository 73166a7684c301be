//! Faults of processes and machines: crashes, losses of power, pauses, clocks.

use std::time::Duration;

use super::Mark;
use super::stage::{Stage, Who};

fn one(number: usize) -> Option<Mark> {
    Some(Mark { about: vec![number] })
}

/// An OSD whose process runs.
pub(super) fn running_osd(stage: &Stage, pick: u64) -> Option<usize> {
    let id = pick as usize % stage.cluster.osd_count();
    let runs = stage.cluster.osd_host(id).is_running();
    (runs && !stage.down.contains(&Who::Osd(id))).then_some(id)
}

pub(super) fn running_mon(stage: &Stage, pick: u64) -> Option<usize> {
    let rank = pick as usize % stage.cluster.mons.len();
    let runs = stage.cluster.mons[rank].is_running();
    (runs && !stage.down.contains(&Who::Mon(rank))).then_some(rank)
}

pub(super) fn kill_osd(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = running_osd(stage, pick)?;
    stage.down.insert(Who::Osd(id));
    stage.cluster.osd_kill_of(id);
    one(id)
}

pub(super) fn cut_osd(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = running_osd(stage, pick)?;
    stage.down.insert(Who::Osd(id));
    stage.cluster.osd_power_loss_of(id);
    one(id)
}

pub(super) fn start_osd(stage: &mut Stage, mark: Mark) {
    for id in mark.about {
        stage.down.remove(&Who::Osd(id));
        if !stage.cluster.osd_host(id).is_running() {
            stage.cluster.start_osd_of(id);
        }
    }
}

pub(super) fn kill_mon(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let rank = running_mon(stage, pick)?;
    stage.down.insert(Who::Mon(rank));
    stage.cluster.mons[rank].kill();
    one(rank)
}

pub(super) fn cut_mon(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let rank = running_mon(stage, pick)?;
    stage.down.insert(Who::Mon(rank));
    stage.cluster.mons[rank].power_loss();
    one(rank)
}

pub(super) fn start_mon(stage: &mut Stage, mark: Mark) {
    for rank in mark.about {
        stage.down.remove(&Who::Mon(rank));
        if !stage.cluster.mons[rank].is_running() {
            stage.cluster.start_mon_of(rank);
        }
    }
}

pub(super) fn cut_client(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let number = pick as usize % stage.mortal_clients();
    if !stage.down.insert(Who::Client(number)) {
        return None;
    }
    stage.cluster.clients[number].power_loss();
    one(number)
}

pub(super) fn start_client(stage: &mut Stage, mark: Mark) {
    for number in mark.about {
        stage.down.remove(&Who::Client(number));
        let workers = stage.load.start(&stage.cluster, &stage.cluster.clients[number]);
        stage.workers.extend(workers);
    }
}

/// All monitors and OSDs lose power at once.
pub(super) fn cut_all(stage: &mut Stage, _: u64) -> Option<Mark> {
    let mons = stage.cluster.mons.len();
    for rank in 0..mons {
        stage.down.insert(Who::Mon(rank));
        stage.cluster.mons[rank].power_loss();
    }
    for id in 0..stage.cluster.osd_count() {
        stage.down.insert(Who::Osd(id));
        stage.cluster.osd_power_loss_of(id);
    }
    Some(Mark { about: Vec::new() })
}

pub(super) fn start_all(stage: &mut Stage, _: Mark) {
    start_mon(stage, Mark { about: (0..stage.cluster.mons.len()).collect() });
    start_osd(stage, Mark { about: (0..stage.cluster.osd_count()).collect() });
}

pub(super) fn pause_osd(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = running_osd(stage, pick)?;
    stage.cluster.osd_host(id).pause();
    one(stage.cluster.mons.len() + id)
}

pub(super) fn pause_mon(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let rank = running_mon(stage, pick)?;
    stage.cluster.mons[rank].pause();
    one(rank)
}

/// `mark`: hosts.
pub(super) fn resume(stage: &mut Stage, mark: Mark) {
    let hosts = stage.hosts();
    mark.about.into_iter().for_each(|number| hosts[number].resume());
}

/// A host's wall clock jumps ahead, mostly by seconds, sometimes by minutes.
pub(super) fn jump(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let hosts = stage.hosts();
    let number = pick as usize % hosts.len();
    let millis = (pick >> 16) % 3_000;
    let ahead = if (pick >> 8).is_multiple_of(4) { millis * 200 } else { millis };
    hosts[number].set_clock_ahead(Duration::from_millis(ahead));
    one(number)
}

/// And back.
pub(super) fn jump_back(stage: &mut Stage, mark: Mark) {
    let hosts = stage.hosts();
    mark.about.into_iter().for_each(|number| hosts[number].set_clock_ahead(Duration::ZERO));
}
