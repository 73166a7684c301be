//! What the documents say against the code's tables.
//!
//! A page of `docs/` has parts between `<!-- part: NAME -->` and `<!-- end -->`, which are printed from
//! the tables that the daemons answer by; prose around them stays. After a change of a table
//! `SPIRULA_BLESS=1 cargo test -p spirula --test documents` writes them anew.

mod commands;
mod list;
mod operations;
mod pacific;
mod tools;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PAGES: [&str; 2] = ["compatibility.md", "compatibility-tables.md"];
const UPDATE: &str = "SPIRULA_BLESS=1 cargo test -p spirula --test documents";

/// What prints each part.
const PARTS: &[(&str, fn() -> String)] = &[
    ("operations", operations::operations),
    ("classes", operations::classes),
    ("image features", tools::image_features),
    ("commands", commands::cluster),
    ("daemons", commands::daemons),
    ("rbd", tools::rbd),
    ("rados", tools::rados),
    ("options", commands::options),
];

#[test]
fn pages_show_the_tables() {
    let bless = std::env::var_os("SPIRULA_BLESS").is_some();
    let mut shown: BTreeMap<&str, usize> = PARTS.iter().map(|(name, _)| (*name, 0)).collect();
    for page in PAGES {
        let path = repository().join("docs").join(page);
        let old = fs::read_to_string(&path).expect(page);
        let new = fill(&old, &mut shown);
        if bless {
            fs::write(&path, &new).expect(page);
        }
        let difference = old.lines().zip(new.lines()).find(|(old, new)| old != new);
        assert!(
            bless || old == new,
            "docs/{page} is not what the tables say ({difference:?}); update it: {UPDATE}"
        );
    }
    assert!(shown.values().all(|times| *times == 1), "each part is shown once: {shown:?}");
}

/// `page` with its parts printed anew.
fn fill(page: &str, shown: &mut BTreeMap<&str, usize>) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        let part = line.strip_prefix("<!-- part: ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some(part) = part else {
            continue;
        };
        let (name, print) = PARTS.iter().find(|(name, _)| *name == part).expect(part);
        *shown.entry(name).or_default() += 1;
        out += &print();
        let end = lines.find(|line| *line == "<!-- end -->");
        out += end.expect("a part ends with <!-- end -->");
        out.push('\n');
    }
    out
}

#[test]
fn prose_around_a_part_stays() {
    let page = "before\n<!-- part: image features -->\nold\n<!-- end -->\nafter\n";
    let mut shown = BTreeMap::new();
    let new = fill(page, &mut shown);
    assert!(new.starts_with("before\n<!-- part: image features -->\n|"), "{new}");
    assert!(new.ends_with("|\n<!-- end -->\nafter\n"), "{new}");
    assert_eq!(fill(&new, &mut shown), new);
    assert_eq!(shown["image features"], 2);
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
