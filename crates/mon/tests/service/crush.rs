//! Commands that change the CRUSH map and weights answer as a monitor of 16.2.15 did.

use crate::harness::Mon;
use crate::pools::answers_as;

#[test]
fn commands_answer_as_in_ceph() {
    let mut mon = Mon::new(3);
    let admin = mon.admin();
    answers_as(&mut mon, admin, include_str!("crush.tsv"));
}

#[test]
fn commands_about_buckets_and_weight_sets_answer_as_in_ceph() {
    let mut mon = Mon::new(3);
    let admin = mon.admin();
    answers_as(&mut mon, admin, include_str!("crush_tree.tsv"));
}
