//! Against what OSDs of 16.2.15 let users do, and the rule for snapshot ids.
#![cfg(test)]

use std::collections::BTreeMap;

use super::{AppMetadata, ClassCall, OsdAccess, OsdCap};

const MEASURED: &str = include_str!("measured.tsv");

#[test]
fn users_may_do_what_ceph_lets_them() {
    let mut lines = MEASURED.lines().filter(|line| !line.starts_with('#'));
    let columns: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let mut wrong = Vec::new();
    for line in lines {
        let (text, results) = line.split_once('\t').unwrap();
        let caps = OsdCap::parse(text).unwrap();
        assert_eq!(results.len(), columns.len(), "{text}");
        for (column, result) in columns.iter().zip(results.chars()) {
            if may(&caps, column) != (result == 'y') {
                wrong.push(format!("{text}: {column} should be {result}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn may(caps: &OsdCap, column: &str) -> bool {
    let [pool, namespace, object, flags, call] = column.split('/').collect::<Vec<_>>()[..] else {
        panic!("{column}");
    };
    let (reads, writes) = (flags.contains('r'), flags.contains('w'));
    let calls: Vec<ClassCall<'_>> = call
        .split_once('.')
        .map(|(class, method)| ClassCall { class, method, reads, writes, in_default_list: true })
        .into_iter()
        .collect();
    let tagged: BTreeMap<_, _> = [("k".to_owned(), "v".to_owned())].into();
    let applications: AppMetadata =
        if pool == "p" { [("rbd".to_owned(), tagged)].into() } else { AppMetadata::new() };
    caps.is_capable(&OsdAccess {
        pool,
        namespace,
        applications: &applications,
        object,
        reads: reads && calls.is_empty(),
        writes: writes && calls.is_empty(),
        classes: &calls,
        addr: None,
    })
}

#[test]
fn snapshot_ids_need_writes_to_the_pool() {
    for (text, here, nowhere) in [
        ("allow *", true, true),
        ("allow rw", true, true),
        ("allow r", false, false),
        ("profile rbd", true, true),
        ("profile rbd-read-only", false, false),
        ("allow rw pool=p namespace=n", true, false),
        ("allow r pool=p, allow rw pool=q", false, false),
        ("allow rw namespace=n", false, false),
        ("allow rw object_prefix o", false, false),
        ("allow rw tag rbd k=v", false, false),
    ] {
        let caps = OsdCap::parse(text).unwrap();
        let may = [Some("p"), None].map(|pool| caps.may_manage_snaps(pool));
        assert_eq!(may, [here, nowhere], "{text}");
    }
}
