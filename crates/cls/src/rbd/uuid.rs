//! New UUIDs without a source of randomness.

use spirula_wire::types::Uuid;
use spirula_wire::{Encode, Features};

use crate::context::Context;

/// A name that nothing else has: made from who asks, the time, the object's version and `salt`, so
/// that a request that runs again makes the same one. `salt` tells objects and calls apart.
pub(super) fn fresh(ctx: &dyn Context, salt: &[u8]) -> String {
    let origin = ctx.origin();
    let mut seed = ctx.now().to_bytes(Features::PACIFIC);
    origin.name.encode(&mut seed, Features::PACIFIC);
    origin.addr.encode(&mut seed, Features::PACIFIC);
    ctx.user_version().encode(&mut seed, Features::PACIFIC);
    ctx.subop().encode(&mut seed, Features::PACIFIC);
    seed.extend_from_slice(salt);
    let halves = [mix(&seed, 1), mix(&seed, 2)];
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&halves[0].to_le_bytes());
    bytes[8..].copy_from_slice(&halves[1].to_le_bytes());
    Uuid::from_random(bytes).to_string()
}

/// FNV-1a with the finish of splitmix64: spreads, and is not meant to resist anyone.
fn mix(seed: &[u8], lane: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = seed.iter().fold(start, fnv);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryObject;

    #[test]
    fn it_depends_on_salt_and_time_alone() {
        let mut object = MemoryObject::default();
        let first = fresh(&object, b"a");
        assert_eq!(first.len(), 36);
        assert_eq!(&first[14..15], "4");
        assert_eq!(fresh(&object, b"a"), first);
        assert_ne!(fresh(&object, b"b"), first);
        object.now.nsec += 1;
        assert_ne!(fresh(&object, b"a"), first);
    }
}
