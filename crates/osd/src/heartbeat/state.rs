//! Who is pinged, who answered, and who is to be reported: without clock and network.
//!
//! A peer is pinged on both networks with one stamp. A ping that both did not answer within the grace
//! makes the peer a failed one, reported since it was last heard of on the quieter network. An answer
//! takes all of that back.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use spirula_maps::OsdMap;
use spirula_wire::types::EntityAddrVec;

/// The network that a heartbeat goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    Back,
    Front,
}

impl Channel {
    pub const ALL: [Self; 2] = [Self::Back, Self::Front];
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    addrs: [EntityAddrVec; 2],
    first_tx: Option<Duration>,
    /// When it was last heard of, by channel.
    heard: [Option<Duration>; 2],
    /// Pings that were not answered on both channels: by stamp the deadline, and who has answered.
    open: BTreeMap<Duration, (Duration, [bool; 2])>,
}

impl Peer {
    fn is_late(&self, now: Duration) -> bool {
        self.open.values().next().is_some_and(|(deadline, _)| now > *deadline)
    }

    /// Since when it is silent: on both channels if it ever answered on both.
    fn silent_since(&self, now: Duration) -> Duration {
        match self.heard {
            [Some(back), Some(front)] => back.min(front),
            _ => self.first_tx.unwrap_or(now),
        }
    }
}

/// A message to the monitor about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) osd: i32,
    /// Its client addresses, which the monitor knows its process by.
    pub(super) addrs: EntityAddrVec,
    pub(super) failed_for: Duration,
}

/// The peers that this OSD watches.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    peers: BTreeMap<i32, Peer>,
    /// Silent, and not reported yet: since when.
    failed: BTreeMap<i32, Duration>,
    /// Reported.
    reported: BTreeMap<i32, Reported>,
}

#[derive(Debug)]
struct Reported {
    since: Duration,
    addrs: EntityAddrVec,
}

impl Heartbeats {
    /// Watches exactly `wanted`, as far as the map has them up; those that stay keep what is known.
    pub(super) fn follow(&mut self, map: &OsdMap, wanted: &BTreeSet<i32>) {
        let addrs_of = |osd: i32| {
            let up = map.osd(osd).filter(|o| o.is_up())?;
            Some([up.hb_back_addrs.clone(), up.hb_front_addrs.clone()])
        };
        let watched = wanted.iter().filter_map(|osd| Some((*osd, addrs_of(*osd)?)));
        let mut old = std::mem::take(&mut self.peers);
        for (osd, addrs) in watched {
            let kept = old.remove(&osd).filter(|peer| peer.addrs == addrs);
            let fresh = || Peer { addrs, first_tx: None, heard: [None; 2], open: BTreeMap::new() };
            self.peers.insert(osd, kept.unwrap_or_else(fresh));
        }
        self.failed.retain(|osd, _| self.peers.contains_key(osd));
        self.reported.retain(|osd, reported| map.client_addrs(*osd) == Some(&reported.addrs));
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = i32> {
        self.peers.keys().copied()
    }

    /// Where a peer takes heartbeats.
    pub(super) fn addrs(&self, osd: i32, channel: Channel) -> Option<&EntityAddrVec> {
        self.peers.get(&osd).map(|peer| &peer.addrs[channel as usize])
    }

    /// A ping with stamp `now` goes to each peer.
    pub(super) fn pinged(&mut self, now: Duration, grace: Duration) {
        for peer in self.peers.values_mut() {
            peer.first_tx.get_or_insert(now);
            peer.open.insert(now, (now + grace, [false; 2]));
        }
    }

    /// A peer answered the ping with this stamp. If it had been reported: what to take back.
    pub(super) fn answered(
        &mut self,
        now: Duration,
        osd: i32,
        channel: Channel,
        stamp: Duration,
    ) -> Option<Report> {
        let peer = self.peers.get_mut(&osd)?;
        let (_, answered) = peer.open.get_mut(&stamp)?;
        answered[channel as usize] = true;
        let done = *answered == [true; 2];
        peer.heard[channel as usize] = Some(now);
        if done {
            // Earlier ones are as good as answered.
            peer.open = peer.open.split_off(&stamp);
            peer.open.remove(&stamp);
        }
        if peer.is_late(now) {
            return None;
        }
        self.failed.remove(&osd);
        let Reported { since, addrs } = self.reported.remove(&osd)?;
        Some(Report { osd, addrs, failed_for: now.saturating_sub(since) })
    }

    /// This process did not run for a while: silence in that time means nothing.
    pub(super) fn forget_silence(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.open.clear());
    }

    /// Looks who is late, and returns what the monitor does not know yet.
    pub(super) fn check(&mut self, now: Duration, map: &OsdMap) -> Vec<Report> {
        for (osd, peer) in &self.peers {
            if peer.is_late(now) {
                self.failed.insert(*osd, peer.silent_since(now));
            }
        }
        let mut reports = Vec::new();
        for (osd, since) in std::mem::take(&mut self.failed) {
            let Some(addrs) = map.client_addrs(osd).filter(|_| map.is_up(osd)) else {
                continue;
            };
            if let Entry::Vacant(unknown) = self.reported.entry(osd) {
                unknown.insert(Reported { since, addrs: addrs.clone() });
                let failed_for = now.saturating_sub(since);
                reports.push(Report { osd, addrs: addrs.clone(), failed_for });
            }
        }
        reports
    }

    /// The session with the monitor is a new one: reports on the old one may be lost.
    pub(super) fn report_again(&mut self) {
        for (osd, reported) in std::mem::take(&mut self.reported) {
            self.failed.insert(osd, reported.since);
        }
    }
}

/// How many peers there should be, and how different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice<'a> {
    /// `osd_heartbeat_min_peers`.
    pub(super) peers_min: usize,
    /// `mon_osd_min_down_reporters`: so many subtrees have to be among them.
    pub(super) subtrees_min: usize,
    /// `mon_osd_reporter_subtree_level`.
    pub(super) level: &'a str,
}

/// Whom an OSD watches: those it shares PGs with, its neighbours by id, OSDs of enough other subtrees
/// to be believed by the monitor, and more by id until there are enough.
pub(super) fn choose(
    map: &OsdMap,
    me: i32,
    of_pgs: impl IntoIterator<Item = i32>,
    choice: Choice<'_>,
) -> BTreeSet<i32> {
    let up: Vec<i32> = map.existing_osds().filter(|(_, o)| o.is_up()).map(|(id, _)| id).collect();
    let (before, after): (Vec<i32>, Vec<i32>) =
        up.iter().copied().filter(|id| *id != me).partition(|id| *id < me);
    let around: Vec<i32> = after.into_iter().chain(before).collect();
    let mut chosen: BTreeSet<i32> = of_pgs.into_iter().filter(|id| around.contains(id)).collect();
    chosen.extend(around.first());
    chosen.extend(around.last());
    let subtree = |osd: i32| {
        let above = map.crush.full_location(osd);
        let found = above.into_iter().find(|(level, _)| *level == choice.level);
        found.map_or_else(|| format!("osd.{osd}"), |(_, name)| name.to_owned())
    };
    let mine = subtree(me);
    let mut subtrees: BTreeSet<String> = chosen.iter().map(|osd| subtree(*osd)).collect();
    subtrees.remove(&mine);
    for osd in &around {
        if subtrees.len() >= choice.subtrees_min {
            break;
        }
        let at = subtree(*osd);
        if at != mine && subtrees.insert(at) {
            chosen.insert(*osd);
        }
    }
    for osd in around {
        if chosen.len() >= choice.peers_min {
            break;
        }
        chosen.insert(osd);
    }
    chosen
}

/// How often the map called this process dead while it lived.
#[derive(Debug, Default)]
pub(super) struct Markdowns(VecDeque<Duration>);

impl Markdowns {
    /// It did so again; whether that is more than `max` times within `period`.
    pub(super) fn again(&mut self, now: Duration, max: usize, period: Duration) -> bool {
        self.0.push_back(now);
        while self.0.front().is_some_and(|at| now.saturating_sub(*at) > period) {
            self.0.pop_front();
        }
        self.0.len() > max
    }
}

#[cfg(test)]
mod tests {
    use spirula_maps::{Osd, WEIGHT_IN, osd_state};
    use spirula_wire::types::EntityAddr;

    use super::*;

    const GRACE: Duration = Duration::from_secs(20);

    fn at(secs: u64) -> Duration {
        Duration::from_secs(1000 + secs)
    }

    fn addr(port: u16) -> EntityAddrVec {
        EntityAddr::msgr2(([10, 0, 0, 1], port).into(), 1).into()
    }

    fn map(up: &[i32]) -> OsdMap {
        let mut map = OsdMap { epoch: 5, ..OsdMap::default() };
        let count = up.iter().max().map_or(0, |id| id + 1);
        for id in 0..count {
            let state = if up.contains(&id) { osd_state::UP | osd_state::EXISTS } else { 0 };
            map.osds.push(Osd {
                state,
                weight: WEIGHT_IN,
                client_addrs: addr(7000 + id as u16),
                hb_back_addrs: addr(7100 + id as u16),
                hb_front_addrs: addr(7200 + id as u16),
                ..Osd::default()
            });
        }
        map
    }

    fn watching(map: &OsdMap) -> Heartbeats {
        let mut beats = Heartbeats::default();
        beats.follow(map, &[1, 2].into());
        beats
    }

    fn report(osd: i32, secs: u64) -> Report {
        let addrs = addr(7000 + osd as u16);
        Report { osd, addrs, failed_for: Duration::from_secs(secs) }
    }

    #[test]
    fn silence_on_one_channel_is_enough_and_is_reported_once() {
        let map = map(&[0, 1, 2]);
        let mut beats = watching(&map);
        for ping in [0, 6, 12, 18, 24] {
            beats.pinged(at(ping), GRACE);
            assert_eq!(beats.answered(at(ping + 1), 1, Channel::Back, at(ping)), None);
            assert_eq!(beats.answered(at(ping + 1), 1, Channel::Front, at(ping)), None);
            assert_eq!(beats.answered(at(ping + 1), 2, Channel::Back, at(ping)), None);
        }
        assert_eq!(beats.check(at(20), &map), []);
        // It never answered in front: since the first ping.
        assert_eq!(beats.check(at(25), &map), [report(2, 25)]);
        assert_eq!(beats.check(at(26), &map), []);
        beats.report_again();
        assert_eq!(beats.check(at(30), &map), [report(2, 30)]);
        // Old answers do not help, those to the newest ping do.
        assert_eq!(beats.answered(at(31), 2, Channel::Front, at(0)), None);
        let back = beats.answered(at(32), 2, Channel::Front, at(24));
        assert_eq!(back, Some(report(2, 32)));
        assert_eq!(beats.check(at(33), &map), []);
    }

    #[test]
    fn a_peer_that_was_heard_is_silent_since_then() {
        let map = map(&[0, 1, 2]);
        let mut beats = watching(&map);
        beats.pinged(at(0), GRACE);
        for channel in Channel::ALL {
            assert_eq!(beats.answered(at(1), 2, channel, at(0)), None);
            assert_eq!(beats.answered(at(1), 1, channel, at(0)), None);
        }
        beats.pinged(at(6), GRACE);
        assert_eq!(beats.check(at(27), &map), [report(1, 26), report(2, 26)]);
        // Pause of this very process.
        let mut beats = watching(&map);
        beats.pinged(at(0), GRACE);
        beats.forget_silence();
        assert_eq!(beats.check(at(100), &map), []);
    }

    #[test]
    fn a_new_process_starts_afresh_and_the_dead_are_forgotten() {
        let mut map = map(&[0, 1, 2]);
        let mut beats = watching(&map);
        beats.pinged(at(0), GRACE);
        assert_eq!(beats.check(at(30), &map).len(), 2);
        map.osds[2].hb_back_addrs = addr(9999);
        map.osds[2].client_addrs = addr(9998);
        map.osds[1].state = osd_state::EXISTS;
        beats.follow(&map, &[1, 2].into());
        assert_eq!(beats.peers().collect::<Vec<_>>(), [2]);
        assert_eq!(beats.check(at(31), &map), []);
        beats.report_again();
        assert_eq!(beats.check(at(31), &map), []);
    }

    #[test]
    fn enough_peers_are_chosen() {
        let choice = |peers_min| Choice { peers_min, subtrees_min: 2, level: "host" };
        let check = |up: &[i32], pgs: &[i32], peers_min, want: &[i32]| {
            let found = choose(&map(up), 3, pgs.iter().copied(), choice(peers_min));
            assert_eq!(found.into_iter().collect::<Vec<_>>(), want, "{up:?} {pgs:?}");
        };
        check(&[3], &[], 10, &[]);
        check(&[0, 1, 2, 3, 4], &[], 10, &[0, 1, 2, 4]);
        // Neighbours in the ring.
        check(&[0, 1, 2, 3], &[], 2, &[0, 2]);
        check(&[1, 3, 5, 6, 7, 8], &[], 2, &[1, 5]);
        check(&[1, 3, 5, 6, 7, 8], &[7, 2, 3], 2, &[1, 5, 7]);
        check(&[1, 3, 5, 6, 7, 8], &[], 4, &[1, 5, 6, 7]);
    }

    #[test]
    fn flapping_is_noticed() {
        let mut markdowns = Markdowns::default();
        let period = Duration::from_secs(600);
        let again: Vec<bool> = [0, 10, 20, 700, 710, 720, 730, 740, 750]
            .map(|t| markdowns.again(at(t), 5, period))
            .into();
        assert_eq!(again[..8], [false; 8]);
        assert!(again[8]);
    }
}
