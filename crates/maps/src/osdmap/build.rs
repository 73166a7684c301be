//! The first map of a new cluster.
//!
//! Invariant: what it holds is what Ceph's mon gives a new cluster, but for the OSDs, which may be
//! in it from the start.

use std::sync::Arc;

use spirula_crush::{CrushMap, EditError, Location, RuleMode};
use spirula_wire::types::{UTime, Uuid};

use crate::osdmap::{Osd, OsdMap, WEIGHT_IN, flags, osd_state};
use crate::release::Release;

/// What a new cluster begins with.
#[derive(Clone, Debug)]
pub struct NewCluster {
    pub fsid: Uuid,
    pub now: UTime,
    /// OSDs that exist from the start, all on `host`: uuid and 16.16 CRUSH weight.
    pub osds: Vec<(Uuid, u32)>,
    pub host: String,
    /// Device class of those OSDs; empty for none.
    pub device_class: String,
    /// What `replicated_rule` puts each copy on another of: `host`, or `osd` for a single host.
    pub failure_domain: String,
}

impl NewCluster {
    pub fn new(fsid: Uuid, now: UTime) -> Self {
        Self {
            fsid,
            now,
            osds: Vec::new(),
            host: "localhost".into(),
            device_class: "ssd".into(),
            failure_domain: "host".into(),
        }
    }

    /// The map of epoch 1: the OSDs exist and are in, but are not up.
    pub fn osdmap(&self) -> Result<OsdMap, EditError> {
        let profile =
            [("k", "2"), ("m", "2"), ("plugin", "jerasure"), ("technique", "reed_sol_van")];
        let profile = profile.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let osd = |uuid: &Uuid| Osd {
            state: osd_state::EXISTS,
            weight: WEIGHT_IN,
            uuid: *uuid,
            ..Osd::default()
        };
        Ok(OsdMap {
            fsid: self.fsid,
            epoch: 1,
            created: self.now,
            modified: self.now,
            flags: flags::SORTBITWISE
                | flags::RECOVERY_DELETES
                | flags::PURGED_SNAPDIRS
                | flags::PGLOG_HARDLIMIT,
            osds: self.osds.iter().map(|(uuid, _)| osd(uuid)).collect(),
            crush: Arc::new(self.crush()?),
            erasure_code_profiles: [("default".to_owned(), profile)].into(),
            nearfull_ratio: 0.85,
            full_ratio: 0.95,
            backfillfull_ratio: 0.9,
            require_min_compat_client: Release::LUMINOUS,
            require_osd_release: Release::PACIFIC,
            ..OsdMap::default()
        })
    }

    fn crush(&self) -> Result<CrushMap, EditError> {
        let mut crush = CrushMap::new();
        crush.add_bucket("default", "root")?;
        let at: Location =
            [("host".into(), self.host.clone()), ("root".into(), "default".into())].into();
        for (id, &(_, weight)) in (0..).zip(&self.osds) {
            crush.insert_item(id, weight, &format!("osd.{id}"), &at)?;
            if !self.device_class.is_empty() {
                crush.set_device_class(id, &self.device_class)?;
            }
        }
        let domain = &self.failure_domain;
        crush.add_simple_rule("replicated_rule", "default", domain, None, RuleMode::Firstn)?;
        Ok(crush)
    }
}
