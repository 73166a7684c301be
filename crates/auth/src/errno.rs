//! Linux error numbers that authentication answers with, negated as on the wire.

pub(crate) const EIO: i32 = -5;
pub(crate) const EACCES: i32 = -13;
pub(crate) const EINVAL: i32 = -22;
pub(crate) const EOPNOTSUPP: i32 = -95;
