//! The rules against what a real Ceph answered to the same requests.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use spirula_maps::SnapIntervals;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{ListSnapsResponse, SnapContext, SnapId};
use spirula_wire::{Decode, Encode, Features};

use super::*;
use crate::object::ObjectInfo;
use crate::plan::{Request, execute};
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
    fn snapset(&self) -> Viewed<SnapSet, Infallible> {
        Ok(self.set.clone())
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
        let removed = self.removed.clone();
        let scope = SnapScope { context, removed, ..SnapScope::default() };
        let ops = [request(words)];
        let asked =
            Request { ops: &ops, may_write: true, snaps: Some(&scope), ..Request::default() };
        let Ok(done) = execute(&asked, self);
        self.stats.add(&done.delta);
        if let Some(mut change) = done.change {
            self.pasts.extend(self.info.take().map(|info| (self.epoch, info)));
            if let Some(snaps) = &mut change.snaps {
                snaps.settle(self.epoch);
                self.set = snaps.after.clone();
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
        let change = trimmed(&self.set, snap, &self.removed, head, &mut self.stats);
        if let Some(change) = change {
            self.set = change.after;
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
    assert_eq!(decode_seq(&encode_seq(SnapId(5))), Ok(SnapId(5)));
    assert_eq!(clone_of_akey(&clone_akey(SnapId(300))), Some(SnapId(300)));
    assert!(SnapClone::from_bytes(&[9; 40]).is_err());
}
