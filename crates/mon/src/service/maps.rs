//! Maps that this cluster has nothing to say in, but which some ask for.

use bytes::Bytes;
use spirula_wire::Encode;
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::UTime;

use super::F;
use crate::Now;

/// An encoded `ServiceMap` without services.
pub(super) fn empty_service_map(now: Now) -> Bytes {
    let mut out = Vec::new();
    encode_versioned(&mut out, 2, 1, |out| {
        1u64.encode(out, F);
        UTime::from(now.wall).encode(out, F);
        // Services, of which there are none.
        0u32.encode(out, F);
    });
    out.into()
}
