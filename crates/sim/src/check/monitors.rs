//! Monitor state equality: what all monitors have committed is the same on each.

use std::fmt::Debug;

use super::Violation;

const NAME: &str = "monitor state";

/// `states`: by monitor, each after the last entry that all of them have.
pub fn check<S: PartialEq + Debug>(states: &[(String, S)]) -> Vec<Violation> {
    let Some(((first, reference), others)) = states.split_first() else { return Vec::new() };
    let differ = others.iter().filter(|(_, state)| state != reference);
    differ
        .map(|(name, state)| {
            let (a, b) = (format!("{reference:#?}"), format!("{state:#?}"));
            let line = a.lines().zip(b.lines()).find(|(a, b)| a != b);
            let what = format!("mon.{first} and mon.{name} differ, first in {line:?}");
            Violation::new(NAME, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_compared_with_the_first() {
        let of = |states: [u32; 3]| {
            let named = ["a", "b", "c"].map(String::from).into_iter().zip(states);
            check(&named.collect::<Vec<_>>())
        };
        assert_eq!(of([1, 1, 1]), []);
        assert_eq!(of([1, 1, 2]).len(), 1);
        assert!(of([1, 2, 1])[0].what.contains("mon.b"));
        assert_eq!(of([1, 2, 2]).len(), 2);
    }
}
