//! What a session may do here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use spirula_auth::caps::{CommandAccess, MonCap, Perm};
use spirula_wire::types::EntityNameStr;

use crate::service::Peer;

/// A session's capabilities for the monitor, fixed when it opened.
#[derive(Clone, Debug)]
pub(crate) struct SessionCaps {
    caps: MonCap,
    name: EntityNameStr,
    addr: Option<IpAddr>,
}

impl SessionCaps {
    pub(crate) fn of(peer: &Peer) -> Self {
        Self {
            caps: MonCap::of_peer(&peer.auth),
            name: peer.auth.name.clone(),
            addr: peer.socket_addr.addr.map(|a| a.ip()),
        }
    }

    pub(crate) fn may_read(&self, service: &str) -> bool {
        self.may(service, "r")
    }

    /// Whether `perm` (of `r`, `w`, `x`) is granted for a service as such.
    pub(crate) fn may(&self, service: &str, perm: &str) -> bool {
        self.may_command(service, "", &BTreeMap::new(), perm)
    }

    /// Whether a command with these arguments may be run.
    pub(crate) fn may_command(
        &self,
        service: &str,
        command: &str,
        args: &BTreeMap<String, String>,
        perm: &str,
    ) -> bool {
        let mut need = Perm::NONE;
        for (letter, bit) in [('r', Perm::R), ('w', Perm::W), ('x', Perm::X)] {
            if perm.contains(letter) {
                need |= bit;
            }
        }
        let name = &self.name;
        let access =
            CommandAccess { name, service, module: "", command, args, need, addr: self.addr };
        self.caps.is_capable(&access)
    }
}
