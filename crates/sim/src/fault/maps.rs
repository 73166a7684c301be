//! Churn of the maps: OSDs out and in, weights, numbers of PGs, pools that come and go.

use super::Mark;
use super::stage::Stage;

fn one(number: usize) -> Option<Mark> {
    Some(Mark { about: vec![number] })
}

/// For faults that need no end.
pub(super) fn nothing(_: &mut Stage, _: Mark) {}

fn ids(stage: &mut Stage, prefix: &str, mark: Mark) {
    for id in mark.about {
        stage.command(format!(r#"{{"prefix": "{prefix}", "ids": ["{id}"]}}"#));
    }
}

pub(super) fn out(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let mark = one(pick as usize % stage.cluster.osd_count())?;
    ids(stage, "osd out", mark.clone());
    Some(mark)
}

pub(super) fn in_again(stage: &mut Stage, mark: Mark) {
    ids(stage, "osd in", mark);
}

/// A living OSD is called down; it comes back by itself.
pub(super) fn down(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let mark = one(pick as usize % stage.cluster.osd_count())?;
    ids(stage, "osd down", mark.clone());
    Some(mark)
}

fn weigh(stage: &mut Stage, id: usize, percent: u64) {
    let weight = percent as f64 / 100.0;
    stage.command(format!(r#"{{"prefix": "osd reweight", "id": {id}, "weight": {weight:?}}}"#));
}

pub(super) fn reweight(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let id = pick as usize % stage.cluster.osd_count();
    weigh(stage, id, 10 + (pick >> 16) % 90);
    one(id)
}

pub(super) fn weigh_again(stage: &mut Stage, mark: Mark) {
    mark.about.into_iter().for_each(|id| weigh(stage, id, 100));
}

/// Another number of PGs for the pool.
pub(super) fn pg_num(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let wanted = 1 + (pick >> 16) % 16;
    stage.command(format!(
        r#"{{"prefix": "osd pool set", "pool": "p", "var": "pg_num", "val": "{wanted}"}}"#
    ));
    Some(Mark::default())
}

/// A pool that nobody uses.
pub(super) fn create_pool(stage: &mut Stage, pick: u64) -> Option<Mark> {
    stage.pools += 1;
    let (number, pg_num) = (stage.pools, 1 + (pick >> 16) % 8);
    stage.command(format!(
        r#"{{"prefix": "osd pool create", "pool": "churn{number}", "pg_num": {pg_num}}}"#
    ));
    one(number as usize)
}

pub(super) fn delete_pool(stage: &mut Stage, mark: Mark) {
    for number in mark.about {
        stage.command(format!(
            r#"{{"prefix": "osd pool delete", "pool": "churn{number}", "pool2": "churn{number}", "yes_i_really_really_mean_it": true}}"#
        ));
    }
}
