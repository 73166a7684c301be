//! What the monitor knows and does not keep: who is connected, who was heard of when, and the
//! manager's latest statistics. It is gone after a restart and comes back by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use spirula_maps::PgMapDigest;
use spirula_wire::msg::mgr::{HealthChecks, ProgressEvent};
use spirula_wire::types::{EntityAddrVec, EntityNameStr, EntityType, PgId};

use crate::Now;
use crate::service::Clocks;

#[derive(Debug, Default)]
pub struct Live {
    /// This monitor.
    pub name: String,
    pub addrs: EntityAddrVec,
    /// What this monitor says about itself, as `mon metadata` shows it.
    pub metadata: BTreeMap<String, String>,
    /// When this monitor began to serve.
    pub started: Now,
    /// When it began to lead: silence counts from then.
    pub leading_since: Duration,
    pub quorum: QuorumView,
    /// The other monitors' clocks, if this one leads.
    pub clocks: Clocks,
    /// The manager's last report.
    pub digest: PgMapDigest,
    /// Reports so far.
    pub digest_version: u64,
    /// Health checks of the manager.
    pub mgr_checks: HealthChecks,
    /// Encoded service map of the manager.
    pub service_map: Bytes,
    pub progress: BTreeMap<String, ProgressEvent>,
    /// All checks as of the last look, mutes not applied.
    pub checks: HealthChecks,
    /// OSD -> when it was heard of last.
    pub osd_seen: BTreeMap<i32, Duration>,
    /// OSD that is up -> the epoch of the map that it had.
    pub osd_epochs: BTreeMap<i32, u32>,
    /// Pool that is being made -> its PGs that are active.
    pub created: BTreeMap<i64, BTreeSet<u32>>,
    /// When primaries were told last of PGs to be made.
    pub told_creating: Duration,
    /// PG -> the last epoch at which it was clean, by its primary.
    pub last_clean: BTreeMap<PgId, u32>,
    /// OSD -> since when it has had no session.
    pub osd_gone: BTreeMap<i32, Duration>,
    /// OSD that is down, but in -> since when, as far as this monitor knows.
    pub osd_down: BTreeMap<i32, Duration>,
    /// Failed OSD -> reporting OSD -> since when.
    pub failures: BTreeMap<i32, BTreeMap<i32, FailureReport>>,
    /// Manager's global id -> when it was heard of last.
    pub mgr_seen: BTreeMap<u64, Duration>,
    /// Open sessions, for `features` and `sessions`.
    pub peers: BTreeMap<u64, PeerInfo>,
}

/// The quorum as this monitor knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumView {
    pub state: MonState,
    /// Counts elections as Ceph does.
    pub epoch: u32,
    pub leader: String,
    /// Monitors in it, by rank; empty without a quorum.
    pub names: Vec<String>,
    /// Since when these, on the monotonic clock.
    pub since: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MonState {
    #[default]
    Electing,
    Leader,
    Peon,
}

impl MonState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Electing => "electing",
            Self::Leader => "leader",
            Self::Peon => "peon",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureReport {
    pub since: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    pub name: EntityNameStr,
    pub global_id: u64,
    pub features: u64,
    pub addrs: EntityAddrVec,
}

impl Live {
    /// What an earlier leadership knew of daemons is too old to count.
    pub fn forget_daemons(&mut self) {
        self.osd_seen.clear();
        self.osd_gone.clear();
        self.osd_epochs.clear();
        self.last_clean.clear();
        self.failures.clear();
        self.mgr_seen.clear();
    }

    /// Connected peers of a type, counted by feature bits.
    pub fn features_of(&self, type_: EntityType) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for peer in self.peers.values().filter(|p| p.name.type_ == type_) {
            *counts.entry(peer.features).or_insert(0) += 1;
        }
        counts
    }
}
