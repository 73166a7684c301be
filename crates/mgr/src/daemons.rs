//! What daemons say of their options, for `config show`.
//!
//! Invariant: what does not decode is not kept; the caller has proved who the daemon is.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::msg::mgr::DaemonConfig;
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode as _, DecodeError};

/// The options of one daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct DaemonOptions {
    pub(crate) config: DaemonConfig,
    /// Of every option it has.
    pub(crate) defaults: BTreeMap<String, String>,
}

/// The options of all daemons, by names such as `osd.3`.
#[derive(Debug, Default)]
pub struct Daemons(BTreeMap<String, DaemonOptions>);

impl Daemons {
    /// The daemon of this name, if it has said anything.
    pub(crate) fn get(&self, name: &str) -> Option<&DaemonOptions> {
        self.0.get(name)
    }

    /// A daemon introduced itself. (Ceph's older ones say nothing of their options.)
    pub(crate) fn opened(
        &mut self,
        name: &EntityNameStr,
        config: &Bytes,
        defaults: &Bytes,
    ) -> Result<(), DecodeError> {
        let mut options = DaemonOptions::default();
        if !config.is_empty() {
            options.config = DaemonConfig::from_bytes(config)?;
        }
        if !defaults.is_empty() {
            options.defaults = BTreeMap::from_bytes(defaults)?;
        }
        self.set(name.to_string(), options);
        Ok(())
    }

    /// A daemon reported; an empty `config` is that of the last time.
    pub(crate) fn reported(
        &mut self,
        name: &EntityNameStr,
        config: &Bytes,
    ) -> Result<(), DecodeError> {
        if config.is_empty() {
            return Ok(());
        }
        let config = DaemonConfig::from_bytes(config)?;
        self.0.entry(name.to_string()).or_default().config = config;
        Ok(())
    }

    /// What the manager knows without a report: its own.
    pub(crate) fn set(&mut self, name: String, options: DaemonOptions) {
        self.0.insert(name, options);
    }

    /// Forgets OSDs that were removed.
    pub(crate) fn keep_osds(&mut self, exists: impl Fn(i32) -> bool) {
        let gone = |name: &str| {
            let id = name.strip_prefix(EntityType::OSD.name()).and_then(|n| n.strip_prefix('.'));
            id.is_some_and(|id| id.parse().is_ok_and(|id| !exists(id)))
        };
        self.0.retain(|name, _| !gone(name));
    }
}
