//! Replica equality: in the end all copies of a PG hold the same objects with the same content.

use std::collections::BTreeMap;

use super::Violation;

const NAME: &str = "replica equality";

/// What one copy of a PG holds: a digest of each object, by its name.
pub type Copy = BTreeMap<String, u64>;

/// `copies`: of one PG, by OSD.
pub fn check(pg: &str, copies: &BTreeMap<i32, Copy>) -> Vec<Violation> {
    let Some((first, reference)) = copies.first_key_value() else { return Vec::new() };
    let mut found = Vec::new();
    for (osd, copy) in copies.iter().skip(1) {
        let names =
            reference.keys().chain(copy.keys().filter(|name| !reference.contains_key(*name)));
        for name in names {
            let what = match (reference.get(name), copy.get(name)) {
                (a, b) if a == b => continue,
                (Some(_), Some(_)) => format!("differs between osd.{first} and osd.{osd}"),
                (Some(_), None) => format!("is on osd.{first} and not on osd.{osd}"),
                _ => format!("is on osd.{osd} and not on osd.{first}"),
            };
            found.push(Violation::new(NAME, format!("PG {pg}: {name} {what}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_compared_both_ways() {
        let copy = |pairs: &[(&str, u64)]| -> Copy {
            pairs.iter().map(|(name, digest)| ((*name).to_owned(), *digest)).collect()
        };
        let of = |b: &[(&str, u64)]| {
            check("1.0", &[(0, copy(&[("a", 1), ("b", 2)])), (4, copy(b))].into())
        };
        assert_eq!(of(&[("a", 1), ("b", 2)]), []);
        assert!(of(&[("a", 1), ("b", 3)])[0].what.contains("differs"));
        assert!(of(&[("a", 1)])[0].what.contains("not on osd.4"));
        assert!(of(&[("a", 1), ("b", 2), ("c", 3)])[0].what.contains("not on osd.0"));
    }
}
