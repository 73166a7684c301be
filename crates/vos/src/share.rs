//! Blocks that several arrays name: how many names there are beyond the first.
//!
//! A *name* of a block is an array with a place in it (where the block's first byte would be): all
//! pieces of that place are one name, and [`Stage::free_difference`] sees when the last of them goes.
//! What is freed there comes here before it is free: a block with further names only loses one.
//! Invariants: a block has an entry from the first time it was shared until it is free. One that is
//! freed with an entry is reused only after a checkpoint begun later, because the transactions that
//! took its names may be of several containers, and collection takes names without a record.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_varint};
use crate::record::{TABLE_SHARED, entry_damaged, table_key};
use crate::stage::Stage;
use crate::tree;
use crate::types::{BlockAddr, ReadError, StageError};
use crate::vos::Vos;

/// Blocks `start..end`, with how many names each has beyond the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shared {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) more: u64,
}

impl Shared {
    fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4);
        put_varint(&mut out, self.end - self.start);
        put_varint(&mut out, self.more);
        out
    }

    /// Decodes an entry by its key without the table.
    pub(crate) fn decode(key: &[u8], value: Bytes) -> Result<Shared, ReadError> {
        let parse = || {
            let start = u64::from_be_bytes(key.try_into().map_err(|_| Malformed)?);
            let mut r = Reader::new(value);
            let (len, more) = (r.varint()?, r.varint()?);
            let end = start.checked_add(len).filter(|&end| end > start).ok_or(Malformed)?;
            if more > u64::from(u32::MAX) {
                return Err(Malformed);
            }
            Ok(Shared { start, end, more })
        };
        parse().map_err(|_: Malformed| entry_damaged(TABLE_SHARED))
    }
}

impl Vos {
    /// The entries that overlap blocks `start..end`, whole.
    fn shared_in(&self, start: u64, end: u64) -> Result<Vec<Shared>, ReadError> {
        let mut out: Vec<Shared> = Vec::new();
        let before = tree::floor(&self.pool, self.root, &table_key(TABLE_SHARED, start, &[]))?;
        if let Some((key, value)) = before
            && key.first() == Some(&TABLE_SHARED)
        {
            out.extend(Some(Shared::decode(&key[1..], value)?).filter(|s| s.end > start));
        }
        let (from, to) =
            (table_key(TABLE_SHARED, start + 1, &[]), table_key(TABLE_SHARED, end, &[]));
        tree::scan(&self.pool, self.root, &from, Some(&to), &mut |key, cell| {
            out.push(Shared::decode(&key[1..], tree::load_value(&self.pool, cell)?)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(out)
    }

    /// Whether any block has an entry.
    pub(crate) fn finds_shared(&self) -> Result<bool, ReadError> {
        let mut found = false;
        let (from, to) = ([TABLE_SHARED], [TABLE_SHARED + 1]);
        tree::scan(&self.pool, self.root, &from, Some(&to), &mut |_, _| {
            found = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }
}

impl Stage<'_> {
    /// Gives blocks `start..end` one more name each.
    pub(crate) fn share(&mut self, (start, end): (u64, u64)) -> Result<(), StageError> {
        self.vos.shares = true;
        self.recount((start, end), &|more| Some(more.map_or(1, |m| m + 1)))?;
        Ok(())
    }

    /// Decides about what was freed: call when the transaction has done all else.
    pub(crate) fn settle_freed(&mut self) -> Result<(), StageError> {
        if !self.vos.shares {
            return Ok(());
        }
        for (addr, len) in self.vos.space.take_freed() {
            let before = self.recount((addr.0, addr.0 + len), &|more| more?.checked_sub(1))?;
            for (start, end, more) in before {
                let run = (BlockAddr(start), end - start);
                match more {
                    None => self.vos.space.free(run),
                    Some(0) => self.vos.space.free_shared(run),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Changes the counts of blocks; what they were before, by runs.
    fn recount(
        &mut self,
        (start, end): (u64, u64),
        change: &dyn Fn(Option<u64>) -> Option<u64>,
    ) -> Result<Vec<(u64, u64, Option<u64>)>, StageError> {
        let old = self.vos.shared_in(start, end)?;
        let (mut before, mut at) = (Vec::new(), start);
        for entry in &old {
            let (from, to) = (entry.start.max(start), entry.end.min(end));
            if from > at {
                before.push((at, from, None));
            }
            before.push((from, to, Some(entry.more)));
            at = to;
        }
        if at < end {
            before.push((at, end, None));
        }
        let mut new: Vec<Shared> = Vec::with_capacity(before.len() + 2);
        let outside = |e: &Shared| [(e.start, start.min(e.end)), (e.start.max(end), e.end)];
        for entry in &old {
            let cut = outside(entry).into_iter().filter(|(from, to)| from < to);
            new.extend(cut.map(|(start, end)| Shared { start, end, more: entry.more }));
        }
        for &(start, end, more) in &before {
            new.extend(change(more).map(|more| Shared { start, end, more }));
        }
        new.sort_unstable_by_key(|s| s.start);
        new.dedup_by(|next, last| {
            let joins = last.end == next.start && last.more == next.more;
            if joins {
                last.end = next.end;
            }
            joins
        });
        let vos = &mut *self.vos;
        for entry in &old {
            let key = table_key(TABLE_SHARED, entry.start, &[]);
            tree::remove(&mut vos.pool, &mut vos.root, &key)?;
        }
        for entry in new {
            let key = table_key(TABLE_SHARED, entry.start, &[]);
            tree::insert(&mut vos.pool, &mut vos.root, &key, &entry.encode())?;
        }
        Ok(before)
    }
}
