//! The current OSDMap and the increments that led to it, kept to hand on to clients.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use spirula_maps::{ApplyError, Incremental, OsdMap};
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::{Decode, DecodeError};

/// Increments kept (`osd_map_cache_size` is of this size).
const KEEP: usize = 500;
/// Increments in one message to a client (`osd_map_message_max`).
const SHARE_MAX: u32 = 40;

/// Why maps from the monitor were not taken. The monitor is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("osdmap from the monitor: {0}")]
    Decode(#[from] DecodeError),
    #[error("osdmap from the monitor: {0}")]
    Apply(#[from] ApplyError),
}

/// The map that requests are judged by.
#[derive(Debug, Default)]
pub struct MapHistory {
    current: Rc<OsdMap>,
    increments: BTreeMap<u32, Bytes>,
}

impl MapHistory {
    pub fn current(&self) -> &Rc<OsdMap> {
        &self.current
    }

    pub fn epoch(&self) -> u32 {
        self.current.epoch
    }

    /// Goes on as far as `message` leads; whether that was anywhere.
    pub fn handle(&mut self, message: &OsdMapMsg) -> Result<bool, MapError> {
        let before = self.epoch();
        let newest = message.maps.keys().chain(message.incremental_maps.keys()).max().copied();
        while Some(self.epoch()) < newest {
            let next = self.epoch() + 1;
            if self.epoch() > 0
                && let Some(raw) = message.incremental_maps.get(&next)
            {
                let mut map = OsdMap::clone(&self.current);
                map.apply(&Incremental::from_bytes(raw)?)?;
                self.current = Rc::new(map);
                self.increments.insert(next, raw.clone());
            } else if let Some((_, raw)) = message.maps.range(next..).next_back() {
                // Nothing leads from here to there: clients that are behind ask the monitor.
                self.increments.clear();
                self.current = Rc::new(OsdMap::from_bytes(raw)?);
            } else {
                break;
            }
        }
        while self.increments.len() > KEEP {
            self.increments.pop_first();
        }
        Ok(self.epoch() > before)
    }

    /// What brings a client from epoch `known` on; `None` if there is nothing, or a gap that only
    /// the monitor can fill.
    pub fn since(&self, known: u32) -> Option<OsdMapMsg> {
        let (from, to) = (known + 1, self.epoch().min(known.saturating_add(SHARE_MAX)));
        if known == 0 || from > to || !self.increments.contains_key(&from) {
            return None;
        }
        Some(OsdMapMsg {
            fsid: self.current.fsid,
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
    use spirula_wire::types::{UTime, Uuid};
    use spirula_wire::{Encode, Features};

    use super::*;

    const F: Features = Features::PACIFIC;

    fn full(epoch: u32) -> Bytes {
        OsdMap { epoch, ..OsdMap::default() }.to_bytes(F).into()
    }

    fn step(epoch: u32) -> Bytes {
        Incremental::new(Uuid::default(), epoch, UTime::default()).to_bytes(F).into()
    }

    fn message(maps: &[u32], steps: std::ops::Range<u32>) -> OsdMapMsg {
        OsdMapMsg {
            maps: maps.iter().map(|&e| (e, full(e))).collect(),
            incremental_maps: steps.map(|e| (e, step(e))).collect(),
            ..OsdMapMsg::default()
        }
    }

    #[test]
    fn increments_are_applied_and_handed_on() {
        let mut h = MapHistory::default();
        assert_eq!(h.handle(&message(&[], 3..5)), Ok(false));
        assert_eq!(h.handle(&message(&[5], 1..1)), Ok(true));
        assert_eq!(h.since(4), None);
        assert_eq!(h.handle(&message(&[], 4..9)), Ok(true));
        assert_eq!((h.epoch(), h.handle(&message(&[], 4..9))), (8, Ok(false)));
        let shared = h.since(6).unwrap();
        assert_eq!(shared.incremental_maps.keys().copied().collect::<Vec<_>>(), [7, 8]);
        assert_eq!((h.since(8), h.since(9), h.since(0)), (None, None, None));
        let mut other = MapHistory::default();
        other.handle(&message(&[6], 1..1)).unwrap();
        assert_eq!(other.handle(&shared), Ok(true));
        assert_eq!(other.epoch(), 8);
    }

    #[test]
    fn a_gap_is_crossed_by_a_full_map() {
        let mut h = MapHistory::default();
        h.handle(&message(&[2], 3..4)).unwrap();
        assert_eq!(h.handle(&message(&[], 6..8)), Ok(false));
        assert_eq!(h.handle(&message(&[7], 6..8)), Ok(true));
        assert_eq!((h.epoch(), h.since(5)), (7, None));
        let mut broken = message(&[], 8..9);
        broken.incremental_maps.insert(8, "junk".into());
        assert!(h.handle(&broken).is_err());
        assert_eq!(h.epoch(), 7);
    }
}
