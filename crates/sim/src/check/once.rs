//! At most once, and never lost: an object that only marks are appended to.
//!
//! Every mark is unique and ends with `;`. Each read shows whole marks that were asked for before it
//! ended, none twice; all that were acknowledged before it began; and what an earlier read showed, first.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::history::Call;
use super::model::{Output, Step};

const NAME: &str = "at most once";
const LOST: &str = "durability";

/// `calls`: of one object, in the order of their beginning.
pub fn check(object: &str, calls: &[Call]) -> Vec<Violation> {
    let mut found = Vec::new();
    let appends: BTreeMap<&[u8], &Call> =
        calls.iter().filter_map(|call| Some((mark(call)?, call))).collect();
    let mut reads: Vec<(&Call, u64, &[u8])> = calls.iter().filter_map(read).collect();
    reads.sort_by_key(|(call, ..)| call.invoked);
    let mut longest: Vec<(u64, &[u8])> = Vec::new();
    for (call, returned, data) in reads {
        found.extend(look(object, &appends, call, returned, data));
        let earlier = longest.iter().filter(|(at, _)| *at < call.invoked);
        let earlier = earlier.max_by_key(|(_, data)| data.len());
        if let Some((_, earlier)) = earlier.filter(|(_, earlier)| !data.starts_with(earlier)) {
            let same = data.iter().zip(*earlier).take_while(|(a, b)| a == b).count();
            let from = |data: &[u8]| String::from_utf8_lossy(&data[same..]).into_owned();
            let what = format!(
                "{object}: read {} shows {:?} after {same} bytes, before it was {:?}",
                call.invoked,
                from(data),
                from(earlier)
            );
            found.push(Violation::new(LOST, what));
        }
        longest.push((returned, data));
    }
    found
}

/// What one read shows.
fn look(
    object: &str,
    appends: &BTreeMap<&[u8], &Call>,
    read: &Call,
    returned: u64,
    data: &[u8],
) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let text = |mark: &[u8]| String::from_utf8_lossy(mark).into_owned();
    for mark in data.split_inclusive(|byte| *byte == b';') {
        let known = appends.get(mark).is_some_and(|append| append.invoked < returned);
        if !known {
            let what = format!("{object}: nobody appended {:?}", text(mark));
            found.push(Violation::new(NAME, what));
        }
        if !seen.insert(mark) {
            let what = format!("{object}: {} was appended twice", text(mark));
            found.push(Violation::new(NAME, what));
        }
    }
    for (mark, append) in appends {
        let acknowledged = append.succeeded().is_some_and(|(at, _)| at < read.invoked);
        if acknowledged && !seen.contains(mark) {
            let what = format!("{object}: {} was acknowledged and is not there", text(mark));
            found.push(Violation::new(LOST, what));
        }
    }
    found.truncate(4);
    found
}

fn mark(call: &Call) -> Option<&[u8]> {
    match call.request.steps.as_slice() {
        [Step::Append(mark), ..] => Some(mark),
        _ => None,
    }
}

/// A read, when it ended and what it showed; of an object that is not there, nothing.
fn read(call: &Call) -> Option<(&Call, u64, &[u8])> {
    let (at, answer) = call.returned.as_ref()?;
    match (call.request.steps.as_slice(), answer.outputs.as_slice()) {
        ([Step::Read], [Output::Data(data)]) => Some((call, *at, data)),
        ([Step::Read], []) => Some((call, *at, b"")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::history::tests::{call, data, done};

    fn append(mark: &'static str, from: u64, to: Option<u64>) -> Call {
        call(Step::Append(mark.into()), from, to.map(|at| (at, done(0))))
    }

    fn shown(read: &'static [u8]) -> Vec<&'static str> {
        let calls = [
            append("a;", 1, Some(2)),
            append("b;", 3, None),
            append("late;", 20, Some(21)),
            call(Step::Read, 10, Some((11, data(read, 0)))),
        ];
        check("o", &calls).into_iter().map(|v| v.checker).collect()
    }

    #[test]
    fn each_mark_is_there_once() {
        assert_eq!(shown(b"a;"), [""; 0]);
        assert_eq!(shown(b"b;a;"), [""; 0]);
        for (bad, why) in [
            (b"a;a;" as &[u8], NAME),
            (b"a;b;b;", NAME),
            (b"a;x;", NAME),
            (b"a;late;", NAME),
            (b"b;", LOST),
            (b"", LOST),
        ] {
            assert_eq!(shown(bad), [why], "{bad:?}");
        }
    }

    #[test]
    fn what_was_shown_stays_first() {
        let read = |text, from| call(Step::Read, from, Some((from + 1, data(text, 0))));
        let appends = || [append("a;", 1, None), append("b;", 2, None)];
        let with = |first, second| {
            check("o", &[&appends()[..], &[read(first, 5), read(second, 7)]].concat())
        };
        assert_eq!(with(b"a;", b"a;b;"), []);
        assert_eq!(with(b"a;", b"b;a;").len(), 1);
        assert_eq!(with(b"a;b;", b"a;").len(), 1);
    }
}
