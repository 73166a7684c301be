//! A new cluster: its identity, first maps and keys; and opening one that exists.
//!
//! The first OSD map may hold the OSDs already, so that a cluster on one host needs one epoch per
//! OSD to be ready, and placement never moves while they boot.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use spirula_auth::{CryptoKey, EntityAuth};
use spirula_maps::{MgrMap, MonMap, NewCluster, OsdMap, PgPool, pool_flags};
use spirula_wire::types::{EntityAddrVec, EntityNameStr, EntityType, UTime, Uuid};
use spirula_wire::{Decode, DecodeError, Encode, Features};

use crate::Now;
use crate::limits::GLOBAL_IDS_STEP;
use crate::options::Settings;
use crate::service::rotation;
use crate::state::{ApplyError, Change, Proposal, State};
use crate::storage::{FIRST_NODE, FIRST_TERM, Snapshot, Storage, StorageError, Stored, Write};

const F: Features = Features::PACIFIC;
/// CRUSH weight 1 is this many bytes.
const BYTES_PER_WEIGHT: f64 = (1u64 << 40) as f64;

/// What a new cluster begins with.
#[derive(Clone, Debug)]
pub struct MkfsConfig {
    pub fsid: Uuid,
    /// Monitors by rank, with their addresses.
    pub mons: Vec<(String, EntityAddrVec)>,
    /// Host that the OSDs are on, as CRUSH names it.
    pub hostname: String,
    /// Key of `client.admin`.
    pub admin_key: CryptoKey,
    /// Managers by name.
    pub mgrs: Vec<(String, CryptoKey)>,
    /// OSDs 0, 1, .. that exist from the start.
    pub osds: Vec<NewOsd>,
    pub device_class: String,
    pub pools: Vec<NewPoolSpec>,
    /// Options from the configuration file.
    pub options: BTreeMap<String, String>,
    /// Source of the other keys.
    pub seed: [u8; 32],
}

#[derive(Clone, Debug)]
pub struct NewOsd {
    pub uuid: Uuid,
    pub key: CryptoKey,
    /// Size of its device, from which its CRUSH weight follows.
    pub bytes: u64,
}

/// A pool that is there from the start.
#[derive(Clone, Debug)]
pub struct NewPoolSpec {
    pub name: String,
    pub pg_num: u32,
    pub application: String,
}

/// Why a cluster could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the first CRUSH map: {0}")]
    Crush(#[from] spirula_crush::EditError),
    #[error("the monitor store holds no cluster; create one first (mkfs)")]
    Empty,
    #[error("the monitor store does not decode ({0}): it is damaged or of another release")]
    Decode(#[from] DecodeError),
    #[error(
        "proposal {version} of the monitor store does not apply ({error}): the store is damaged"
    )]
    Replay { version: u64, error: ApplyError },
    #[error("the monitor store belongs to cluster {found}, not to {expected}")]
    OtherCluster { found: Uuid, expected: Uuid },
    #[error("mon.{0} is not in the monitor map of the new cluster")]
    Stranger(String),
}

/// Makes a new cluster in empty storage and returns its first state.
pub fn mkfs(config: &MkfsConfig, now: Now, storage: &mut dyn Storage) -> Result<State, MkfsError> {
    let mut rng = ChaCha20Rng::from_seed(config.seed);
    let settings = Settings::new(&config.options);
    let stamp = UTime::from(now.wall);
    let mut monmap = MonMap::new(config.fsid, stamp);
    monmap.epoch = 1;
    for (name, addrs) in &config.mons {
        monmap.add(name, addrs.clone());
    }
    let mgrmap = MgrMap { epoch: 1, ..MgrMap::default() };
    let mut state = State::new(monmap, first_osdmap(config, &settings, stamp)?, mgrmap);

    let mut changes = entities(config, now, &mut rng);
    changes.extend(rotation(&state.auth, &settings, now, &mut rng));
    changes.push(Change::MaxGlobalId(4096 + GLOBAL_IDS_STEP));
    // As Ceph does for new clusters, in which no client is too old for it.
    changes.push(Change::Config {
        scope: crate::state::config::Scope { section: "mon".into(), mask: String::new() },
        name: "auth_allow_insecure_global_id_reclaim".into(),
        value: Some("false".into()),
    });
    let proposal = Proposal::new(now.wall, changes);
    state.apply(&proposal).map_err(|error| MkfsError::Replay { version: 1, error })?;
    start(&state, FIRST_NODE, storage)?;
    Ok(state)
}

/// Makes the store of another of a new cluster's monitors, of which `state` is the first state.
pub fn mkfs_peer(state: &State, name: &str, storage: &mut dyn Storage) -> Result<(), MkfsError> {
    let node = state.members.iter().find(|(_, n)| *n == name).map(|(id, _)| *id);
    start(state, node.ok_or_else(|| MkfsError::Stranger(name.to_owned()))?, storage)
}

/// Makes the store of a monitor that joins a cluster, in place of one that was lost or as another:
/// it knows where the others are and the key that they share, and takes the rest over from them.
/// `seed` gives it a number that no monitor ever had.
pub fn mkfs_join(
    monmap: MonMap,
    mon_key: CryptoKey,
    now: Now,
    seed: [u8; 32],
    storage: &mut dyn Storage,
) -> Result<(), MkfsError> {
    let mut rng = ChaCha20Rng::from_seed(seed);
    let node = rng.next_u64() >> 1;
    let osdmap = OsdMap { fsid: monmap.fsid, ..OsdMap::default() };
    let mut state = State::new(monmap, osdmap, MgrMap::default());
    state.members.clear();
    let caps = [("mon".to_owned(), "allow *".to_owned())].into();
    let name = EntityNameStr::new(EntityType::MON, "");
    state.auth.keyring.entities.insert(name, EntityAuth { key: mon_key, caps });
    // The others must be let in; these secrets are for nothing else and go with this state.
    for change in rotation(&state.auth, &Settings::new(&BTreeMap::new()), now, &mut rng) {
        if let Change::Rotate { service, secrets } = change {
            state.auth.rotating.insert(service, secrets);
        }
    }
    let snapshot = Snapshot { state: state.to_bytes(F).into(), ..Snapshot::default() };
    storage.write(&[Write::Node(node), Write::Snapshot(snapshot)])?;
    Ok(())
}

fn start(state: &State, node: u64, storage: &mut dyn Storage) -> Result<(), MkfsError> {
    let snapshot = Snapshot {
        index: state.version,
        term: FIRST_TERM,
        members: state.members.keys().copied().collect(),
        state: state.to_bytes(F).into(),
    };
    let vote = Write::Vote { term: FIRST_TERM, vote: None };
    storage.write(&[Write::Node(node), vote, Write::Snapshot(snapshot)])?;
    Ok(())
}

/// Opens a store: the state of its snapshot, and all of it. What follows the snapshot is applied
/// once the quorum says that it was committed.
pub fn open(
    storage: &mut dyn Storage,
    expected: Option<Uuid>,
) -> Result<(State, Stored), MkfsError> {
    let stored = storage.load()?;
    let snapshot = stored.snapshot.as_ref().ok_or(MkfsError::Empty)?;
    let state = State::from_bytes(&snapshot.state)?;
    if let Some(expected) = expected.filter(|e| *e != state.fsid) {
        return Err(MkfsError::OtherCluster { found: state.fsid, expected });
    }
    for (index, entry) in (snapshot.index + 1..).zip(&stored.log) {
        if entry.index != index {
            return Err(StorageError::Gap { last: index - 1, found: entry.index }.into());
        }
        if !entry.config && !entry.data.is_empty() {
            Proposal::from_bytes(&entry.data)?;
        }
    }
    Ok((state, stored))
}

/// The newest monitor map that a store holds. The log may have one, committed or not, that the
/// snapshot's state has not: a monitor must find itself and the others by it before it can learn
/// what was committed.
pub(crate) fn newest_monmap(state: &State, stored: &Stored) -> MonMap {
    let proposals = stored.log.iter().rev().filter(|e| !e.config && !e.data.is_empty());
    let changes =
        proposals.filter_map(|e| Proposal::from_bytes(&e.data).ok()).flat_map(|p| p.changes);
    let mut maps = changes.filter_map(|change| match change {
        Change::MonMap(bytes) => MonMap::from_bytes(&bytes).ok(),
        _ => None,
    });
    maps.next().unwrap_or_else(|| state.monmap.map().clone())
}

/// Where a monitor is: one that was just taken out of the map was where it is.
pub fn addrs_of(state: &State, stored: &Stored, name: &str) -> EntityAddrVec {
    match newest_monmap(state, stored).mons.remove(name) {
        Some(mon) => mon.public_addrs,
        None => state.monmap.addrs_of(name),
    }
}

fn first_osdmap(config: &MkfsConfig, settings: &Settings, now: UTime) -> Result<OsdMap, MkfsError> {
    let weight = |bytes: u64| (bytes as f64 / BYTES_PER_WEIGHT * 65_536.0).max(1.0) as u32;
    let domain = match settings.int("osd_crush_chooseleaf_type") {
        0 => "osd",
        _ => "host",
    };
    let cluster = NewCluster {
        osds: config.osds.iter().map(|o| (o.uuid, weight(o.bytes))).collect(),
        host: config.hostname.split('.').next().unwrap_or("localhost").to_owned(),
        device_class: config.device_class.clone(),
        failure_domain: domain.to_owned(),
        ..NewCluster::new(config.fsid, now)
    };
    let mut map = cluster.osdmap()?;
    map.last_in_change = now;
    map.full_ratio = settings.float("mon_osd_full_ratio") as f32;
    map.backfillfull_ratio = settings.float("mon_osd_backfillfull_ratio") as f32;
    map.nearfull_ratio = settings.float("mon_osd_nearfull_ratio") as f32;
    let words = settings.str("osd_pool_default_erasure_code_profile").split_whitespace();
    let profile =
        words.filter_map(|w| w.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    map.erasure_code_profiles = [("default".to_owned(), profile.collect())].into();
    let size = settings.int("osd_pool_default_size").clamp(1, 10) as u8;
    for (id, spec) in (1..).zip(&config.pools) {
        let mut pool = PgPool::replicated(size, (size - size / 2).max(1), spec.pg_num, 0);
        pool.create_time = now;
        pool.last_change = map.epoch;
        pool.flags |= pool_flags::CREATING;
        if !spec.application.is_empty() {
            pool.application_metadata.insert(spec.application.clone(), BTreeMap::new());
        }
        map.pools.insert(id, pool);
        map.pool_names.insert(id, spec.name.clone());
        map.pool_max = id as i32;
    }
    Ok(map)
}

/// The keys of a new cluster.
fn entities(config: &MkfsConfig, now: Now, rng: &mut ChaCha20Rng) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |type_: EntityType, id: &str, key: CryptoKey, caps: &[(&str, &str)]| {
        let caps = caps.iter().map(|(s, c)| ((*s).to_owned(), (*c).to_owned())).collect();
        let auth = EntityAuth { key, caps };
        changes.push(Change::from((EntityNameStr::new(type_, id), auth)));
    };
    let all = "allow *";
    let admin = [("mds", all), ("mgr", all), ("mon", all), ("osd", all)];
    add(EntityType::CLIENT, "admin", config.admin_key.clone(), &admin);
    add(EntityType::MON, "", CryptoKey::generate(now.wall, rng), &[("mon", all)]);
    for (name, key) in &config.mgrs {
        let caps = [("mds", all), ("mon", "allow profile mgr"), ("osd", all)];
        add(EntityType::MGR, name, key.clone(), &caps);
    }
    for (id, osd) in config.osds.iter().enumerate() {
        let caps = [("mgr", "allow profile osd"), ("mon", "allow profile osd"), ("osd", all)];
        add(EntityType::OSD, &id.to_string(), osd.key.clone(), &caps);
    }
    for name in ["mds", "mgr", "osd", "rbd", "rbd-mirror", "rgw"] {
        let id = format!("bootstrap-{name}");
        let caps = format!("allow profile {id}");
        add(EntityType::CLIENT, &id, CryptoKey::generate(now.wall, rng), &[("mon", &caps)]);
    }
    changes
}
