//! No stale read, by versions: what was answered before a request began is not newer than what that
//! request was answered.

use super::Violation;
use super::history::Call;
use super::model::{Snaps, Step};

const NAME: &str = "stale read";

/// `calls`: of one object, in the order of their beginning.
pub fn check(object: &str, calls: &[Call]) -> Option<Violation> {
    let mut answers: Vec<(u64, &Call, u64)> = calls
        .iter()
        .filter(|call| !matches!(call.request.snaps, Snaps::At(_)))
        .filter_map(|call| {
            let (at, answer) = call.succeeded()?;
            (answer.version > 0).then_some((at, call, answer.version))
        })
        .collect();
    let mut begun = answers.clone();
    answers.sort_by_key(|(at, ..)| *at);
    begun.sort_by_key(|(_, call, _)| call.invoked);
    // The newest version that was answered before each beginning.
    let (mut known, mut newest) = (answers.iter().peekable(), None);
    for (_, call, version) in begun {
        while let Some((_, earlier, seen)) = known.next_if(|(at, ..)| *at < call.invoked) {
            if newest.is_none_or(|(_, most)| *seen > most) {
                newest = Some((*earlier, *seen));
            }
        }
        let Some((earlier, most)) = newest else { continue };
        if version < most || (version == most && changes(call) && changes(earlier)) {
            let what =
                format!("{object}: version {version} of {call:?} follows {most} of {earlier:?}");
            return Some(Violation::new(NAME, what));
        }
    }
    None
}

/// Whether success means that something changed: taking away what is not there leaves the version.
fn changes(call: &Call) -> bool {
    let writes =
        |step: &Step| matches!(step, Step::Append(_) | Step::WriteFull(_) | Step::Write(..));
    call.request.steps.iter().any(writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::history::tests::{call, data, done};
    use crate::check::model::Step;

    #[test]
    fn versions_do_not_go_back() {
        let write =
            |from, to, version| call(Step::Append("a".into()), from, Some((to, done(version))));
        let read = |from, to, version| call(Step::Read, from, Some((to, data(b"", version))));
        assert_eq!(check("o", &[write(1, 2, 7), read(3, 4, 7), write(5, 6, 8)]), None);
        // At the same time: either is right.
        assert_eq!(check("o", &[write(1, 4, 8), read(2, 3, 7), read(5, 6, 8)]), None);
        assert!(check("o", &[write(1, 2, 8), read(3, 4, 7)]).is_some());
        assert!(check("o", &[read(1, 2, 8), read(3, 4, 7)]).is_some());
        let clear = call(Step::OmapClear, 3, Some((4, done(8))));
        assert_eq!(check("o", &[write(1, 2, 8), clear]), None);
        // Two changes are two versions.
        assert!(check("o", &[write(1, 2, 8), write(3, 4, 8)]).is_some());
    }
}
