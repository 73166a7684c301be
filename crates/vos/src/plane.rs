//! The plane of an array: offset by epoch, partitioned into rectangles; and what a write older than
//! some of them does to it.
//!
//! A write at an epoch ends what is alive there, and lives itself until the next newer rectangle at the
//! same offset begins. Writes newer than all take the short way in `array.rs`, which does the same.
//! Invariant: rectangles are disjoint, before and after.

use crate::epoch::Epoch;
use crate::item::{Body, Piece};

/// A piece with its death; `None` for those at the head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rect {
    pub(crate) piece: Piece,
    pub(crate) death: Option<Epoch>,
}

/// What an insertion changes.
#[derive(Default, Debug)]
pub(crate) struct Change {
    pub(crate) removed: Vec<Rect>,
    pub(crate) added: Vec<Rect>,
}

/// A write of the same epoch covers a part of the range, or more than it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SameEpoch;

/// Whether `new` at `epoch` may replace a piece of the same epoch. Inline pieces may have been joined
/// with others, so nothing can be said about them.
pub(crate) fn may_replace(old: &Piece, epoch: Epoch, from: u64, to: u64) -> bool {
    old.epoch != epoch
        || epoch.minor == u16::MAX
        || matches!(old.body, Body::Inline(_))
        || (old.offset >= from && old.end() <= to)
}

/// Puts `new`, pieces that cover `[from, to)` exactly, at `epoch` among `rects`, all that overlap the
/// range. `keep` tells whether anybody sees what has this birth and death.
pub(crate) fn insert(
    rects: &[Rect],
    (from, to): (u64, u64),
    epoch: Epoch,
    new: &[Piece],
    keep: &dyn Fn(Epoch, Epoch) -> bool,
) -> Result<Change, SameEpoch> {
    let mut change = Change::default();
    for rect in rects {
        let piece = &rect.piece;
        let alive = piece.epoch <= epoch && rect.death.is_none_or(|d| epoch < d);
        let (start, end) = (piece.offset.max(from), piece.end().min(to));
        if !alive || start >= end {
            continue;
        }
        if !may_replace(piece, epoch, from, to) {
            return Err(SameEpoch);
        }
        change.removed.push(rect.clone());
        for (a, b) in [(piece.offset, start), (end, piece.end())] {
            if a < b {
                change.added.push(Rect { piece: piece.slice(a, b), death: rect.death });
            }
        }
        if piece.epoch < epoch && keep(piece.epoch, epoch) {
            change.added.push(Rect { piece: piece.slice(start, end), death: Some(epoch) });
        }
    }
    for (start, end, death) in lifetimes(rects, from, to, epoch) {
        if death.is_some_and(|d| !keep(epoch, d)) {
            continue;
        }
        for piece in new {
            let (a, b) = (piece.offset.max(start), piece.end().min(end));
            if a < b {
                change.added.push(Rect { piece: piece.slice(a, b), death });
            }
        }
    }
    Ok(change)
}

/// Splits the range into runs with the same death for what is born at `epoch`.
pub(crate) fn lifetimes(
    rects: &[Rect],
    from: u64,
    to: u64,
    epoch: Epoch,
) -> Vec<(u64, u64, Option<Epoch>)> {
    let mut bounds = vec![from, to];
    for rect in rects {
        bounds.extend(
            [rect.piece.offset, rect.piece.end()].iter().filter(|x| (from..to).contains(x)),
        );
    }
    bounds.sort_unstable();
    bounds.dedup();
    let mut out: Vec<(u64, u64, Option<Epoch>)> = Vec::new();
    for pair in bounds.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        let over = rects.iter().filter(|r| r.piece.offset <= start && r.piece.end() >= end);
        // What is alive ends when this would; what is newer ends this.
        let ends = over.filter_map(|r| match r.piece.epoch <= epoch {
            true => r.death.filter(|&d| d > epoch),
            false => Some(r.piece.epoch),
        });
        let death = ends.min();
        match out.last_mut() {
            Some(last) if last.2 == death => last.1 = end,
            _ => out.push((start, end, death)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const WIDTH: u64 = 24;
    const EPOCHS: u64 = 12;

    fn at(hlc: u64) -> Epoch {
        Epoch::new(hlc, 0)
    }

    /// The byte visible at an offset and epoch.
    fn look(rects: &[Rect], offset: u64, epoch: u64) -> Option<u8> {
        let mut found = rects.iter().filter(|r| {
            r.piece.offset <= offset
                && offset < r.piece.end()
                && r.piece.epoch.hlc <= epoch
                && r.death.is_none_or(|d| epoch < d.hlc)
        });
        let one = found.next();
        assert!(found.next().is_none(), "rectangles overlap");
        one.map(|r| match &r.piece.body {
            Body::Inline(b) => b[(offset - r.piece.offset) as usize],
            _ => 0,
        })
    }

    proptest! {
        #[test]
        fn any_order_of_writes_gives_the_same_plane(
            writes in proptest::collection::vec((0..WIDTH, 1..WIDTH, 1..EPOCHS), 1..20),
            retained in 0..EPOCHS,
            horizon in 0..EPOCHS,
        ) {
            let keep = |b: Epoch, d: Epoch| {
                b.hlc < d.hlc && (d.hlc > horizon || (b.hlc..d.hlc).contains(&retained))
            };
            let mut rects: Vec<Rect> = Vec::new();
            let mut done: Vec<(u64, u64, u64, u8)> = Vec::new();
            for (i, (from, len, epoch)) in writes.into_iter().enumerate() {
                let to = (from + len).min(WIDTH);
                // Below the horizon in order only, as the contract has it.
                let newest = done.iter().map(|w| w.0).max().unwrap_or(0);
                if done.iter().any(|w| w.0 == epoch) || (epoch < horizon && epoch < newest) {
                    continue;
                }
                let body = Body::Inline(Bytes::from(vec![i as u8 + 1; (to - from) as usize]));
                let new = [Piece { offset: from, epoch: at(epoch), body }];
                let near: Vec<Rect> = rects
                    .iter()
                    .filter(|r| r.piece.offset < to && r.piece.end() > from)
                    .cloned()
                    .collect();
                let change = insert(&near, (from, to), at(epoch), &new, &keep).unwrap();
                rects.retain(|r| !change.removed.contains(r));
                rects.extend(change.added);
                done.push((epoch, from, to, i as u8 + 1));
                done.sort_unstable();
            }
            for epoch in (0..EPOCHS).filter(|&e| e >= horizon || e == retained) {
                for offset in 0..WIDTH {
                    let covers = |w: &&(u64, u64, u64, u8)| {
                        w.0 <= epoch && (w.1..w.2).contains(&offset)
                    };
                    let want = done.iter().rev().find(covers).map(|w| w.3);
                    prop_assert_eq!(look(&rects, offset, epoch), want);
                }
            }
        }
    }
}
