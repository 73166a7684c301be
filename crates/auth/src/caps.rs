//! Capabilities: what a principal may do at each kind of service, in Ceph's text form.
//!
//! Each kind of service has a grammar of its own; the texts of parse errors are Ceph's, since
//! `ceph auth caps` shows them. What does not parse grants nothing.

mod command;
mod mds;
mod mgr;
mod mon;
mod osd;
mod scan;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use command::{CommandAccess, CommandCap, Perm};
pub use mds::check_mds_caps;
pub use mgr::MgrCap;
pub use mon::MonCap;
pub use osd::{AppMetadata, ClassCall, OsdAccess, OsdCap};

/// A capability text that does not parse; the message is Ceph's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CapError(String);

/// Checks the capability text for `service`, as `auth caps` and `auth add` must.
pub fn check_caps(service: &str, text: &str) -> Result<(), CapError> {
    match service {
        "mon" => MonCap::parse(text).map(drop),
        "osd" => OsdCap::parse(text).map(drop),
        "mgr" => MgrCap::parse(text).map(drop),
        "mds" => check_mds_caps(text),
        _ => Err(CapError(format!("unknown cap type '{service}'"))),
    }
}

/// `network` of a grant: an address prefix. One that does not parse matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Network(Option<(IpAddr, u32)>);

impl Network {
    fn parse(text: &str) -> Self {
        let parse = || {
            let (addr, len) = text.split_once('/')?;
            // The grammar lets brackets through; as in Ceph, no address is written with them.
            Some((addr.parse().ok()?, len.parse().ok()?))
        };
        Self(parse())
    }

    fn contains(&self, addr: Option<IpAddr>) -> bool {
        let (Some((net, len)), Some(addr)) = (self.0, addr) else {
            return false;
        };
        match (net, addr.to_canonical()) {
            (IpAddr::V4(n), IpAddr::V4(a)) => same_prefix(n.to_bits(), a.to_bits(), len, 32),
            (IpAddr::V6(n), IpAddr::V6(a)) => same_prefix(n.to_bits(), a.to_bits(), len, 128),
            _ => false,
        }
    }
}

fn same_prefix<T>(a: T, b: T, len: u32, width: u32) -> bool
where
    T: std::ops::BitXor<Output = T> + Into<u128>,
{
    let differing: u128 = (a ^ b).into();
    let ignored = width.saturating_sub(len);
    ignored >= 128 || differing >> ignored == 0
}
