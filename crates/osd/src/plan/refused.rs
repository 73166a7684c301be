//! Operations that are known and that no object takes, with what they are answered.

use spirula_wire::msg::ops::OpCode;

use crate::errno::*;

/// With the (positive) error for an object that is there.
const REFUSED: &[(OpCode, i32)] = &[
    // Pacific's OSDs do not know them either.
    (OpCode::MASKTRUNC, EOPNOTSUPP),
    (OpCode::SETTRUNC, EOPNOTSUPP),
    (OpCode::SETXATTRS, EOPNOTSUPP),
    (OpCode::RESETXATTRS, EOPNOTSUPP),
    // No pool is a cache tier.
    (OpCode::CACHE_FLUSH, EINVAL),
    (OpCode::CACHE_TRY_FLUSH, EINVAL),
    (OpCode::CACHE_EVICT, EINVAL),
    (OpCode::CACHE_PIN, EINVAL),
    (OpCode::CACHE_UNPIN, EINVAL),
    (OpCode::PG_HITSET_GET, ENOENT),
];

/// The (positive) error of an operation that is never carried out; `None` if some object takes it.
pub fn refusal(code: OpCode) -> Option<i32> {
    REFUSED.iter().find(|(refused, _)| *refused == code).map(|(_, errno)| *errno)
}
