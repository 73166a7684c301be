//! Managers: who is active, who stands by, who is gone.

use std::collections::BTreeSet;

use spirula_maps::MgrMap;
use spirula_maps::mgrmap::StandbyInfo;
use spirula_wire::msg::mgr::MgrBeacon;
use spirula_wire::types::{EntityAddrVec, EntityType, UTime};
use spirula_wire::{DecodeError, Encode, Message, RawMessage};
use tracing::debug;

use super::{F, Handled, Service, SessionId};
use crate::Now;
use crate::command::{Described, describe, described_for_mgr};
use crate::state::Change;

impl Service {
    pub(super) fn mgr_beacon(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let beacon = MgrBeacon::from_raw(raw)?;
        let allowed = self
            .sessions
            .get(&id)
            .is_some_and(|s| s.name().type_ == EntityType::MGR && s.caps.may("mgr", "x"));
        // A manager that has no global id yet cannot be told from none.
        if !allowed || beacon.fsid != self.state.fsid || beacon.gid == 0 {
            debug!(name = beacon.name, "beacon refused");
            return Ok(Handled::Done);
        }
        self.live.mgr_seen.insert(beacon.gid, now.mono);
        let mut changes = Vec::new();
        let mut map = self.state.mgr.map().clone();
        for line in take_beacon(&mut map, &beacon, now) {
            self.info(now, line);
        }
        if map != *self.state.mgr.map() {
            map.epoch += 1;
            changes.push(Change::MgrMap(map.to_bytes(F).into()));
        }
        let daemon = format!("mgr.{}", beacon.name);
        if !beacon.metadata.is_empty() && self.state.metadata.get(&daemon) != Some(&beacon.metadata)
        {
            changes.push(Change::Metadata { daemon, values: beacon.metadata.clone() });
        }
        if beacon.gid == map.active_gid && !beacon.command_descs.is_empty() {
            let commands = beacon.command_descs.iter().map(Described::from);
            let json = describe(commands.map(described_for_mgr)).compact();
            if json != self.state.mgr.commands_json() {
                changes.push(Change::MgrCommands(json));
            }
        }
        Ok(if changes.is_empty() { Handled::Done } else { Handled::Propose(changes, Vec::new()) })
    }

    /// Replaces an active manager that fell silent, and forgets such standbys.
    pub(super) fn silent_mgr(&mut self, now: Now) -> Option<Change> {
        let grace = self.settings.secs("mon_mgr_beacon_grace");
        let started = self.live.leading_since;
        let seen = |gid: &u64| self.live.mgr_seen.get(gid).copied().unwrap_or(started);
        let silent = |gid: &u64| now.mono.saturating_sub(seen(gid)) > grace;
        let mut map = self.state.mgr.map().clone();
        map.standbys.retain(|gid, _| !silent(gid));
        let mut lost = None;
        if map.active_gid != 0 && silent(&map.active_gid) {
            lost = Some(map.active_name.clone());
            drop_active(&mut map, now);
            promote_standby(&mut map, now);
        }
        if map == *self.state.mgr.map() {
            return None;
        }
        if let Some(name) = lost {
            self.info(now, format!("Manager daemon {name} is unresponsive"));
        }
        map.epoch += 1;
        Some(Change::MgrMap(map.to_bytes(F).into()))
    }
}

/// Takes a beacon into the map; returns lines for the log.
fn take_beacon(map: &mut MgrMap, beacon: &MgrBeacon, now: Now) -> Vec<String> {
    let mut log = Vec::new();
    if map.active_gid != beacon.gid && map.active_name == beacon.name && map.active_gid != 0 {
        log.push(format!("Active manager daemon {} restarted", beacon.name));
        drop_active(map, now);
    }
    // A standby of the same name is a former process of this one.
    map.standbys.retain(|gid, s| *gid == beacon.gid || s.name != beacon.name);
    if map.active_gid == 0 {
        map.standbys.remove(&beacon.gid);
        log.push(format!("Activating manager daemon {}", beacon.name));
        map.active_gid = beacon.gid;
        map.active_name.clone_from(&beacon.name);
        map.active_change = UTime::from(now.wall);
        map.available = false;
    }
    let modules = beacon.modules.clone();
    if map.active_gid == beacon.gid {
        if beacon.available && !map.available {
            log.push(format!("Manager daemon {} is now available", beacon.name));
        }
        map.available |= beacon.available;
        map.active_addrs = beacon.server_addrs.clone();
        map.active_mgr_features = beacon.mgr_features;
        map.available_modules = modules;
        map.services = beacon.services.clone();
        let nameless = |a: &EntityAddrVec| (a.clone(), String::new());
        map.clients = beacon.clients.iter().map(nameless).collect();
    } else {
        let standby = StandbyInfo {
            gid: beacon.gid,
            name: beacon.name.clone(),
            available_module_names: modules.iter().map(|m| m.name.clone()).collect::<BTreeSet<_>>(),
            available_modules: modules,
            mgr_features: beacon.mgr_features,
        };
        if map.standbys.insert(beacon.gid, standby).is_none() {
            log.push(format!("Standby manager daemon {} started", beacon.name));
        }
    }
    log
}

/// Takes the active manager out of the map.
pub(crate) fn drop_active(map: &mut MgrMap, now: Now) {
    map.active_gid = 0;
    map.active_name.clear();
    map.active_addrs = EntityAddrVec::default();
    map.available = false;
    map.services.clear();
    map.clients.clear();
    map.active_change = UTime::from(now.wall);
}

/// Makes the standby that waits the longest active.
pub(crate) fn promote_standby(map: &mut MgrMap, now: Now) {
    let Some((gid, standby)) = map.standbys.pop_first() else {
        return;
    };
    map.active_gid = gid;
    map.active_name = standby.name;
    map.active_mgr_features = standby.mgr_features;
    map.available_modules = standby.available_modules;
    map.active_change = UTime::from(now.wall);
}
