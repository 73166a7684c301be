//! Reads an operation's input data without copying: strings and blobs come out as slices of it.

use bytes::Bytes;
use spirula_wire::{Decode, Reader};

use crate::errno::EINVAL;
use crate::view::Fault;

/// A cursor over an operation's input. Running out of bytes is EINVAL, as in Ceph.
pub(super) struct Cut {
    rest: Bytes,
}

impl Cut {
    pub(super) fn new(input: &Bytes) -> Self {
        Self { rest: input.clone() }
    }

    pub(super) fn take<M>(&mut self, n: usize) -> Result<Bytes, Fault<M>> {
        if n > self.rest.len() {
            return Err(Fault::Errno(-EINVAL));
        }
        Ok(self.rest.split_to(n))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A value in Ceph's encoding.
    pub(super) fn decoded<T: Decode, M>(&mut self) -> Result<T, Fault<M>> {
        let mut reader = Reader::new(&self.rest);
        let value = T::decode(&mut reader).map_err(|_| Fault::Errno(-EINVAL))?;
        let used = self.rest.len() - reader.remaining();
        self.rest = self.rest.split_off(used);
        Ok(value)
    }

    pub(super) fn u8<M>(&mut self) -> Result<u8, Fault<M>> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32<M>(&mut self) -> Result<u32, Fault<M>> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub(super) fn u64<M>(&mut self) -> Result<u64, Fault<M>> {
        let b = self.take(8)?;
        Ok(u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }

    /// A `u32` length and that many bytes.
    pub(super) fn blob<M>(&mut self) -> Result<Bytes, Fault<M>> {
        let n = self.u32()? as usize;
        self.take(n)
    }

    /// A `u32` count of elements that take at least `min_size` bytes each.
    pub(super) fn count<M>(&mut self, min_size: usize) -> Result<usize, Fault<M>> {
        let n = self.u32()? as usize;
        if n.saturating_mul(min_size) > self.rest.len() {
            return Err(Fault::Errno(-EINVAL));
        }
        Ok(n)
    }
}
