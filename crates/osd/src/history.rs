//! The current OSDMap and the increments that led to it, kept to hand on to clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use spirula_maps::{Followed, OsdMap, OsdMapFollower};
use spirula_wire::msg::osd::OsdMapMsg;

/// Increments kept (`osd_map_cache_size` is of this size).
const KEEP: usize = 500;
/// Increments in one message to a client (`osd_map_message_max`).
const SHARE_MAX: u32 = 40;

/// The map that requests are judged by.
#[derive(Debug)]
pub struct MapHistory {
    maps: OsdMapFollower,
    increments: BTreeMap<u32, Bytes>,
}

impl Default for MapHistory {
    fn default() -> Self {
        Self { maps: OsdMapFollower::verifying(), increments: BTreeMap::new() }
    }
}

impl MapHistory {
    pub fn current(&self) -> &Arc<OsdMap> {
        self.maps.current()
    }

    pub fn epoch(&self) -> u32 {
        self.maps.epoch()
    }

    /// Where to ask the monitor for newer maps from.
    pub fn next(&self) -> u32 {
        self.maps.next()
    }

    /// Goes on as far as `message` leads.
    pub fn handle(&mut self, message: &OsdMapMsg) -> Followed {
        let done = self.maps.handle(message);
        if done.jumped {
            // Nothing leads from there to here: clients that are behind ask the monitor.
            self.increments.clear();
        }
        self.increments.extend(done.steps.iter().cloned());
        while self.increments.len() > KEEP {
            self.increments.pop_first();
        }
        done
    }

    /// What brings a client from epoch `known` on; `None` if there is nothing, or a gap that only
    /// the monitor can fill.
    pub fn since(&self, known: u32) -> Option<OsdMapMsg> {
        let (from, to) = (known + 1, self.epoch().min(known.saturating_add(SHARE_MAX)));
        if known == 0 || from > to || !self.increments.contains_key(&from) {
            return None;
        }
        Some(OsdMapMsg {
            fsid: self.maps.current().fsid,
            incremental_maps: self
                .increments
                .range(from..=to)
                .map(|(e, raw)| (*e, raw.clone()))
                .collect(),
            oldest_map: *self.increments.first_key_value()?.0,
            newest_map: self.epoch(),
            ..OsdMapMsg::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use spirula_maps::Incremental;
    use spirula_wire::types::{UTime, Uuid};
    use spirula_wire::{Encode, Features};

    use super::*;

    const F: Features = Features::PACIFIC;

    fn full(epoch: u32) -> Bytes {
        OsdMap { epoch, ..OsdMap::default() }.to_bytes(F).into()
    }

    fn step(epoch: u32) -> Bytes {
        let mut inc = Incremental::new(Uuid::default(), epoch, UTime::default());
        let map = OsdMap { epoch, ..OsdMap::default() };
        (_, inc.full_crc) = map.encode_with_crc(Features(inc.encode_features));
        inc.to_bytes(F).into()
    }

    fn message(maps: &[u32], steps: std::ops::Range<u32>) -> OsdMapMsg {
        OsdMapMsg {
            maps: maps.iter().map(|&e| (e, full(e))).collect(),
            incremental_maps: steps.map(|e| (e, step(e))).collect(),
            ..OsdMapMsg::default()
        }
    }

    #[test]
    fn increments_are_handed_on() {
        let mut h = MapHistory::default();
        assert!(h.handle(&message(&[5], 0..0)).advanced);
        assert_eq!(h.since(4), None);
        assert!(h.handle(&message(&[], 4..9)).advanced);
        let shared = h.since(6).unwrap();
        assert_eq!(shared.incremental_maps.keys().copied().collect::<Vec<_>>(), [7, 8]);
        assert_eq!((h.since(8), h.since(9), h.since(0)), (None, None, None));
        let mut other = MapHistory::default();
        other.handle(&message(&[6], 0..0));
        assert!(other.handle(&shared).advanced);
        assert_eq!(other.epoch(), 8);
    }

    #[test]
    fn nothing_is_handed_on_over_a_jump() {
        let mut h = MapHistory::default();
        h.handle(&message(&[2], 3..5));
        assert!(h.since(3).is_some());
        h.handle(&message(&[7], 8..9));
        assert_eq!((h.epoch(), h.since(3), h.since(6)), (8, None, None));
        assert!(h.since(7).is_some());
    }
}
