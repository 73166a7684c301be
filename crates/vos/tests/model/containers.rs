//! Splitting and merging containers: cost, counters, what is inherited, what is refused.

use std::ops::Bound;

use bytes::Bytes;
use spirula_vos::{Config, ContainerId, Keys, ObjectKey, StageError, Tx, Vos};

use crate::rig::Rig;

const LOW: ContainerId = ContainerId([1; 16]);
const HIGH: ContainerId = ContainerId([2; 16]);
const OBJECTS: usize = 3000;

fn oid(i: usize) -> ObjectKey {
    ObjectKey::copy_from(format!("object{i:05}").as_bytes())
}

fn value(i: usize) -> Bytes {
    Bytes::from(format!("value {i}"))
}

/// A container with many objects, a property and a retained epoch.
fn filled() -> Rig {
    let mut rig = Rig::new(Config::default());
    let mut tx = Tx::new(1);
    tx.create_container(LOW);
    tx.set_container_property(LOW, b"pool", Some(Bytes::from_static(b"one")));
    tx.retain_container(LOW, &[1]);
    rig.submit(&tx).unwrap();
    fill(&mut rig, 0, |tx, i| {
        tx.update(LOW, &oid(i), b"d", b"a", value(i));
        tx.write(LOW, &oid(i), b"d", b"w", 0, Bytes::from(vec![7; 10]), None);
    });
    rig.checkpoint();
    rig
}

fn fill(rig: &mut Rig, from: usize, add: impl Fn(&mut Tx, usize)) {
    for first in (from..OBJECTS).step_by(100) {
        let mut tx = Tx::new(1);
        (first..first + 100).for_each(|i| add(&mut tx, i));
        rig.submit(&tx).unwrap();
    }
}

fn split(rig: &mut Rig, cid: ContainerId, at: usize, upper: ContainerId) {
    let mut tx = Tx::new(2);
    tx.split_container(cid, &oid(at), upper);
    rig.submit(&tx).unwrap();
}

fn merge(cid: ContainerId, upper: ContainerId) -> Tx {
    let mut tx = Tx::new(3);
    tx.merge_container(cid, upper);
    tx
}

fn list(rig: &mut Rig, cid: ContainerId, reverse: bool) -> Vec<ObjectKey> {
    let keys = Keys { reverse, ..Keys::default() };
    rig.read(|vos: &Vos| vos.at(u64::MAX).objects(cid, &keys, usize::MAX))
}

fn count(rig: &mut Rig, budget: usize) {
    while rig.vos.has_garbage() {
        rig.collect(budget);
    }
}

#[test]
fn a_split_changes_few_pages_and_both_halves_go_on() {
    let mut rig = filled();
    split(&mut rig, LOW, 1000, HIGH);
    let stats = rig.vos.stats();
    assert!(stats.dirty_pages <= 4 && stats.pages > 40, "{stats:?}");
    for (cid, range) in [(LOW, 0..1000), (HIGH, 1000..OBJECTS)] {
        let mut want: Vec<ObjectKey> = range.clone().map(oid).collect();
        assert_eq!(list(&mut rig, cid, false), want);
        want.reverse();
        assert_eq!(list(&mut rig, cid, true), want);
        assert_eq!(rig.vos.container_property(cid, b"pool"), Some(Bytes::from_static(b"one")));
        assert_eq!(rig.vos.container_retained(cid), [1]);
        for i in [0, 999, 1000, OBJECTS - 1] {
            let found = rig.read(|vos| vos.fetch(cid, &oid(i), b"d", b"a"));
            assert_eq!(found, Some(value(i)).filter(|_| range.contains(&i)), "{i}");
        }
    }
    let mut tx = Tx::new(3);
    tx.update(LOW, &oid(1000), b"d", b"a", value(0));
    assert_eq!(rig.submit(&tx), Err(StageError::OutOfRange(LOW)));
    let mut tx = Tx::new(3);
    tx.update(HIGH, &oid(999), b"d", b"a", value(0));
    assert_eq!(rig.submit(&tx), Err(StageError::OutOfRange(HIGH)));
    rig.check();
    rig.reopen();
    rig.check();
    assert_eq!(list(&mut rig, HIGH, false).len(), OBJECTS - 1000);
}

#[test]
fn objects_are_counted_after_a_split() {
    let mut rig = filled();
    split(&mut rig, LOW, 1000, HIGH);
    let guess = [LOW, HIGH].map(|cid| rig.vos.container_stats(cid).unwrap());
    assert!(guess.iter().all(|s| !s.exact));
    assert_eq!(guess.iter().map(|s| s.objects).sum::<u64>(), OBJECTS as u64);
    // Changes before and behind the place that counting has come to.
    for step in 0..20 {
        rig.collect(70);
        let mut tx = Tx::new(10 + step);
        tx.punch_object(LOW, &oid(step as usize * 50));
        tx.punch_object(HIGH, &oid(OBJECTS - 1 - step as usize * 50));
        tx.update(HIGH, &ObjectKey::copy_from(format!("x{step}").as_bytes()), b"d", b"a", value(0));
        rig.submit(&tx).unwrap();
        rig.check();
        if step == 10 {
            rig.reopen();
        }
    }
    count(&mut rig, 70);
    let stats = [LOW, HIGH].map(|cid| rig.vos.container_stats(cid).unwrap());
    assert!(stats.iter().all(|s| s.exact));
    assert_eq!(stats.map(|s| (s.objects, s.bytes)), [(980, 9800), (2000, 19800)]);
    rig.check();
    rig.drain(&[LOW, HIGH]);
}

#[test]
fn merged_halves_are_one_part_again() {
    let mut rig = filled();
    let third = ContainerId([3; 16]);
    split(&mut rig, LOW, 1000, HIGH);
    split(&mut rig, HIGH, 2000, third);
    assert_eq!(rig.submit(&merge(LOW, third)), Err(StageError::NotMergeable(LOW, third)));
    assert_eq!(rig.submit(&merge(HIGH, LOW)), Err(StageError::NotMergeable(HIGH, LOW)));
    let mut tx = Tx::new(4);
    tx.retain_container(HIGH, &[]);
    rig.submit(&tx).unwrap();
    let refused = "what is not retained in one cannot be read in the other";
    assert_eq!(
        rig.submit(&merge(LOW, HIGH)),
        Err(StageError::NotMergeable(LOW, HIGH)),
        "{refused}"
    );
    let mut tx = Tx::new(4);
    [LOW, third].into_iter().for_each(|cid| tx.retain_container(cid, &[]));
    rig.submit(&tx).unwrap();
    rig.submit(&merge(LOW, HIGH)).unwrap();
    rig.submit(&merge(LOW, third)).unwrap();
    assert_eq!(rig.vos.containers(), [LOW]);
    assert_eq!(rig.vos.container_range(LOW), Some((Bytes::new(), None)));
    count(&mut rig, 500);
    assert_eq!(rig.vos.container_stats(LOW).unwrap().objects, OBJECTS as u64);
    rig.check();
    rig.drain(&[LOW]);
}

/// Containers of two trees, each destroyed while the other half of its tree is in use.
#[test]
fn a_merged_container_has_parts_of_two_trees() {
    let mut rig = filled();
    let (other, rest) = (ContainerId([3; 16]), ContainerId([4; 16]));
    split(&mut rig, LOW, 1000, HIGH);
    let mut tx = Tx::new(3);
    tx.create_container_in(other, &oid(500).0, None);
    tx.retain_container(other, &[1]);
    rig.submit(&tx).unwrap();
    fill(&mut rig, 500, |tx, i| tx.update(other, &oid(i), b"d", b"a", value(i + 1)));
    split(&mut rig, other, 1000, rest);
    rig.submit(&merge(LOW, rest)).unwrap();
    let all: Vec<ObjectKey> = (0..OBJECTS).map(oid).collect();
    assert_eq!(list(&mut rig, LOW, false), all);
    let keys = Keys { from: oid(998).0, to: Some(oid(1002).0), reverse: true, changed_from: 0 };
    let found = rig.read(|vos| vos.at(9).objects(LOW, &keys, 3));
    assert_eq!(found, [oid(1001), oid(1000), oid(999)]);
    let step = rig.read(|vos| vos.list_objects(LOW, Bound::Excluded(&oid(999).0), None, 2));
    assert_eq!(step, [oid(1000), oid(1001)]);
    for (i, want) in [(999, value(999)), (1000, value(1001))] {
        assert_eq!(rig.read(|vos| vos.fetch(LOW, &oid(i), b"d", b"a")), Some(want));
    }
    let mut tx = Tx::new(5);
    tx.destroy_container(other);
    rig.submit(&tx).unwrap();
    rig.check();
    rig.collect(100);
    rig.reopen();
    rig.check();
    count(&mut rig, 100);
    rig.check();
    assert_eq!(list(&mut rig, LOW, false), all);
    assert_eq!(list(&mut rig, HIGH, false).len(), OBJECTS - 1000);
    rig.drain(&[LOW, HIGH]);
}

#[test]
fn splits_that_make_no_sense_are_refused() {
    let mut rig = Rig::new(Config::default());
    let mut tx = Tx::new(1);
    tx.create_container_in(LOW, b"d", Some(b"m"));
    rig.submit(&tx).unwrap();
    let mut refused = |at: &[u8], upper: ContainerId| {
        let mut tx = Tx::new(2);
        tx.split_container(LOW, &ObjectKey::copy_from(at), upper);
        rig.submit(&tx).unwrap_err()
    };
    for at in [&b"c"[..], b"d", b"m", b"n"] {
        assert_eq!(refused(at, HIGH), StageError::OutOfRange(LOW));
    }
    assert_eq!(refused(b"f", LOW), StageError::ContainerExists(LOW));
    assert_eq!(refused(b"", HIGH), StageError::KeyLength(0));
    let mut tx = Tx::new(2);
    tx.split_container(HIGH, &oid(1), LOW);
    assert_eq!(rig.submit(&tx), Err(StageError::NoContainer(HIGH)));
    let mut tx = Tx::new(2);
    tx.create_container_in(HIGH, b"d", Some(b"d"));
    assert_eq!(rig.submit(&tx), Err(StageError::OutOfRange(HIGH)), "no keys");
    rig.check();
}
