//! The replicated state: everything a monitor keeps.
//!
//! Invariants: it changes only by [`State::apply`], which looks at nothing but the proposal and the
//! state, so that every monitor that applies the same proposals has the same state; a proposal
//! that does not fit changes nothing.

pub mod config;
mod creating;
pub mod health;
pub mod log;
mod maps;
mod proposal;
mod purged;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{EntityAuth, Keyring, RotatingSecrets};
use spirula_maps::{ApplyError as MapError, MgrMap, MonMap, OsdMap, SnapIntervals};
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::{EntityNameStr, EntityType, PgId, Uuid};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::storage::FIRST_NODE;

pub use config::ConfigDb;
pub use creating::Creating;
pub use health::Mute;
pub use log::ClusterLog;
pub use maps::{MgrState, MonMapState, OsdMaps};
pub use proposal::{Change, FORMAT_VERSION, Proposal};

/// Everything that monitors agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Proposals applied so far.
    pub version: u64,
    /// Time of the last one.
    pub stamp: Duration,
    pub fsid: Uuid,
    pub osd: OsdMaps,
    pub monmap: MonMapState,
    /// Number in the quorum -> name. A monitor that lost its store comes back under a new number,
    /// since nobody knows how the old one voted.
    pub members: BTreeMap<u64, String>,
    pub mgr: MgrState,
    pub auth: AuthDb,
    pub config: ConfigDb,
    pub keys: BTreeMap<String, Bytes>,
    pub log: ClusterLog,
    pub mutes: BTreeMap<String, Mute>,
    /// Daemon (`osd.0`) -> what it says about itself.
    pub metadata: BTreeMap<String, BTreeMap<String, String>>,
    /// Pool -> snapshots that were removed and are gone from every PG, with the ids that removals
    /// took. They are in no map any more.
    pub purged_snaps: BTreeMap<i64, SnapIntervals>,
    /// PGs of older pools that are still to be made.
    pub creating: BTreeMap<PgId, Creating>,
}

/// Entities, secrets and the global ids that may be in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthDb {
    pub keyring: Keyring,
    /// By service (`EntityType`).
    pub rotating: BTreeMap<u8, RotatingSecrets>,
    pub max_global_id: u64,
}

/// Why a proposal does not fit the state.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    #[error("OSD map: {0}")]
    OsdMap(#[from] MapError),
    #[error("{what} map of epoch {found} after {current}")]
    Epoch { what: &'static str, current: u32, found: u32 },
    #[error("undecodable: {0}")]
    Decode(#[from] DecodeError),
}

impl AuthDb {
    pub fn get(&self, name: &EntityNameStr) -> Option<&EntityAuth> {
        self.keyring.entities.get(name)
    }
}

impl State {
    /// The state of a new cluster, before its first proposal.
    pub fn new(monmap: MonMap, osdmap: OsdMap, mgrmap: MgrMap) -> Self {
        Self {
            version: 0,
            stamp: monmap.created.into(),
            fsid: monmap.fsid,
            osd: OsdMaps::new(osdmap),
            members: members_of(&monmap),
            monmap: MonMapState::new(monmap),
            mgr: MgrState::new(mgrmap),
            auth: AuthDb::default(),
            config: ConfigDb::default(),
            keys: BTreeMap::new(),
            log: ClusterLog::default(),
            mutes: BTreeMap::new(),
            metadata: BTreeMap::new(),
            purged_snaps: BTreeMap::new(),
            creating: BTreeMap::new(),
        }
    }

    /// Applies a proposal whole, or not at all.
    pub fn apply(&mut self, proposal: &Proposal) -> Result<(), ApplyError> {
        // Maps first, on copies: they are all that can fail.
        let (mut osd, mut monmap, mut mgr) = (None, None, None);
        let mut purged = Vec::new();
        for change in &proposal.changes {
            match change {
                Change::OsdMap(bytes) => {
                    let maps = osd.get_or_insert_with(|| self.osd.clone());
                    maps.advance(bytes)?;
                    purged.extend(maps.map().new_purged_snaps.clone());
                }
                Change::MonMap(bytes) => {
                    monmap.get_or_insert_with(|| self.monmap.clone()).advance(bytes)?;
                }
                Change::MgrMap(bytes) => {
                    mgr.get_or_insert_with(|| self.mgr.clone()).advance(bytes)?;
                }
                _ => {}
            }
        }
        if let Some(osd) = &osd {
            creating::follow(&mut self.creating, self.osd.map(), osd.map());
        }
        self.osd = osd.unwrap_or_else(|| std::mem::take(&mut self.osd));
        self.monmap = monmap.unwrap_or_else(|| std::mem::take(&mut self.monmap));
        self.mgr = mgr.unwrap_or_else(|| std::mem::take(&mut self.mgr));
        for change in &proposal.changes {
            self.apply_simple(proposal.stamp, change);
        }
        for (pool, snaps) in purged {
            self.purged_snaps.entry(pool).or_default().union(&snaps);
        }
        let pools = &self.osd.map().pools;
        self.purged_snaps.retain(|pool, _| pools.contains_key(pool));
        self.version += 1;
        self.stamp = proposal.stamp;
        Ok(())
    }

    fn apply_simple(&mut self, stamp: Duration, change: &Change) {
        match change {
            Change::OsdMap(_) | Change::MonMap(_) | Change::MgrMap(_) => {}
            Change::SetAuth { name, key, caps } => {
                let auth = EntityAuth { key: key.clone(), caps: caps.clone() };
                self.auth.keyring.entities.insert(name.clone(), auth);
            }
            Change::RemoveAuth(name) => _ = self.auth.keyring.entities.remove(name),
            Change::Rotate { service, secrets } => {
                self.auth.rotating.insert(*service, secrets.clone());
            }
            Change::MaxGlobalId(id) => self.auth.max_global_id = self.auth.max_global_id.max(*id),
            Change::GlobalIds { count, .. } => {
                self.auth.max_global_id = self.auth.max_global_id.saturating_add(*count);
            }
            Change::Member { id, name } => match name {
                Some(name) => _ = self.members.insert(*id, name.clone()),
                None => _ = self.members.remove(id),
            },
            Change::Config { scope, name, value } => {
                self.config.set(stamp, scope, name, value.as_deref());
            }
            Change::Key { key, value } => match value {
                Some(value) => _ = self.keys.insert(key.clone(), value.clone()),
                None => _ = self.keys.remove(key),
            },
            Change::Log(entries) => entries.iter().for_each(|e| self.log.append(e.clone())),
            Change::Mute { code, mute } => match mute {
                Some(mute) => _ = self.mutes.insert(code.clone(), mute.clone()),
                None => _ = self.mutes.remove(code),
            },
            Change::Metadata { daemon, values } => {
                self.metadata.insert(daemon.clone(), values.clone());
            }
            Change::TrimOsdMaps(first) => self.osd.trim_to(*first),
            Change::CreatePg { pg, how } => match how {
                Some(how) => _ = self.creating.insert(*pg, *how),
                None => _ = self.creating.remove(pg),
            },
            Change::MgrCommands(json) => self.mgr.set_commands(json),
            Change::PurgedSnaps { pool, snaps } => {
                self.purged_snaps.entry(*pool).or_default().union(snaps);
            }
        }
    }

    /// Device class of an OSD.
    pub fn device_class_of(&self, name: &EntityNameStr) -> Option<String> {
        let osd: i32 = (name.type_ == EntityType::OSD).then(|| name.id.parse().ok())??;
        self.osd.map().crush.item_class(osd).map(str::to_owned)
    }

    /// `(type, name)` of the CRUSH buckets above an OSD.
    pub fn location_of(&self, name: &EntityNameStr) -> Vec<(String, String)> {
        let Some(osd) = name.id.parse().ok().filter(|_| name.type_ == EntityType::OSD) else {
            return Vec::new();
        };
        let above = self.osd.map().crush.full_location(osd);
        above.into_iter().map(|(t, n)| (t.to_owned(), n.to_owned())).collect()
    }
}

/// The numbers of a new cluster's monitors: 1, 2, .. by rank.
fn members_of(monmap: &MonMap) -> BTreeMap<u64, String> {
    (FIRST_NODE..).zip(monmap.ranks.iter().cloned()).collect()
}

/// A snapshot: every part in turn, in a versioned envelope.
impl Encode for State {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, FORMAT_VERSION, FORMAT_VERSION, |out| {
            self.version.encode(out, f);
            (self.stamp.as_nanos() as u64).encode(out, f);
            self.fsid.encode(out, f);
            self.osd.encode(out, f);
            self.monmap.encode(out, f);
            self.mgr.encode(out, f);
            (self.auth.keyring.entities.len() as u32).encode(out, f);
            for (name, auth) in &self.auth.keyring.entities {
                name.encode(out, f);
                auth.key.encode(out, f);
                auth.caps.encode(out, f);
            }
            self.auth.rotating.encode(out, f);
            self.auth.max_global_id.encode(out, f);
            self.config.encode(out, f);
            self.keys.encode(out, f);
            self.log.encode(out, f);
            self.mutes.encode(out, f);
            self.metadata.encode(out, f);
            self.purged_snaps.encode(out, f);
            self.members.encode(out, f);
            self.creating.encode(out, f);
        });
    }
}

impl Decode for State {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("monitor state", FORMAT_VERSION, |format, r| {
            let (version, stamp) = (r.u64()?, Duration::from_nanos(r.u64()?));
            let fsid = Decode::decode(r)?;
            let (osd, monmap, mgr) = (Decode::decode(r)?, Decode::decode(r)?, Decode::decode(r)?);
            let mut keyring = Keyring::default();
            for _ in 0..r.count(1, "entities")? {
                let name = Decode::decode(r)?;
                let auth = EntityAuth { key: Decode::decode(r)?, caps: Decode::decode(r)? };
                keyring.entities.insert(name, auth);
            }
            let auth = AuthDb { keyring, rotating: Decode::decode(r)?, max_global_id: r.u64()? };
            let mut state = Self {
                version,
                stamp,
                fsid,
                osd,
                monmap,
                mgr,
                auth,
                config: Decode::decode(r)?,
                keys: Decode::decode(r)?,
                log: Decode::decode(r)?,
                mutes: Decode::decode(r)?,
                metadata: Decode::decode(r)?,
                purged_snaps: if format >= 2 { Decode::decode(r)? } else { BTreeMap::new() },
                members: BTreeMap::new(),
                creating: BTreeMap::new(),
            };
            state.members = match format {
                0..3 => members_of(state.monmap.map()),
                _ => Decode::decode(r)?,
            };
            state.creating = match format {
                // Several monitors may read this at different places of their log, and would disagree.
                0..4 if state.members.len() > 1 => BTreeMap::new(),
                0..4 => creating::of_older(state.osd.map()),
                _ => Decode::decode(r)?,
            };
            Ok(state)
        })
    }
}
