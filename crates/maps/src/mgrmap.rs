//! The MgrMap: which manager is active and where.
//!
//! Source of the format: Ceph's `mon/MgrMap.h`, struct version 12.

use std::collections::{BTreeMap, BTreeSet};

use spirula_wire::denc::encode_versioned;
pub use spirula_wire::msg::mgr::{ModuleInfo, ModuleOption};
use spirula_wire::types::{EntityAddrVec, UTime};
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader};

use crate::osdmap::oldest;

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MgrMap {
    pub epoch: u32,
    pub active_addrs: EntityAddrVec,
    /// Global id; 0 if none is active.
    pub active_gid: u64,
    pub available: bool,
    pub active_name: String,
    /// Global id -> who waits to take over.
    pub standbys: BTreeMap<u64, StandbyInfo>,
    /// Modules that are on besides those that always are.
    pub modules: BTreeSet<String>,
    /// Service -> URI.
    pub services: BTreeMap<String, String>,
    pub available_modules: Vec<ModuleInfo>,
    pub active_change: UTime,
    /// Release number -> modules.
    pub always_on_modules: BTreeMap<u32, BTreeSet<String>>,
    pub active_mgr_features: u64,
    /// Epoch of the OSDMap whose blocklist holds the last manager that failed.
    pub last_failure_osd_epoch: u32,
    /// Addresses of the active manager's own clients, to ban when it fails, with their names.
    pub clients: Vec<(EntityAddrVec, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 4, compat = 1, oldest = 4)]
pub struct StandbyInfo {
    pub gid: u64,
    pub name: String,
    /// Names of `available_modules`, for readers before Nautilus.
    pub available_module_names: BTreeSet<String>,
    pub available_modules: Vec<ModuleInfo>,
    pub mgr_features: u64,
}

impl Encode for MgrMap {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 12, 6, |out| {
            self.epoch.encode(out, f);
            self.active_addrs.encode(out, f);
            self.active_gid.encode(out, f);
            self.available.encode(out, f);
            self.active_name.encode(out, f);
            self.standbys.encode(out, f);
            self.modules.encode(out, f);
            self.services.encode(out, f);
            self.available_modules.encode(out, f);
            self.active_change.encode(out, f);
            self.always_on_modules.encode(out, f);
            self.active_mgr_features.encode(out, f);
            self.last_failure_osd_epoch.encode(out, f);
            let (addrs, names): (Vec<_>, Vec<_>) = self.clients.iter().map(|(a, n)| (a, n)).unzip();
            addrs.encode(out, f);
            names.encode(out, f);
        });
    }
}

impl Decode for MgrMap {
    const MIN_SIZE: usize = 6;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("mgrmap", 12, |version, r| {
            oldest("mgrmap", version, 12)?;
            let mut map = Self {
                epoch: r.u32()?,
                active_addrs: Decode::decode(r)?,
                active_gid: r.u64()?,
                available: Decode::decode(r)?,
                active_name: Decode::decode(r)?,
                standbys: Decode::decode(r)?,
                modules: Decode::decode(r)?,
                services: Decode::decode(r)?,
                available_modules: Decode::decode(r)?,
                active_change: Decode::decode(r)?,
                always_on_modules: Decode::decode(r)?,
                active_mgr_features: r.u64()?,
                last_failure_osd_epoch: r.u32()?,
                clients: Vec::new(),
            };
            let addrs = Vec::<EntityAddrVec>::decode(r)?;
            let names = Vec::<String>::decode(r)?;
            if addrs.len() != names.len() {
                let value = names.len() as u64;
                return Err(DecodeError::Invalid { what: "mgrmap client names", value });
            }
            map.clients = addrs.into_iter().zip(names).collect();
            Ok(map)
        })
    }
}
