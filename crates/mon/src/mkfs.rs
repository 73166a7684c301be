//! A new cluster: its identity, first maps and keys; and opening one that exists.
//!
//! The first OSD map may hold the OSDs already, so that a cluster on one host needs one epoch per
//! OSD to be ready, and placement never moves while they boot.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use spirula_auth::{CryptoKey, EntityAuth};
use spirula_maps::{MgrMap, MonMap, NewCluster, OsdMap, PgPool};
use spirula_wire::types::{EntityAddrVec, EntityNameStr, EntityType, UTime, Uuid};
use spirula_wire::{Decode, DecodeError, Encode, Features};

use crate::Now;
use crate::limits::GLOBAL_IDS_STEP;
use crate::options::Settings;
use crate::service::rotation;
use crate::state::{ApplyError, Change, Proposal, State};
use crate::storage::{Storage, StorageError};

const F: Features = Features::PACIFIC;
/// CRUSH weight 1 is this many bytes.
const BYTES_PER_WEIGHT: f64 = (1u64 << 40) as f64;

/// What a new cluster begins with.
#[derive(Clone, Debug)]
pub struct MkfsConfig {
    pub fsid: Uuid,
    pub mon_name: String,
    pub mon_addrs: EntityAddrVec,
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
}

/// Makes a new cluster in empty storage and returns its first state.
pub fn mkfs(config: &MkfsConfig, now: Now, storage: &mut dyn Storage) -> Result<State, MkfsError> {
    let mut rng = ChaCha20Rng::from_seed(config.seed);
    let settings = Settings::new(&config.options);
    let stamp = UTime::from(now.wall);
    let mut monmap = MonMap::new(config.fsid, stamp);
    monmap.epoch = 1;
    monmap.add(&config.mon_name, config.mon_addrs.clone());
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
    storage.compact(state.version, &state.to_bytes(F))?;
    Ok(state)
}

/// Opens a cluster: the snapshot, then every proposal after it.
pub fn open(storage: &mut dyn Storage, expected: Option<Uuid>) -> Result<State, MkfsError> {
    let stored = storage.load()?;
    let (version, snapshot) = stored.snapshot.ok_or(MkfsError::Empty)?;
    let mut state = State::from_bytes(&snapshot)?;
    debug_assert_eq!(state.version, version, "a snapshot is numbered by its state");
    if let Some(expected) = expected.filter(|e| *e != state.fsid) {
        return Err(MkfsError::OtherCluster { found: state.fsid, expected });
    }
    for (version, bytes) in stored.log {
        if version != state.version + 1 {
            return Err(StorageError::Gap { last: state.version, found: version }.into());
        }
        let proposal = Proposal::from_bytes(&bytes)?;
        state.apply(&proposal).map_err(|error| MkfsError::Replay { version, error })?;
    }
    Ok(state)
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
