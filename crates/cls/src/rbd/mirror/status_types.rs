//! What a site says of a mirrored image, as it is stored and as it is told.

use bytes::Bytes;
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::{AddrType, EntityAddr, EntityName, UTime};
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader};

use crate::context::{Origin, Watcher};

/// `cls::rbd::MirrorImageStatusState`. Any number is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Denc)]
pub(super) struct State(u8);

impl State {
    pub(super) const UNKNOWN: Self = Self(0);
    pub(super) const ERROR: Self = Self(1);
}

/// `entity_inst_t`: who and where, with an address of type `any`, since one process can show itself with
/// addresses of different types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Denc)]
pub(super) struct Instance {
    name: EntityName,
    addr: EntityAddr,
}

impl Instance {
    fn new(name: EntityName, addr: EntityAddr) -> Self {
        Self { name, addr: addr.with_type(AddrType::ANY) }
    }
}

impl From<Origin> for Instance {
    fn from(origin: Origin) -> Self {
        Self::new(origin.name, origin.addr)
    }
}

impl From<Watcher> for Instance {
    fn from(watcher: Watcher) -> Self {
        Self::new(watcher.name, watcher.addr)
    }
}

/// `cls::rbd::MirrorImageSiteStatus`: `site` is empty for the pool's own site.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct SiteStatus {
    pub(super) site: Bytes,
    pub(super) state: State,
    pub(super) description: Bytes,
    pub(super) last_update: UTime,
    /// Whether who has said so still watches.
    pub(super) up: bool,
}

impl SiteStatus {
    fn encode_fields(&self, version: u8, out: &mut Vec<u8>, features: Features) {
        if version >= 2 {
            self.site.encode(out, features);
        }
        self.state.encode(out, features);
        self.description.encode(out, features);
        self.last_update.encode(out, features);
        self.up.encode(out, features);
    }
}

impl Encode for SiteStatus {
    /// Version 1 has no site, and only other sites need one.
    fn encode(&self, out: &mut Vec<u8>, features: Features) {
        let version = if self.site.is_empty() { 1 } else { 2 };
        let fields = |out: &mut Vec<u8>| self.encode_fields(version, out, features);
        encode_versioned(out, version, version, fields);
    }
}

impl Decode for SiteStatus {
    const MIN_SIZE: usize = 20;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("MirrorImageSiteStatus", 2, |version, r| {
            Ok(Self {
                site: if version >= 2 { Bytes::decode(r)? } else { Bytes::new() },
                state: State::decode(r)?,
                description: Bytes::decode(r)?,
                last_update: UTime::decode(r)?,
                up: bool::decode(r)?,
            })
        })
    }
}

/// `cls::rbd::MirrorImageSiteStatusOnDisk`: who said it, then what.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
pub(super) struct Stored {
    pub(super) origin: StoredOrigin,
    pub(super) status: SiteStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredOrigin(pub(super) Instance);

impl Encode for StoredOrigin {
    fn encode(&self, out: &mut Vec<u8>, features: Features) {
        encode_versioned(out, 1, 1, |out| self.0.encode(out, features));
    }
}

impl Decode for StoredOrigin {
    const MIN_SIZE: usize = 25;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let stored = r.versioned("MirrorImageSiteStatusOnDisk", 1, |_, r| Instance::decode(r))?;
        Ok(Self(Instance::new(stored.name, stored.addr)))
    }
}

/// `cls::rbd::MirrorImageStatus`: the own site's status and those of the others.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Status {
    pub(super) local: Option<SiteStatus>,
    pub(super) remote: Vec<SiteStatus>,
}

impl Encode for Status {
    /// The own status has its place also when there is none: all that version 1 had.
    fn encode(&self, out: &mut Vec<u8>, features: Features) {
        encode_versioned(out, 2, 1, |out| {
            let none = SiteStatus::default();
            self.local.as_ref().unwrap_or(&none).encode_fields(1, out, features);
            self.local.is_some().encode(out, features);
            (self.remote.len() as u32).encode(out, features);
            self.remote.iter().for_each(|status| status.encode_fields(2, out, features));
        });
    }
}
