//! Decoding as methods do it: the error says whose bytes were bad.

use spirula_wire::Decode;

use crate::context::{Halt, Outcome};
use crate::errno::{EINVAL, EIO};

/// The caller's input; what follows the value is ignored.
pub(crate) fn input<T: Decode>(bytes: &[u8]) -> Outcome<T> {
    T::from_bytes(bytes).map_err(|_| Halt::Errno(EINVAL))
}

/// A value that was stored in the object.
pub(crate) fn stored<T: Decode>(bytes: &[u8]) -> Outcome<T> {
    T::from_bytes(bytes).map_err(|_| Halt::Errno(EIO))
}
