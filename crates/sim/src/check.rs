//! What must hold of a run: each checker is a pure function of what was recorded, in a file of its own,
//! with tests that show it failing on bad histories.
//!
//! - [`linear`]: some order of the requests, within their times, explains every answer;
//! - [`stale`]: an object's version never goes back;
//! - [`once`]: every mark that was appended is there at most once, and acknowledged ones exactly once;
//! - [`snaps`]: what a snapshot shows does not change any more;
//! - [`replicas`]: all copies of a PG hold the same;
//! - [`monitors`]: all monitors hold the same.

pub mod history;
pub mod linear;
pub mod model;
pub mod monitors;
pub mod once;
pub mod replicas;
pub mod snaps;
pub mod stale;

use std::fmt;

pub use history::{Answer, Call, History};
pub use model::{Object, Output, Request, Snaps, Step};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub checker: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(checker: &'static str, what: impl Into<String>) -> Self {
        Self { checker, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

/// All that a history alone can tell. `logs`: whether an object of this name is only ever appended to.
pub fn history(history: &History, logs: impl Fn(&str) -> bool) -> Vec<Violation> {
    let mut found = Vec::new();
    for (object, calls) in history.by_object() {
        found.extend(stale::check(&object, &calls));
        if logs(&object) {
            found.extend(once::check(&object, &calls));
        } else {
            found.extend(snaps::check(&object, &calls));
            found.extend(linear::check(&object, &calls, linear::STEPS_MAX));
        }
    }
    found
}
