//! The size of an array: what its operations did to it, by epoch.
//!
//! The item has the size after the newest operation. It counts unless a punch lies among the
//! operations, or some came out of order: then those after the punch are gone through.

use std::ops::ControlFlow;

use crate::epoch::{Epoch, Punches, Scene};
use crate::history::Version;
use crate::item::{Array, SizeOp};
use crate::stage::Stage;
use crate::tree;
use crate::types::{ReadError, StageError};
use crate::vos::Vos;

/// How far somebody has come who goes through the sizes of an array in steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fold {
    /// [`Array::late`] when it began.
    late: u8,
    /// After the last version looked at.
    size: u64,
    last: Option<Epoch>,
}

impl Fold {
    /// Where `place` says, if that still holds; else at the beginning.
    pub(crate) fn resume(array: &Array, place: &[u8]) -> Fold {
        let parse = || {
            let (&late, rest) = place.split_first()?;
            let (size, last) = rest.split_first_chunk()?;
            Some(Fold { late, size: u64::from_be_bytes(*size), last: Epoch::from_key(last) })
        };
        let begin = Fold { late: array.late, size: 0, last: None };
        parse().filter(|fold| fold.late == array.late).unwrap_or(begin)
    }

    pub(crate) fn place(&self) -> Vec<u8> {
        let last = self.last.map_or(Vec::new(), |last| last.key().to_vec());
        [&[self.late][..], &self.size.to_be_bytes(), &last].concat()
    }

    /// The size after the newest operation, when all others have been gone through.
    pub(crate) fn end(&self, array: &Array, leaves_out: &dyn Fn(Epoch) -> bool) -> u64 {
        if leaves_out(array.epoch) { self.size } else { array.op.apply(self.size) }
    }
}

impl Vos {
    /// Goes on through `max` older versions of an array, some of them left out; how many it were, and
    /// whether there are more.
    pub(crate) fn fold_some(
        &self,
        array: &Array,
        fold: &mut Fold,
        leaves_out: &dyn Fn(Epoch) -> bool,
        max: usize,
    ) -> Result<(usize, bool), ReadError> {
        let (mut seen, mut more) = (0, false);
        if array.history == 0 {
            return Ok((seen, more));
        }
        self.scan_versions(array.history, fold.last.unwrap_or(Epoch::MIN), &mut |birth, cell| {
            if fold.last.is_some_and(|last| birth <= last) {
                return Ok(ControlFlow::Continue(()));
            }
            if seen == max {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            (seen, fold.last) = (seen + 1, Some(birth));
            if !leaves_out(birth)
                && let Version::Size { op, .. } =
                    Version::decode(tree::load_value(&self.pool, cell)?)?
            {
                fold.size = op.apply(fold.size);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((seen, more))
    }

    /// Size of the array at an epoch; `None` if it is not there then.
    pub(crate) fn size_at(
        &self,
        array: &Array,
        punches: &Punches,
        at: Epoch,
    ) -> Result<Option<u64>, ReadError> {
        let punched = punches.last_until(at);
        let hidden = |birth: Epoch| punched.is_some_and(|p| birth <= p);
        let (birth, size) = if array.epoch <= at {
            (array.epoch, Some(array.size))
        } else if array.history == 0 {
            return Ok(None);
        } else {
            match self.version_at(array.history, at)? {
                Some((birth, Version::Size { size, .. })) => {
                    (birth, Some(size).filter(|_| array.late == 0))
                }
                _ => return Ok(None),
            }
        };
        match size {
            _ if hidden(birth) => Ok(None),
            Some(size) if punched.is_none() => Ok(Some(size)),
            _ => self.fold_sizes(array, punched, at).map(Some),
        }
    }

    /// The size that the operations after a punch lead to.
    pub(crate) fn fold_sizes(
        &self,
        array: &Array,
        punched: Option<Epoch>,
        at: Epoch,
    ) -> Result<u64, ReadError> {
        let mut size = 0;
        if array.history != 0 {
            let from = punched.unwrap_or(Epoch::MIN);
            self.scan_versions(array.history, from, &mut |birth, cell| {
                if birth > at {
                    return Ok(ControlFlow::Break(()));
                }
                let value = tree::load_value(&self.pool, cell)?;
                if let Version::Size { op, .. } = Version::decode(value)?
                    && punched.is_none_or(|p| birth > p)
                {
                    size = op.apply(size);
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(if array.epoch <= at { array.op.apply(size) } else { size })
    }
}

impl Stage<'_> {
    /// Notes what the operation does to the size of an array, new if it did not exist.
    pub(crate) fn resize(
        &mut self,
        array: &mut Array,
        existed: bool,
        scene: &Scene,
        op: SizeOp,
    ) -> Result<(), StageError> {
        if !existed {
            (array.epoch, array.op, array.size) = (self.epoch, op, op.apply(0));
            return Ok(());
        }
        if self.epoch < array.epoch {
            return self.resize_late(array, op);
        }
        let hidden = scene.punches.hide(array.epoch, self.epoch);
        let before = array.op;
        array.op = if scene.keeps(array.epoch, self.epoch) {
            let number = self.history_of(array);
            self.put_version(number, array.epoch, &Version::Size { op: before, size: array.size })?;
            op
        } else if hidden {
            op
        } else {
            before.then(op)
        };
        array.size = op.apply(if hidden { 0 } else { array.size });
        array.epoch = self.epoch;
        Ok(())
    }

    fn resize_late(&mut self, array: &mut Array, op: SizeOp) -> Result<(), StageError> {
        let number = self.history_of(array);
        let op = match self.vos.version_at(number, self.epoch)? {
            Some((birth, Version::Size { op: before, .. })) if birth == self.epoch => {
                before.then(op)
            }
            _ => op,
        };
        self.put_version(number, self.epoch, &Version::Size { op, size: 0 })?;
        array.mark_late();
        if !matches!(op, SizeOp::Grow(end) if end <= array.size) {
            array.size = self.vos.fold_sizes(array, None, Epoch::end_of(u64::MAX))?;
        }
        Ok(())
    }
}
