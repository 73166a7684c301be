//! Linearizability of one object's history, by a search in the manner of Wing and Gong with Lowe's memo.
//!
//! An order is looked for in which every request happens between its beginning and its answer, and
//! every answer is what the model says. A request without an answer may happen at any time after its
//! beginning, or never. What only reads, and fits, happens at once: that never takes a solution away.
//! Versions that were answered only say what to try first. The search is bounded.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::history::Call;
use super::model::Object;
use super::{Violation, snaps::reads_only};

const NAME: &str = "linearizability";
/// Steps of a search, after which it is given up.
pub const STEPS_MAX: u64 = 2_000_000;

/// One point of the search: what can be next, and what was tried of it.
struct Frame {
    object: Object,
    candidates: Vec<usize>,
    tried: usize,
}

struct Search<'a> {
    calls: Vec<&'a Call>,
    done: Vec<bool>,
    /// A hash of what is done.
    done_hash: u64,
    /// All answered requests before this one are done.
    first: usize,
    left: usize,
    /// Requests without an answer.
    lost: Vec<usize>,
    seen: HashSet<(u64, u64), BuildHasherDefault<DefaultHasher>>,
    /// The most that could be explained, and the object then.
    best: (usize, Object),
}

/// `calls`: of one object, in the order of their beginning; it does not exist before the first.
pub fn check(object: &str, calls: &[Call], steps_max: u64) -> Option<Violation> {
    let matters = |call: &&Call| call.returned.is_some() || !reads_only(call);
    let calls: Vec<&Call> = calls.iter().filter(matters).collect();
    let mut search = Search::new(calls);
    match search.run(steps_max) {
        Some(true) => None,
        Some(false) => Some(Violation::new(NAME, format!("{object}: {}", search.stuck()))),
        None => {
            let what = format!("{object}: undecided after {steps_max} steps; {}", search.stuck());
            Some(Violation::new(NAME, what))
        }
    }
}

impl<'a> Search<'a> {
    fn new(calls: Vec<&'a Call>) -> Self {
        let lost = (0..calls.len()).filter(|i| calls[*i].returned.is_none()).collect::<Vec<_>>();
        Self {
            done: vec![false; calls.len()],
            done_hash: 0,
            first: 0,
            left: calls.len() - lost.len(),
            calls,
            lost,
            seen: HashSet::default(),
            best: (0, Object::default()),
        }
    }

    /// Whether there is an order; `None`: not known.
    fn run(&mut self, steps_max: u64) -> Option<bool> {
        let total = self.left;
        let first = self.frame(Object::default());
        let mut stack = vec![first];
        let mut path: Vec<usize> = Vec::new();
        for _ in 0..steps_max {
            if self.left == 0 {
                return Some(true);
            }
            let Some(frame) = stack.last_mut() else { return Some(false) };
            let Some(&next) = frame.candidates.get(frame.tried) else {
                stack.pop();
                if let Some(undone) = path.pop() {
                    self.mark(undone, false);
                }
                continue;
            };
            frame.tried += 1;
            let Some(after) = fits(&frame.object, self.calls[next]) else { continue };
            self.mark(next, true);
            if !self.seen.insert((self.done_hash, after.hash())) {
                self.mark(next, false);
                continue;
            }
            if total - self.left > self.best.0 {
                self.best = (total - self.left, after.clone());
            }
            path.push(next);
            let frame = self.frame(after);
            stack.push(frame);
        }
        None
    }

    /// What can be next: what began before anything that is not done was answered.
    fn frame(&mut self, object: Object) -> Frame {
        while self.first < self.calls.len() && !self.is_open(self.first) {
            self.first += 1;
        }
        let mut until = u64::MAX;
        let mut candidates = Vec::new();
        for i in self.first..self.calls.len() {
            let call = self.calls[i];
            if call.invoked > until {
                break;
            }
            if self.is_open(i) {
                let returned = call.returned.as_ref().map_or(u64::MAX, |(at, _)| *at);
                until = until.min(returned);
                candidates.push(i);
            }
        }
        candidates.retain(|i| self.calls[*i].invoked < until);
        let read = candidates.iter().copied().find(|i| changes_nothing(&object, self.calls[*i]));
        if let Some(read) = read {
            return Frame { object, candidates: vec![read], tried: 0 };
        }
        candidates.sort_by_key(|i| self.hint(*i));
        let lost = self.lost.iter().copied();
        candidates.extend(lost.filter(|i| !self.done[*i] && self.calls[*i].invoked < until));
        Frame { object, candidates, tried: 0 }
    }

    /// Answered and not done.
    fn is_open(&self, i: usize) -> bool {
        !self.done[i] && self.calls[i].returned.is_some()
    }

    fn hint(&self, i: usize) -> u64 {
        self.calls[i].succeeded().map_or(0, |(_, answer)| answer.version)
    }

    fn mark(&mut self, i: usize, done: bool) {
        self.done[i] = done;
        self.done_hash ^= mix(i as u64);
        if self.calls[i].returned.is_some() {
            self.left = if done { self.left - 1 } else { self.left + 1 };
            if !done {
                self.first = self.first.min(i);
            }
        }
    }

    /// Where the longest explanation ends.
    fn stuck(&self) -> String {
        let (explained, object) = &self.best;
        let mut replay = Search::new(self.calls.clone());
        let mut answered: Vec<usize> =
            (0..self.calls.len()).filter(|i| self.calls[*i].returned.is_some()).collect();
        answered.sort_by_key(|i| self.calls[*i].returned.as_ref().map(|(at, _)| *at));
        // About there; the search may have taken another order.
        for i in answered.iter().take(*explained) {
            replay.mark(*i, true);
        }
        let next: Vec<String> = replay
            .frame(object.clone())
            .candidates
            .iter()
            .take(4)
            .map(|i| format!("{:?}", self.calls[*i]))
            .collect();
        format!(
            "{explained} of {} answers are explained, then the object is {}; next {}",
            answered.len(),
            object.brief(),
            next.join(" | "),
        )
    }
}

/// The object after the call, if its answer is what the model says.
fn fits(object: &Object, call: &Call) -> Option<Object> {
    let effect = object.apply(&call.request);
    if let Some((_, answer)) = &call.returned
        && (answer.result != effect.result || answer.outputs != effect.outputs)
    {
        return None;
    }
    Some(effect.object.unwrap_or_else(|| object.clone()))
}

/// Whether the call fits and leaves the object as it is.
fn changes_nothing(object: &Object, call: &Call) -> bool {
    let Some((_, answer)) = &call.returned else { return false };
    if answer.result == 0 && !reads_only(call) {
        return false;
    }
    fits(object, call).is_some()
}

fn mix(i: u64) -> u64 {
    let value = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::history::Answer;
    use crate::check::history::tests::{call, data, done};
    use crate::check::model::{ENOENT, Step};

    fn full(text: &'static str) -> Step {
        Step::WriteFull(text.into())
    }

    fn verdict(calls: &[Call]) -> bool {
        check("o", calls, 10_000).is_none()
    }

    #[test]
    fn good_histories_pass() {
        assert!(verdict(&[]));
        // Two writes at once, in either order.
        for last in [b"a", b"b"] {
            assert!(verdict(&[
                call(full("a"), 1, Some((4, done(1)))),
                call(full("b"), 2, Some((3, done(2)))),
                call(Step::Read, 5, Some((6, data(last, 2)))),
            ]));
        }
        // Before the object is there, and a request that failed.
        let absent = Answer { result: ENOENT, outputs: Vec::new(), version: 0 };
        assert!(verdict(&[
            call(Step::Read, 1, Some((2, absent.clone()))),
            call(Step::Delete, 3, Some((4, absent))),
            call(full("a"), 5, Some((6, done(1)))),
        ]));
    }

    #[test]
    fn what_nobody_heard_of_may_have_happened_at_any_time_or_never() {
        let lost = || call(full("b"), 3, None);
        let first = || call(full("a"), 1, Some((2, done(1))));
        let read = |text, at| call(Step::Read, at, Some((at + 1, data(text, 1))));
        assert!(verdict(&[first(), lost(), read(b"a", 5), read(b"a", 7)]));
        assert!(verdict(&[first(), lost(), read(b"a", 5), read(b"b", 7)]));
        assert!(verdict(&[first(), lost(), read(b"b", 5), read(b"b", 7)]));
        // But once, and not before it was asked for.
        assert!(!verdict(&[first(), lost(), read(b"b", 5), read(b"a", 7)]));
        let early = call(Step::Read, 3, Some((4, data(b"b", 1))));
        assert!(!verdict(&[first(), early, call(full("b"), 5, None)]));
    }

    #[test]
    fn lost_stale_doubled_and_invented_are_found() {
        let a = || call(full("a"), 1, Some((2, done(1))));
        let b = || call(Step::Append("b".into()), 3, Some((4, done(2))));
        let read = |text| call(Step::Read, 5, Some((6, data(text, 2))));
        assert!(verdict(&[a(), b(), read(b"ab")]));
        for bad in [b"a" as &'static [u8], b"abb", b"ba", b"x", b""] {
            assert!(!verdict(&[a(), b(), read(bad)]), "{bad:?}");
        }
        // Two readers see two writes in different orders.
        let c = call(full("c"), 2, Some((20, done(1))));
        let d = call(full("d"), 3, Some((21, done(2))));
        let read = |text, at| call(Step::Read, at, Some((at + 1, data(text, 0))));
        assert!(!verdict(&[a(), c, d, read(b"c", 4), read(b"d", 6), read(b"c", 8)]));
    }

    #[test]
    fn many_at_once_are_decided_and_a_bound_ends_the_search() {
        let marks = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let append = |(i, mark): (usize, &&'static str)| {
            call(Step::Append((*mark).into()), i as u64 + 1, Some((100 + i as u64, done(0))))
        };
        let mut calls: Vec<Call> = marks.iter().enumerate().map(append).collect();
        calls.push(call(Step::Read, 200, Some((201, data(b"hgfedcba", 0)))));
        assert!(check("o", &calls, STEPS_MAX).is_none());
        let found = check("o", &calls, 10).map(|v| v.what).unwrap_or_default();
        assert!(found.contains("undecided"), "{found}");
    }
}
