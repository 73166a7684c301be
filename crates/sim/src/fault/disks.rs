//! Faults of disks: full, slow, dead, wiped, damaged.

use std::time::Duration;

use spirula_osd::full::Level;
use spirula_xstream::sim::DiskConfig;

use super::Mark;
use super::hosts::running_osd;
use super::stage::{Stage, Who};
use crate::cluster::DISK_BYTES;

fn one(id: usize) -> Option<Mark> {
    Some(Mark { about: vec![id] })
}

/// A running OSD counts as full, by as much as it takes.
pub(super) fn fill(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = running_osd(stage, pick)?;
    let levels = [Level::Nearfull, Level::Backfillfull, Level::Full, Level::Failsafe];
    stage.cluster.pretend_full_of(id, levels[(pick >> 16) as usize % levels.len()])?;
    one(id)
}

pub(super) fn empty(stage: &mut Stage, mark: Mark) {
    mark.about.into_iter().for_each(|id| drop(stage.cluster.pretend_full_of(id, Level::None)));
}

/// Everything on a disk takes up to a large part of a second.
pub(super) fn slow(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = pick as usize % stage.cluster.osd_count();
    let most = Duration::from_millis(1 + (pick >> 16) % 400);
    let range = most / 20..most;
    let config = DiskConfig { read: range.clone(), write: range.clone(), datasync: range };
    stage.cluster.osd_disk(id).set_config(config);
    one(id)
}

pub(super) fn fast(stage: &mut Stage, mark: Mark) {
    for id in mark.about {
        stage.cluster.osd_disk(id).set_config(DiskConfig::default());
    }
}

/// After a few more operations everything fails.
pub(super) fn fail(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = running_osd(stage, pick)?;
    stage.cluster.osd_disk(id).fail_after(Some((pick >> 16) % 50));
    one(id)
}

/// It works again; who used it meanwhile starts anew.
pub(super) fn mend(stage: &mut Stage, mark: Mark) {
    for id in mark.about {
        stage.cluster.osd_disk(id).fail_after(None);
        if !stage.down.contains(&Who::Osd(id)) {
            stage.cluster.osd_kill_of(id);
            stage.cluster.start_osd_of(id);
        }
    }
}

/// An OSD that may lose data: nothing else is missing anywhere.
fn expendable(stage: &Stage, pick: u64) -> Option<usize> {
    let id = running_osd(stage, pick)?;
    let other_damaged = stage.damaged.is_some_and(|damaged| damaged != id);
    (!stage.wounded && !other_damaged && stage.is_clean()).then_some(id)
}

/// The disk is exchanged for an empty one.
pub(super) fn wipe(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = expendable(stage, pick)?;
    stage.wounded = true;
    stage.down.insert(Who::Osd(id));
    stage.cluster.osd_power_loss_of(id);
    stage.cluster.replace_osd_disk(id);
    stage.cluster.osd_kill_of(id);
    one(id)
}

/// Some sectors rot behind the superblock.
pub(super) fn damage(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = expendable(stage, pick)?;
    stage.wounded = true;
    stage.damaged = Some(id);
    stage.down.insert(Who::Osd(id));
    stage.cluster.osd_kill_of(id);
    for n in 0..1 + pick % 4 {
        let at = (pick.rotate_left(16 * n as u32 + 8) % (DISK_BYTES / 2 - 4096)) & !511;
        stage.cluster.osd_disk(id).corrupt(DISK_BYTES / 2 + at, 512 * (1 + n));
    }
    one(id)
}
