//! Reading a method's input and writing its output, as Ceph's methods do.

use bytes::Bytes;
use spirula_wire::{DecodeError, Encode, Features, Reader};

use crate::context::{Outcome, fail};
use crate::errno::EINVAL;

/// Reads arguments from the start of the input; what follows them is ignored. `EINVAL` when they do
/// not decode.
pub(crate) fn arguments<'a, T>(
    input: &'a Bytes,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Outcome<T> {
    read(&mut Reader::new(input)).or_else(|_| fail(EINVAL))
}

/// Appends a value to a method's output.
pub(crate) fn put(out: &mut Vec<u8>, value: &(impl Encode + ?Sized)) {
    value.encode(out, Features::PACIFIC);
}
