//! All versions above the horizon, and what is visible at an epoch, by iteration.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::RngExt;
use spirula_vos::{
    Anchor, Config, Epoch, Extent, Range, Show, Tx, Version, VersionKind, View, Vos,
};

use super::{CID, NEVER, Object, PUNCHED, Value, World, cells, oid};
use crate::ops::Op;
use crate::rig::Rig;

/// Where versions are compared, in arrays: an offset.
type Key = (Vec<u8>, Vec<u8>, usize);
/// Clocks of birth and death, and a value or the cell of an array.
type Life = (u64, Option<u64>, Result<Bytes, u16>);

/// What lived in an object, by the definition: each version until the next operation on its place.
fn lives(object: &Object, offsets: &[usize]) -> BTreeSet<(Key, Life)> {
    let mut alive: BTreeMap<Key, (u64, Result<Bytes, u16>)> = BTreeMap::new();
    let mut out = BTreeSet::new();
    for (epoch, op) in &object.log {
        let mut new: Vec<(Key, Result<Bytes, u16>)> = Vec::new();
        let mut ends: Box<dyn Fn(&Key) -> bool> = Box::new(|_| false);
        match op {
            Op::CreateContainer | Op::DestroyContainer | Op::CreateObject(_) => {}
            Op::Update(_, d, a, v) => new.push(((d.clone(), a.clone(), 0), Ok(v.clone()))),
            Op::Write(_, d, a, at, data) => {
                let inside =
                    offsets.iter().filter_map(|&o| Some((o, o.checked_sub(*at as usize)?)));
                new.extend(inside.filter(|(_, i)| *i < data.len()).map(|(o, i)| {
                    ((d.clone(), a.clone(), o), Err(u16::from(data[i]) + super::DATA))
                }));
            }
            Op::PunchRange(_, d, a, at, len) => {
                let inside = offsets.iter().filter(|&&o| (*at..*at + *len).contains(&(o as u64)));
                new.extend(inside.map(|&o| ((d.clone(), a.clone(), o), Err(PUNCHED))));
            }
            Op::Truncate(_, d, a, to) => {
                ends = Box::new(|k| k.0 == *d && k.1 == *a && k.2 as u64 >= *to);
            }
            Op::PunchAkey(_, d, a) => ends = Box::new(|k| k.0 == *d && k.1 == *a),
            Op::PunchAkeys(_, d, from, to) => {
                ends = Box::new(move |k| {
                    k.0 == *d && k.1 >= *from && to.as_ref().is_none_or(|to| k.1 < *to)
                });
            }
            Op::PunchDkey(_, d) => ends = Box::new(|k| k.0 == *d),
            Op::PunchObject(_) => ends = Box::new(|_| true),
        }
        let covered: Vec<Key> =
            alive.keys().filter(|k| ends(k) || new.iter().any(|n| n.0 == **k)).cloned().collect();
        for key in covered {
            let (birth, value) = alive.remove(&key).unwrap();
            if birth < epoch.hlc {
                out.insert((key, (birth, Some(epoch.hlc), value)));
            }
        }
        alive.extend(new.into_iter().map(|(key, value)| (key, (epoch.hlc, value))));
    }
    out.extend(alive.into_iter().map(|(key, (birth, value))| (key, (birth, None, value))));
    out
}

/// All versions of an object that a view shows, asked for in parts.
fn all_parts(
    rig: &mut Rig,
    view: impl Fn(&Vos) -> View<'_>,
    i: usize,
    range: &Range,
    budget: usize,
) -> Vec<Version> {
    let (mut out, mut anchor) = (Vec::new(), Some(Anchor::default()));
    while let Some(at) = anchor.take() {
        let part = rig.read(|vos| view(vos).iterate(CID, &oid(i), range, &at, budget));
        assert!(part.versions.len() <= budget);
        out.extend(part.versions);
        anchor = part.next;
    }
    out
}

impl World {
    fn all_versions(&mut self, i: usize, range: &Range, budget: usize) -> Vec<Version> {
        all_parts(&mut self.rig, |vos| vos.at(u64::MAX).committed(), i, range, budget)
    }

    /// What iteration found, at `offsets` of arrays.
    fn found(&self, versions: &[Version], offsets: &[usize]) -> BTreeSet<(Key, Life)> {
        let mut out = BTreeSet::new();
        for v in versions {
            let (d, a) = (v.dkey.to_vec(), v.akey.to_vec());
            let death = v.death.map(|d| d.hlc);
            if death == Some(v.birth.hlc) {
                continue;
            }
            match &v.kind {
                VersionKind::Punched => {}
                VersionKind::Value(value) => {
                    assert!(out.insert(((d, a, 0), (v.birth.hlc, death, Ok(value.clone())))));
                }
                VersionKind::Extent(Extent::Hole { punched: false, .. }) => {}
                VersionKind::Extent(extent) => {
                    let start = match extent {
                        Extent::Hole { offset, .. } | Extent::Inline { offset, .. } => *offset,
                        Extent::Device(d) => d.offset,
                    } as usize;
                    let inside = start..start + extent.byte_len() as usize;
                    let mut wanted = offsets.iter().filter(|o| inside.contains(o)).peekable();
                    let cells = wanted.peek().map(|_| cells(&self.rig, extent));
                    for &o in wanted {
                        let cell = cells.as_ref().unwrap()[o - start];
                        let life = (v.birth.hlc, death, Err(cell));
                        assert!(out.insert(((d.clone(), a.clone(), o), life)), "twice");
                    }
                }
            }
        }
        out
    }

    /// Compares what iteration finds with the model.
    pub(super) fn iterate(&mut self, i: usize) {
        let offsets: Vec<usize> = (0..12).map(|_| self.rng.random_range(0..30_000)).collect();
        let offsets: Vec<usize> = BTreeSet::from_iter(offsets).into_iter().collect();
        let lowest = self.objects[i].horizon + 1;
        let range = Range {
            epochs: (self.rng.random_range(lowest..=lowest.max(self.now)), u64::MAX),
            ..Range::default()
        };
        let budget = self.rng.random_range(1..60);
        let versions = self.all_versions(i, &range, budget);
        let found = self.found(&versions, &offsets);
        let want: BTreeSet<_> = lives(&self.objects[i], &offsets)
            .into_iter()
            .filter(|(_, (birth, ..))| *birth >= range.epochs.0)
            .collect();
        let differs: Vec<_> = want.symmetric_difference(&found).take(3).collect();
        assert!(differs.is_empty(), "object {i} from {}: {differs:?}", range.epochs.0);
        let mut back = self.all_versions(i, &Range { reverse: true, ..range }, budget);
        back.reverse();
        assert_eq!(back, versions);
        let keys: Vec<_> = versions.iter().map(|v| (&v.dkey, &v.akey)).collect();
        assert!(keys.is_sorted());
        self.iterate_visible(i, &offsets, budget);
    }

    /// What a reader sees is what is visible.
    fn iterate_visible(&mut self, i: usize, offsets: &[usize], budget: usize) {
        let lowest = self.objects[i].horizon;
        let hlc = self.rng.random_range(lowest..=lowest.max(self.now));
        let range = Range { epochs: (0, hlc), show: Show::VISIBLE, ..Range::default() };
        let versions = self.all_versions(i, &range, budget);
        let found: BTreeSet<_> = self
            .found(&versions, offsets)
            .into_iter()
            .map(|(k, (_, _, value))| (k, value))
            .collect();
        let state = self.objects[i].at(Epoch::end_of(hlc)).unwrap_or_default();
        let mut want = BTreeSet::new();
        for ((d, a), value) in state {
            match value {
                Value::Single(value) => drop(want.insert(((d, a, 0), Ok(value)))),
                Value::Array { size, cells } => {
                    let shown = offsets.iter().filter(|&&o| o < size.min(cells.len()));
                    let shown = shown.filter(|&&o| cells[o] != NEVER && cells[o] != PUNCHED);
                    want.extend(shown.map(|&o| ((d.clone(), a.clone(), o), Err(cells[o]))));
                }
            }
        }
        assert_eq!(want, found, "object {i} at {hlc}");
    }
}

/// An object with values at 10, 20, 30 in three dkeys, one of them punched at 40; and an array.
fn history() -> Rig {
    let mut rig = Rig::new(Config::default());
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    rig.submit(&tx).unwrap();
    for hlc in [10u64, 20, 30] {
        let mut tx = Tx::new(hlc);
        tx.set_horizon(1);
        for dkey in [b"d1", b"d2", b"d3"] {
            tx.update(CID, &oid(0), dkey, b"a", Bytes::from(vec![hlc as u8]));
        }
        tx.write(CID, &oid(0), b"e", b"w", hlc * 100, Bytes::from(vec![hlc as u8; 1500]), None);
        rig.submit(&tx).unwrap();
    }
    let mut tx = Tx::new(40);
    tx.set_horizon(1);
    tx.punch_dkey(CID, &oid(0), b"d2");
    tx.punch_range(CID, &oid(0), b"e", b"w", 0, 1500);
    rig.submit(&tx).unwrap();
    rig
}

fn text(versions: Vec<Version>) -> Vec<String> {
    let one = |v: Version| {
        let kind = match v.kind {
            VersionKind::Value(value) => format!("={}", value[0]),
            VersionKind::Punched => " punched".into(),
            VersionKind::Extent(e) => {
                let hole = matches!(e, Extent::Hole { .. });
                let (Extent::Hole { offset, .. } | Extent::Inline { offset, .. }) = e else {
                    panic!("on the device")
                };
                let end = offset + e.byte_len();
                format!(" {offset}..{end}{}", if hole { " hole" } else { "" })
            }
        };
        let life = (v.birth.hlc, v.death.map_or(0, |d| d.hlc));
        format!("{} {}-{}{kind}", v.dkey.escape_ascii(), life.0, life.1)
    };
    versions.into_iter().map(one).collect()
}

fn listed(rig: &mut Rig, range: &Range, budget: usize) -> Vec<String> {
    listed_at(rig, u64::MAX, range, budget)
}

fn listed_at(rig: &mut Rig, hlc: u64, range: &Range, budget: usize) -> Vec<String> {
    text(all_parts(rig, |vos| vos.at(hlc), 0, range, budget))
}

#[test]
fn iteration_shows_what_is_asked_for() {
    let mut rig = history();
    let dkeys = Range { from: "d2".into(), to: Some("e".into()), ..Range::default() };
    let d2 = ["d2 10-20=10", "d2 20-30=20", "d2 30-40=30", "d2 40-0 punched"];
    let d3 = ["d3 10-20=10", "d3 20-30=20", "d3 30-0=30"];
    for budget in [1, 2, 100] {
        assert_eq!(listed(&mut rig, &dkeys, budget), [&d2[..], &d3].concat());
        let back = Range { reverse: true, ..dkeys.clone() };
        let mut want = [&d2[..], &d3].concat();
        want.reverse();
        assert_eq!(listed(&mut rig, &back, budget), want);
        let middle = Range { epochs: (20, 25), ..dkeys.clone() };
        assert_eq!(listed(&mut rig, &middle, budget), ["d2 20-30=20", "d3 20-30=20"]);
        let seen = Range { show: Show::VISIBLE, ..dkeys.clone() };
        assert_eq!(listed(&mut rig, &seen, budget), ["d3 30-0=30"]);
        let view = ["d2 20-30=20", "d3 20-30=20"];
        assert_eq!(listed_at(&mut rig, 25, &seen, budget), view, "a view sees no later ones");
        let then = Range { epochs: (0, 35), ..seen };
        assert_eq!(listed(&mut rig, &then, budget), ["d2 30-40=30", "d3 30-0=30"]);
        let oldest = Range { epochs: (15, 35), oldest: true, ..dkeys.clone() };
        assert_eq!(listed(&mut rig, &oldest, budget), ["d2 20-30=20", "d3 20-30=20"]);
        let oldest = Range { epochs: (0, u64::MAX), reverse: true, ..oldest };
        let want = ["d3 10-20=10", "d2 40-0 punched", "d2 10-20=10"];
        assert_eq!(listed(&mut rig, &oldest, budget), want);
        let none = Range { epochs: (31, 39), ..oldest };
        assert!(listed(&mut rig, &none, budget).is_empty());
        let covered = Show { covered: true, visible: false, punched: false, holes: false };
        let array = Range { from: "e".into(), show: covered, ..Range::default() };
        let want = ["e 10-40 1000..1500", "e 10-20 2000..2500", "e 20-30 3000..3500"];
        assert_eq!(listed(&mut rig, &array, budget), want);
        let holes = Range { epochs: (40, 40), ..Range { from: "e".into(), ..Range::default() } };
        assert_eq!(listed(&mut rig, &holes, budget), ["e 40-0 0..1500 hole"]);
    }
}
