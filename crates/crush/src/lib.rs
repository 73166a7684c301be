//! CRUSH: maps a number to devices by a hierarchy of weighted buckets and a rule, the same way on
//! every client and server.
//!
//! Invariants: placement is bit-exact with Ceph 16's for every map that Ceph can build; a decoded
//! map encodes to the bytes it came from; a hostile map costs bounded time and never panics.

#![forbid(unsafe_code)]

mod bucket;
mod choose;
mod classes;
mod denc;
mod edit;
pub mod hash;
mod ln;
mod map;
mod mapper;
mod reshape;
mod rules;
mod weights;

pub use bucket::{Alg, Bucket, BucketData};
pub use edit::{EditError, Location};
pub use map::{
    ChooseArg, ChooseArgMap, CrushMap, DEFAULT_CHOOSE_ARGS, ITEM_NONE, Rule, RuleMask, Step,
    StepOp, Tunables,
};
pub use mapper::DRAWS_MAX;
pub use rules::{RULE_TYPE_ERASURE, RULE_TYPE_REPLICATED, RuleMode};

#[doc(hidden)]
pub mod fuzzing {
    //! Entry points of the fuzz crate, one per target.

    use spirula_wire::{Decode, Encode, Features};

    use crate::CrushMap;

    /// Decodes a map; what decodes must encode, decode again to the same, and place.
    pub fn crushmap(data: &[u8]) {
        let Ok(map) = CrushMap::from_bytes(data) else {
            return;
        };
        let again = CrushMap::from_bytes(&map.to_bytes(Features::PACIFIC));
        assert_eq!(again.as_ref(), Ok(&map));
        place_some(&map);
    }

    /// Places a few values with every rule, with a small budget of work.
    pub fn place_some(map: &CrushMap) {
        let weights = [0x1_0000, 0x8000, 0, 0x1_0000];
        for rule in 0..map.rules.len().min(4) {
            for x in 0..4 {
                let found = map.do_rule_bounded(rule as u32, x, 6, &weights, None, 20_000);
                assert!(found.len() <= 6);
                map.do_rule_bounded(
                    rule as u32,
                    x,
                    3,
                    &weights,
                    map.choose_args_for(x.into()),
                    20_000,
                );
            }
        }
    }
}
