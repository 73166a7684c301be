//! The rules against what a real Ceph answered to the same requests.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use spirula_maps::SnapIntervals;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, flag};
use spirula_wire::types::{ListSnapsResponse, SnapContext, SnapId};
use spirula_wire::{Decode, Encode, Features};

use super::*;
use crate::object::ObjectInfo;
use crate::plan::{Effect, Request, execute};
use crate::stats::StatSum;
use crate::view::{ObjectView, Past, Viewed};

const RECORDED: &str = include_str!("ceph.txt");

/// An object without bytes: what the rules see of it.
#[derive(Default)]
struct Model {
    info: Option<ObjectInfo>,
    set: SnapSet,
    pasts: BTreeMap<u64, ObjectInfo>,
    epoch: u64,
    made: u64,
    snaps: Vec<SnapId>,
    removed: SnapIntervals,
    stats: StatSum,
}

impl ObjectView for Model {
    type Missing = Infallible;

    fn info(&self) -> Viewed<Option<ObjectInfo>, Infallible> {
        Ok(self.info.clone())
    }
    fn xattr(&self, _: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        Ok(None)
    }
    fn xattrs(&self) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        Ok(Vec::new())
    }
    fn omap_header(&self) -> Viewed<Bytes, Infallible> {
        Ok(Bytes::new())
    }
    fn omap_value(&self, _: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        Ok(None)
    }
    fn omap_range(&self, _: &[u8], _: bool, _: usize) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        Ok(Vec::new())
    }
    fn read(&self, _: u64, _: u64) -> Viewed<Vec<Bytes>, Infallible> {
        Ok(Vec::new())
    }
    fn extents(&self, _: u64, _: u64) -> Viewed<Vec<(u64, u64)>, Infallible> {
        Ok(Vec::new())
    }
    fn snapset(&self, clones: Clones) -> Viewed<SnapSet, Infallible> {
        let asked = |c: &SnapClone| match clones {
            Clones::All => true,
            Clones::Newest => self.set.clones.last() == Some(c),
            Clones::Showing(snap) => self.set.clones.iter().find(|c| c.id >= snap) == Some(c),
        };
        let clones = self.set.clones.iter().filter(|c| asked(c)).cloned().collect();
        Ok(SnapSet { seq: self.set.seq, clones })
    }
    fn past(&self, epoch: u64) -> Viewed<Option<Past>, Infallible> {
        let info = self.pasts.get(&epoch).cloned();
        Ok(info.map(|info| Past { info, ..Past::default() }))
    }
}

fn op(code: OpCode, offset: u64, length: u64) -> OsdOp {
    let input = if code == OpCode::ZERO || code == OpCode::TRUNCATE { 0 } else { length };
    OsdOp::new(code, OpArgs::extent(offset, length), vec![b'x'; input as usize].into())
}

fn request(words: &[&str]) -> OsdOp {
    let n = |i: usize| words[i].parse().unwrap();
    match words[0] {
        "write" => op(OpCode::WRITE, n(1), n(2)),
        "full" => op(OpCode::WRITEFULL, 0, n(1)),
        "append" => op(OpCode::APPEND, 0, n(1)),
        "zero" => op(OpCode::ZERO, n(1), n(2)),
        "trunc" => op(OpCode::TRUNCATE, n(1), 0),
        "create" => OsdOp { code: OpCode::CREATE, ..OsdOp::default() },
        "del" => OsdOp { code: OpCode::DELETE, ..OsdOp::default() },
        "xattr" => {
            let args = OpArgs::Xattr { name_len: 1, value_len: 1, cmp_op: 0, cmp_mode: 0 };
            OsdOp::new(OpCode::SETXATTR, args, "xy".into())
        }
        "rollback" => {
            let args = OpArgs::Snap { snapid: SnapId(n(1)) };
            OsdOp::new(OpCode::ROLLBACK, args, Bytes::new())
        }
        other => panic!("{other}"),
    }
}

impl Model {
    fn step(&mut self, words: &[&str]) -> i32 {
        match words {
            ["rmsnap", snap] => {
                let snap = SnapId(snap.parse().unwrap());
                self.snaps.retain(|s| *s != snap);
                self.removed.insert(snap.0, 1);
                self.trim(snap);
                0
            }
            ["at", snap, words @ ..] => self.run(SnapId(snap.parse().unwrap()), words),
            _ => self.run(SnapId::HEAD, words),
        }
    }

    fn run(&mut self, upto: SnapId, words: &[&str]) -> i32 {
        let snaps: Vec<_> = self.snaps.iter().rev().copied().filter(|s| *s <= upto).collect();
        let seq = snaps.first().copied().unwrap_or_default();
        let context = SnapContext { seq, snaps };
        let pool = PoolSnaps { removed: self.removed.clone(), context: Some(context) }.into();
        let scope = SnapScope { pool, ..SnapScope::default() };
        let ops: Vec<_> = words.split(|word| *word == "+").map(request).collect();
        let asked =
            Request { ops: &ops, may_write: true, snaps: Some(&scope), ..Request::default() };
        let Ok(done) = execute(&asked, self);
        self.stats.add(&done.delta);
        if let Some(mut change) = done.change {
            self.pasts.extend(self.info.take().map(|info| (self.epoch, info)));
            if let Some(snaps) = &mut change.snaps {
                snaps.settle(self.epoch);
                self.set.take_in(snaps);
            }
            self.epoch += 1;
            self.info = change.info;
        }
        if self.info.is_none() && self.set.clones.is_empty() {
            self.set = SnapSet::default();
        }
        self.check();
        done.result
    }

    fn trim(&mut self, snap: SnapId) {
        let head = self.info.is_some();
        let set = self.set.clone();
        if let Some(change) = trimmed(set, snap, &self.removed, head, &mut self.stats) {
            self.set.take_in(&change);
        }
        if !head && self.set.clones.is_empty() {
            self.set = SnapSet::default();
        }
        self.check();
    }

    /// The counters that were kept are those that counting gives.
    fn check(&self) {
        let clones = &self.set.clones;
        let whiteout = self.info.is_none() && !clones.is_empty();
        let head = i64::from(self.info.is_some() || whiteout);
        let size = self.info.as_ref().map_or(0, |i| i.size);
        let found = (
            self.stats.num_objects,
            self.stats.num_object_clones,
            self.stats.num_whiteouts,
            self.stats.num_bytes,
        );
        let n = clones.len() as i64;
        let bytes = clones.iter().map(SnapClone::bytes).sum::<i64>() + size as i64;
        assert_eq!(found, (head + n, n, i64::from(whiteout), bytes));
    }

    /// As `rados listsnaps` shows it.
    fn listed(&self) -> String {
        let scope = SnapScope { snap: SnapId::DIR, ..SnapScope::default() };
        let ops = [OsdOp { code: OpCode::LIST_SNAPS, ..OsdOp::default() }];
        let asked = Request { ops: &ops, snaps: Some(&scope), ..Request::default() };
        let Ok(done) = execute(&asked, self);
        if !done.exists {
            return "absent".into();
        }
        let raw = done.outputs[0].outdata.concat();
        let list = ListSnapsResponse::from_bytes(&raw).unwrap();
        assert_eq!(list.seq, self.set.seq);
        let entry = |c: &spirula_wire::types::CloneInfo| {
            if c.cloneid == SnapId::HEAD {
                return format!("head {}", c.size);
            }
            let join = |words: Vec<String>| words.join(" ");
            let snaps = join(c.snaps.iter().map(|s| s.0.to_string()).collect());
            let overlap = join(c.overlap.iter().map(|(at, n)| format!("{at}~{n}")).collect());
            format!("{} [{snaps}] {} ({overlap})", c.cloneid.0, c.size)
        };
        list.clones.iter().map(entry).collect::<Vec<_>>().join("; ")
    }
}

impl SnapSet {
    /// What is stored of a change, onto what was stored before.
    fn take_in(&mut self, change: &SnapChange) {
        let (before, after) = (SnapHeader::of(self), &change.set);
        self.seq = after.seq;
        self.clones.retain(|c| !change.gone.contains(&c.id));
        for id in &change.changed {
            let clone = after.clone_of(*id).unwrap().clone();
            self.clones.retain(|c| c.id != *id);
            self.clones.push(clone);
        }
        self.clones.sort_by_key(|c| c.id);
        assert_eq!(before != SnapHeader::of(self), change.header);
        let same = |c: &SnapClone| self.clone_of(c.id) == Some(c);
        assert!(after.clones.iter().all(same), "what differs is not told");
        let all = change.made || !change.gone.is_empty();
        assert!(!all || after == self, "epochs are not told");
    }
}

#[test]
fn a_write_that_changes_no_clone_stores_nothing_of_them() {
    let overlap = Ranges::of(0, 100);
    let clone = SnapClone { id: SnapId(4), size: 100, overlap, ..SnapClone::default() };
    let set = |clones: &[&SnapClone]| SnapSet {
        seq: SnapId(5),
        clones: clones.iter().map(|c| (*c).clone()).collect(),
    };
    let old = ObjectInfo { size: 200, ..ObjectInfo::default() };
    let check = |before: &SnapSet, (seq, snap): (u64, u64), (offset, length), want: &str| {
        let context = SnapContext { seq: SnapId(seq), snaps: vec![SnapId(snap)] };
        let effects = [Effect::Zero { offset, length }];
        let write = Write { context: &context, old: Some(&old), effects: &effects, exists: true };
        let change = make_writeable(before.clone(), write, &mut StatSum::default());
        let changed: Vec<u64> = change.changed.iter().map(|id| id.0).collect();
        let found = format!("{changed:?} {} {}", change.header, change.made);
        assert_eq!(found, want, "{before:?} {seq} {snap} {offset} {length}");
    };
    check(&set(&[]), (5, 3), (0, 10), "[] false false");
    check(&set(&[&clone]), (5, 3), (100, 10), "[] false false");
    check(&set(&[&clone]), (5, 3), (0, 10), "[4] false false");
    check(&set(&[&clone]), (6, 3), (100, 10), "[] true false");
    check(&set(&[&clone]), (6, 6), (100, 10), "[6] true true");
}

#[test]
fn snapsets_are_as_cephs() {
    let (mut model, mut title, mut lines) = (Model::default(), "", 0);
    for line in RECORDED.lines().filter(|l| !l.starts_with("//")) {
        if let Some(name) = line.strip_prefix("# ") {
            (model, title) = (Model::default(), name);
            continue;
        }
        if line == "snap" {
            model.made += 1;
            model.snaps.push(SnapId(model.made));
            continue;
        }
        let (words, answer) = line.split_once(" = ").unwrap();
        let words: Vec<&str> = words.split(' ').collect();
        let result = model.step(&words);
        assert_eq!(format!("{result}; {}", model.listed()), answer, "{title}: {words:?}");
        lines += 1;
    }
    assert!(lines > 250, "{lines}");
}

#[test]
fn snapshots_show_what_was_written_before_them() {
    let clone = |id, snaps: &[u64]| SnapClone {
        id: SnapId(id),
        snaps: snaps.iter().map(|s| SnapId(*s)).collect(),
        ..SnapClone::default()
    };
    let set = SnapSet { seq: SnapId(9), clones: vec![clone(4, &[4, 2]), clone(8, &[8, 7])] };
    let mut removed = SnapIntervals::default();
    removed.insert(7, 1);
    let shown: Vec<String> = (1..=10)
        .map(|s| match set.shown(SnapId(s), &removed) {
            Shown::Head => "head".into(),
            Shown::Clone(c) => c.id.0.to_string(),
            Shown::Nothing => "-".into(),
        })
        .collect();
    assert_eq!(shown, ["-", "4", "-", "4", "-", "-", "-", "8", "-", "head"]);
}

#[test]
fn requests_write_with_the_pools_context_or_their_own() {
    let ids = |ids: &[u64]| ids.iter().map(|s| SnapId(*s)).collect::<Vec<_>>();
    let client = SnapContext { seq: SnapId(9), snaps: ids(&[9, 7, 3]) };
    let pools = SnapContext { seq: SnapId(4), snaps: ids(&[4, 1]) };
    let mut removed = SnapIntervals::default();
    removed.insert(7, 2);
    let cases = [
        (None, 0, SnapContext { seq: SnapId(9), snaps: ids(&[9, 3]) }),
        (Some(&pools), 0, pools.clone()),
        (Some(&pools), flag::ENFORCE_SNAPC, SnapContext { seq: SnapId(9), snaps: ids(&[9, 3]) }),
    ];
    for (pool, flags, want) in cases {
        let pool = PoolSnaps { context: pool.cloned(), removed: removed.clone() };
        let mut msg = OsdOpMsg { snapc: client.clone(), flags, ..OsdOpMsg::default() };
        assert_eq!(SnapScope::of(&mut msg, pool.into()).context(), &want, "{flags}");
    }
    assert_eq!(SnapScope::default().context(), &NO_CONTEXT);
}

#[test]
fn clone_records_round_trip() {
    let clone = SnapClone {
        id: SnapId(0),
        epoch: 7,
        size: 100,
        omap: true,
        snaps: vec![SnapId(3), SnapId(1)],
        overlap: Ranges::collect([(0, 10), (50, 5)]),
    };
    let raw = clone.to_bytes(Features::PACIFIC);
    assert_eq!(SnapClone::from_bytes(&raw), Ok(clone));
    for newest in [Some(SnapId(4)), Some(SnapId(0)), None] {
        let header = SnapHeader { seq: SnapId(5), newest };
        assert_eq!(SnapHeader::from_bytes(&header.to_bytes(Features::PACIFIC)), Ok(header));
    }
    assert_eq!(clone_of_akey(&clone_akey(SnapId(300))), Some(SnapId(300)));
    assert!(SnapClone::from_bytes(&[9; 40]).is_err());
}
