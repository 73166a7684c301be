//! Which task runs next: classes take turns by their shares, tasks of a class by arrival.
//!
//! Each class has a virtual time that grows with the time its tasks take, divided by its share; the
//! class with the least runs. A class that was idle begins at the present, so it cannot save up.

use std::collections::VecDeque;

use crate::config::{Class, Shares};

/// Names a task: a slot, and which of the slot's successive tasks is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Tasks that can run.
pub(crate) struct RunQueue {
    lanes: [Lane; Class::COUNT],
    len: usize,
    /// Virtual time of the class that ran last.
    present: u64,
}

#[derive(Default)]
struct Lane {
    ready: VecDeque<TaskId>,
    share: u64,
    virtual_time: u64,
}

/// Virtual time is kept in units of (cost << SCALE_BITS) / share.
const SCALE_BITS: u32 = 16;

impl RunQueue {
    pub(crate) fn new(shares: &Shares) -> RunQueue {
        let lanes =
            Class::ALL.map(|class| Lane { share: u64::from(shares.of(class)), ..Lane::default() });
        RunQueue { lanes, len: 0, present: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether tasks of more than one class wait, so that time has to be measured.
    pub(crate) fn is_contended(&self) -> bool {
        self.lanes.iter().filter(|lane| !lane.ready.is_empty()).count() > 1
    }

    pub(crate) fn push(&mut self, class: Class, task: TaskId) {
        let lane = &mut self.lanes[class.index()];
        if lane.ready.is_empty() {
            lane.virtual_time = lane.virtual_time.max(self.present);
        }
        lane.ready.push_back(task);
        self.len += 1;
    }

    /// Takes the next task; `pick` chooses among those of the class (simulation: at random).
    pub(crate) fn pop(&mut self, pick: impl FnOnce(usize) -> usize) -> Option<(Class, TaskId)> {
        let class = Class::ALL
            .into_iter()
            .filter(|class| !self.lanes[class.index()].ready.is_empty())
            .min_by_key(|class| self.lanes[class.index()].virtual_time)?;
        let lane = &mut self.lanes[class.index()];
        let index = match lane.ready.len() {
            1 => 0,
            len => pick(len),
        };
        let task = take(&mut lane.ready, index)?;
        self.present = self.present.max(lane.virtual_time);
        self.len -= 1;
        Some((class, task))
    }

    /// Charges `cost` (any unit, the same for all classes) to a class.
    pub(crate) fn charge(&mut self, class: Class, cost: u64) {
        let lane = &mut self.lanes[class.index()];
        lane.virtual_time += (cost << SCALE_BITS) / lane.share;
    }
}

/// The front in order; any other place by swapping, since the order is random there anyway.
fn take(ready: &mut VecDeque<TaskId>, index: usize) -> Option<TaskId> {
    if index == 0 { ready.pop_front() } else { ready.swap_remove_front(index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(slot: u32) -> TaskId {
        TaskId { slot, generation: 0 }
    }

    #[test]
    fn classes_run_by_their_shares() {
        let shares = Shares { client: 30, replication: 1, recovery: 1, background: 10 };
        let mut queue = RunQueue::new(&shares);
        queue.push(Class::Client, task(0));
        queue.push(Class::Background, task(1));
        let mut runs = [0; Class::COUNT];
        for _ in 0..4000 {
            let (class, id) = queue.pop(|_| 0).expect("two tasks");
            runs[class.index()] += 1;
            queue.charge(class, 10);
            queue.push(class, id);
        }
        assert!((2950..=3050).contains(&runs[Class::Client.index()]), "{runs:?}");
    }

    #[test]
    fn an_idle_class_does_not_save_up() {
        let mut queue = RunQueue::new(&Shares::default());
        for _ in 0..1000 {
            queue.push(Class::Client, task(0));
            let (class, _) = queue.pop(|_| 0).expect("one task");
            queue.charge(class, 1000);
        }
        queue.push(Class::Client, task(0));
        queue.push(Class::Background, task(1));
        let mut background = 0;
        for _ in 0..110 {
            let (class, id) = queue.pop(|_| 0).expect("two tasks");
            queue.charge(class, 1000);
            queue.push(class, id);
            background += usize::from(class == Class::Background);
        }
        assert!((5..=15).contains(&background), "{background}");
    }
}
