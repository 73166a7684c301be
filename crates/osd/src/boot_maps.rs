//! The maps that a target looks at first: what it has stored of PGs is of an older map, and every epoch
//! since then says who else may have served them.
//!
//! The monitor's first map tells how far to go. If there is anything to catch up with, that map is put
//! aside, the older one is asked for, and the subscription goes on from there.

use spirula_maps::{OsdMap, pool_flags};
use spirula_wire::msg::mon::MonGetOsdMap;
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::{Decode, Features, Message};

use crate::target::Target;

const F: Features = Features::PACIFIC;

/// Whether this message is put aside, because older maps come first.
pub fn waits(target: &Target, message: &OsdMapMsg) -> bool {
    if target.epoch() > 0 || target.first_epoch() > 0 {
        return false;
    }
    let Some((&newest, raw)) = message.maps.last_key_value() else {
        return false;
    };
    let Ok(map) = OsdMap::from_bytes(raw) else {
        return false;
    };
    let making = map.pools.values().any(|pool| pool.has_flag(pool_flags::CREATING));
    let stored = target.shards().oldest_map();
    let from = if making { Some(message.oldest_map.max(1)) } else { stored };
    let from = match (from, stored) {
        (Some(a), Some(b)) => a.min(b),
        (Some(a), None) => a,
        _ => return false,
    };
    target.set_first_epoch(newest);
    if from >= newest {
        return false;
    }
    target.shards().set_wanted_map(from);
    ask_again(target);
    true
}

/// Asks for the first map, as long as it is not there.
pub fn ask_again(target: &Target) {
    let from = target.shards().wanted_map();
    if from == 0 || target.epoch() > 0 {
        return;
    }
    let ask = MonGetOsdMap { full_first: from, full_last: from, ..MonGetOsdMap::default() };
    target.mon().send(target, ask.to_raw(0, F));
}
