//! Following the cluster's OSDMap by the messages of monitors and OSDs.
//!
//! Invariants: the epoch never goes back; a map of another cluster, or one that does not decode or
//! whose checksum does not fit, is never in force; every message ends the loop.

use std::sync::Arc;

use bytes::Bytes;
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::{Decode as _, DecodeError, Features};

use crate::osdmap::{ApplyError, Incremental, OsdMap};

/// Why a map was not taken. Whoever sent it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    #[error("OSDMap of another cluster")]
    OtherCluster,
    #[error("OSDMap of epoch {epoch}: {source}")]
    Decode { epoch: u32, source: DecodeError },
    #[error("OSDMap of epoch {epoch}: {source}")]
    Apply { epoch: u32, source: ApplyError },
    #[error("OSDMap of epoch {epoch} has checksum {ours:#010x}, the monitor's {theirs:#010x}")]
    Checksum { epoch: u32, ours: u32, theirs: u32 },
    #[error("OSDMap of epoch {found} was sent as that of epoch {epoch}")]
    Epoch { epoch: u32, found: u32 },
}

/// What came of one message.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Followed {
    /// There is a newer map than before.
    pub advanced: bool,
    /// A whole map was taken: nothing leads from the map before to the present one.
    pub jumped: bool,
    /// The increments that were applied, since the jump if there was one.
    pub steps: Vec<(u32, Bytes)>,
    /// Every map that came into force, oldest first.
    pub maps: Vec<Arc<OsdMap>>,
    /// The message did not lead to its end: ask a monitor for maps from this epoch on; 0 asks for a
    /// whole map.
    pub ask: Option<u32>,
    /// The last map that was not taken.
    pub error: Option<FollowError>,
}

/// The newest OSDMap that is known.
#[derive(Clone, Debug, Default)]
pub struct OsdMapFollower {
    map: Arc<OsdMap>,
    verify: bool,
}

impl OsdMapFollower {
    /// For clients: every encoding's own checksum is looked at.
    pub fn new() -> Self {
        Self::default()
    }

    /// For daemons of the monitor's own release: after each increment, the encoding of the whole
    /// map must also be the monitor's. Between releases it need not be.
    pub fn verifying() -> Self {
        Self { verify: true, ..Self::default() }
    }

    /// The map in force, of epoch 0 as long as there is none.
    pub fn current(&self) -> &Arc<OsdMap> {
        &self.map
    }

    /// The map in force.
    pub fn map(&self) -> Option<&Arc<OsdMap>> {
        (self.map.epoch > 0).then_some(&self.map)
    }

    pub fn epoch(&self) -> u32 {
        self.map.epoch
    }

    /// Where to ask a monitor for newer maps from; 0 asks for a whole map.
    pub fn next(&self) -> u32 {
        match self.epoch() {
            0 => 0,
            epoch => epoch.saturating_add(1),
        }
    }

    /// Goes on as far as `message` leads, by increments where they follow one another.
    pub fn handle(&mut self, message: &OsdMapMsg) -> Followed {
        let (before, mut done) = (self.epoch(), Followed::default());
        if before > 0 && message.fsid != self.map.fsid {
            done.error = Some(FollowError::OtherCluster);
            return done;
        }
        let newest = message.maps.keys().chain(message.incremental_maps.keys()).max().copied();
        while Some(self.epoch()) < newest {
            if !(self.step(message, &mut done) || self.jump(message, &mut done)) {
                done.ask = self.want(message, &done);
                break;
            }
        }
        done.advanced = self.epoch() > before;
        done
    }

    /// What to ask for where `message` leads no further.
    fn want(&self, message: &OsdMapMsg, done: &Followed) -> Option<u32> {
        match &done.error {
            None => Some(self.next()),
            Some(_) if message.maps.is_empty() => Some(0),
            // That was a whole map; asking at once for another would go on for ever.
            Some(_) => None,
        }
    }

    /// Applies the next increment, if it is there and good.
    fn step(&mut self, message: &OsdMapMsg, done: &mut Followed) -> bool {
        let Some(epoch) = self.epoch().checked_add(1).filter(|&epoch| epoch > 1) else {
            return false;
        };
        let Some(raw) = message.incremental_maps.get(&epoch) else {
            return false;
        };
        match self.applied(epoch, raw) {
            Ok(map) => {
                self.map = Arc::new(map);
                done.steps.push((epoch, raw.clone()));
                done.maps.push(self.map.clone());
                true
            }
            Err(error) => {
                done.error = Some(error);
                false
            }
        }
    }

    fn applied(&self, epoch: u32, raw: &[u8]) -> Result<OsdMap, FollowError> {
        let decode = |source| FollowError::Decode { epoch, source };
        let inc = Incremental::from_bytes(raw).map_err(decode)?;
        let mut map = OsdMap::clone(&self.map);
        map.apply(&inc).map_err(|source| FollowError::Apply { epoch, source })?;
        check(&map, &self.map, epoch)?;
        if self.verify {
            let (_, ours) = map.encode_with_crc(Features(inc.encode_features));
            if ours != inc.full_crc {
                return Err(FollowError::Checksum { epoch, ours, theirs: inc.full_crc });
            }
            map.crc = Some(ours);
        }
        Ok(map)
    }

    /// Takes the newest good whole map beyond the present one, if there is any.
    fn jump(&mut self, message: &OsdMapMsg, done: &mut Followed) -> bool {
        let Some(next) = self.epoch().checked_add(1) else {
            return false;
        };
        for (&epoch, raw) in message.maps.range(next..).rev() {
            let map = OsdMap::from_bytes(raw)
                .map_err(|source| FollowError::Decode { epoch, source })
                .and_then(|map| check(&map, &self.map, epoch).map(|()| map));
            match map {
                Ok(map) => {
                    self.map = Arc::new(map);
                    done.maps.push(self.map.clone());
                    done.steps.clear();
                    done.jumped = true;
                    return true;
                }
                Err(error) => done.error = Some(error),
            }
        }
        false
    }
}

/// Whether `map` is what follows `old` as `epoch`.
fn check(map: &OsdMap, old: &OsdMap, epoch: u32) -> Result<(), FollowError> {
    if map.epoch != epoch {
        return Err(FollowError::Epoch { epoch, found: map.epoch });
    }
    match old.epoch > 0 && map.fsid != old.fsid {
        true => Err(FollowError::OtherCluster),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use spirula_wire::Encode as _;
    use spirula_wire::types::{UTime, Uuid};

    use super::*;

    const F: Features = Features::PACIFIC;

    fn full(epoch: u32) -> Bytes {
        OsdMap { epoch, ..OsdMap::default() }.to_bytes(F).into()
    }

    /// An increment that changes nothing, with the checksum of the map it leads to.
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

    fn at(epoch: u32) -> OsdMapFollower {
        let mut follower = OsdMapFollower::verifying();
        assert!(follower.handle(&message(&[epoch], 0..0)).jumped);
        follower
    }

    #[test]
    fn increments_need_a_map_to_start_from() {
        let mut follower = OsdMapFollower::verifying();
        assert_eq!((follower.map(), follower.next()), (None, 0));
        let done = follower.handle(&message(&[], 1..5));
        assert_eq!((done.advanced, done.ask, done.error), (false, Some(0), None));
        let done = follower.handle(&message(&[3], 1..6));
        assert_eq!((done.advanced, done.jumped, done.ask), (true, true, None));
        assert_eq!(done.steps.iter().map(|s| s.0).collect::<Vec<_>>(), [4, 5]);
        assert_eq!((follower.epoch(), follower.next()), (5, 6));
        assert_eq!(follower.handle(&message(&[3], 1..6)), Followed::default());
    }

    #[test]
    fn a_gap_asks_for_what_follows_and_a_whole_map_crosses_it() {
        let mut follower = at(2);
        let done = follower.handle(&message(&[], 3..4));
        assert_eq!((done.advanced, done.jumped, done.steps.len()), (true, false, 1));
        let done = follower.handle(&message(&[], 6..8));
        assert_eq!((done.advanced, done.ask), (false, Some(4)));
        let done = follower.handle(&message(&[5, 7], 6..9));
        assert_eq!((done.jumped, done.steps.len(), follower.epoch()), (true, 1, 8));
    }

    #[test]
    fn a_bad_increment_asks_for_a_whole_map() {
        let mut follower = at(2);
        let mut broken = message(&[], 3..5);
        broken.incremental_maps.insert(4, "junk".into());
        let done = follower.handle(&broken);
        assert_eq!((done.advanced, done.ask, follower.epoch()), (true, Some(0), 3));
        assert!(matches!(done.error, Some(FollowError::Decode { epoch: 4, .. })));
        // A whole map in the same message makes good for it.
        broken.maps.insert(5, full(5));
        let done = follower.handle(&broken);
        assert_eq!((done.jumped, done.ask, follower.epoch()), (true, None, 5));
        // Under the number of another.
        broken.incremental_maps.insert(6, step(7));
        assert_eq!(follower.handle(&broken).ask, None);
        assert_eq!(follower.epoch(), 5);
    }

    #[test]
    fn a_bad_whole_map_is_not_asked_for_again() {
        let mut follower = at(2);
        let mut broken = message(&[], 0..0);
        broken.maps.insert(9, full(2));
        let done = follower.handle(&broken);
        assert_eq!((done.advanced, done.ask), (false, None));
        assert_eq!(done.error, Some(FollowError::Epoch { epoch: 9, found: 2 }));
        broken.maps.insert(4, full(4));
        assert!(follower.handle(&broken).jumped);
        assert_eq!(follower.epoch(), 4);
    }

    #[test]
    fn a_map_that_is_not_the_monitors_is_not_taken() {
        let mut inc = Incremental::new(Uuid::default(), 3, UTime::default());
        inc.full_crc = 7;
        let other = OsdMapMsg {
            incremental_maps: [(3, inc.to_bytes(F).into())].into(),
            ..OsdMapMsg::default()
        };
        let mut follower = at(2);
        let done = follower.handle(&other);
        assert!(matches!(done.error, Some(FollowError::Checksum { epoch: 3, theirs: 7, .. })));
        assert_eq!((done.ask, follower.epoch()), (Some(0), 2));
        // A client's own encoding may differ.
        let mut client = OsdMapFollower::new();
        client.handle(&message(&[2], 0..0));
        assert!(client.handle(&other).advanced);
    }

    #[test]
    fn other_clusters_are_ignored() {
        let mut follower = at(2);
        let foreign = OsdMap { epoch: 9, fsid: Uuid([9; 16]), ..OsdMap::default() };
        let mut sent = message(&[], 0..0);
        sent.maps.insert(9, foreign.to_bytes(F).into());
        for fsid in [foreign.fsid, Uuid::default()] {
            sent.fsid = fsid;
            let done = follower.handle(&sent);
            assert_eq!((done.error, done.ask), (Some(FollowError::OtherCluster), None));
        }
        assert_eq!(follower.epoch(), 2);
    }
}
