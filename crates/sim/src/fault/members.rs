//! Changes of the monitors' membership: one is removed and added again, or loses its store.

use std::cell::Cell;
use std::rc::Rc;

use super::Mark;
use super::hosts::running_mon;
use super::stage::{Stage, Who};

/// A monitor on its way out and in again.
pub struct Member {
    pub rank: usize,
    step: Rc<Cell<Step>>,
    /// The fault is over.
    wanted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Removing,
    Removed,
    Adding,
    Added,
}

/// A monitor that may go: all run, are members, and have what the others have.
fn expendable(stage: &Stage, pick: u64) -> Option<usize> {
    let rank = running_mon(stage, pick)?;
    let positions = stage.cluster.mon_positions();
    let all_run = stage.cluster.mons.iter().all(|host| host.is_running());
    let members =
        stage.cluster.mon_states().iter().all(|(_, s)| s.members.len() == positions.len());
    let same = positions.iter().all(|at| *at == positions[0]);
    (all_run && members && same && stage.members.is_empty()).then_some(rank)
}

/// A monitor's store is gone; it joins again with an empty one.
pub(super) fn lose_store(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let rank = expendable(stage, pick)?;
    stage.down.insert(Who::Mon(rank));
    stage.cluster.mons[rank].power_loss();
    stage.cluster.lose_mon_store(rank);
    Some(Mark { about: vec![rank] })
}

/// `ceph mon rm`.
pub(super) fn remove(stage: &mut Stage, pick: u64) -> Option<Mark> {
    let rank = expendable(stage, pick)?;
    stage.down.insert(Who::Mon(rank));
    let (name, _) = stage.cluster.mon_name(rank);
    let step = Rc::new(Cell::new(Step::Removing));
    ask(stage, format!(r#"{{"prefix": "mon rm", "name": "{name}"}}"#), &step, Step::Removed);
    stage.members.push(Member { rank, step, wanted: false });
    Some(Mark { about: vec![rank] })
}

pub(super) fn add_again(stage: &mut Stage, mark: Mark) {
    let members = stage.members.iter_mut().filter(|member| mark.about.contains(&member.rank));
    members.for_each(|member| member.wanted = true);
}

/// Takes those on their way a step further: a command is sent after the one before was answered, since
/// whatever has no answer is sent again.
pub(super) fn go_on(stage: &mut Stage) {
    for member in std::mem::take(&mut stage.members) {
        let (name, addr) = stage.cluster.mon_name(member.rank);
        stage.cluster.mon_removed(member.rank);
        if member.step.get() == Step::Removed && member.wanted {
            member.step.set(Step::Adding);
            let command = format!(r#"{{"prefix": "mon add", "name": "{name}", "addr": "{addr}"}}"#);
            ask(stage, command, &member.step, Step::Added);
        }
        if member.step.get() == Step::Added && stage.cluster.mon_is_named(member.rank) {
            stage.cluster.mons[member.rank].kill();
            stage.cluster.lose_mon_store(member.rank);
            stage.cluster.start_mon_of(member.rank);
            stage.down.remove(&Who::Mon(member.rank));
            stage.note(format!("mon.{name} joins again"));
        } else {
            stage.members.push(member);
        }
    }
}

fn ask(stage: &mut Stage, command: String, step: &Rc<Cell<Step>>, then: Step) {
    stage.note(format!("command {command}"));
    let (admin, step) = (stage.admin.clone(), step.clone());
    stage.on_admin(async move {
        if admin.command(&command).await.is_ok() {
            step.set(then);
        }
    });
}
