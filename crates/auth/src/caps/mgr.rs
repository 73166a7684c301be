//! Manager capabilities: as a monitor's, with modules and with arguments for profiles.

use crate::caps::CapError;
use crate::caps::command::{
    self, CommandAccess, Grant, Perm, allow, constraints, named, perm, with_constraints,
};
use crate::caps::scan::Scan;
use crate::handshake::AuthenticatedPeer;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MgrCap {
    text: String,
    grants: Vec<Grant>,
}

impl MgrCap {
    pub fn parse(text: &str) -> Result<Self, CapError> {
        let grants = command::parse_list("mgr", text, grant)?;
        for grant in grants.iter().filter(|g| !g.profile.is_empty()) {
            profile(grant).map_err(|why| {
                CapError(format!("mgr capability parse failed during profile evaluation: {why}"))
            })?;
        }
        Ok(Self { text: text.to_owned(), grants })
    }

    pub fn allow_all() -> Self {
        Self { text: "allow *".to_owned(), grants: vec![Grant::blanket(Perm::ANY)] }
    }

    /// What a session's peer may do; nothing if its text does not parse.
    pub fn of_peer(peer: &AuthenticatedPeer) -> Self {
        if peer.allow_all { Self::allow_all() } else { Self::parse(&peer.caps).unwrap_or_default() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_allow_all(&self) -> bool {
        self.grants.iter().any(Grant::is_allow_all)
    }

    pub fn is_capable(&self, access: &CommandAccess<'_>) -> bool {
        command::is_capable(&self.grants, access, |g| allowed(g, access))
    }
}

fn allowed(grant: &Grant, access: &CommandAccess<'_>) -> Perm {
    if !grant.profile.is_empty() {
        let expanded = profile(grant).ok().flatten();
        return expanded.map_or(Perm::NONE, |g| allowed(&g, access));
    }
    let fits = if !grant.service.is_empty() {
        grant.service == access.service
    } else if !grant.module.is_empty() {
        // A module looks at the arguments of its commands itself.
        let args_fit = !access.command.is_empty() || grant.accepts_args(access.args);
        grant.module == access.module && args_fit
    } else if !grant.command.is_empty() {
        let fits = grant.command == access.command && grant.accepts_args(access.args);
        return if fits { Perm::ANY } else { Perm::NONE };
    } else {
        true
    };
    if fits { grant.allow } else { Perm::NONE }
}

/// The grant that a profile stands for, if any.
fn profile(grant: &Grant) -> Result<Option<Grant>, String> {
    let rw = Perm::R | Perm::W;
    let profile = grant.profile.as_str();
    Ok(match profile {
        "read-only" => Some(Grant::blanket(Perm::R)),
        "read-write" => Some(Grant::blanket(rw)),
        "crash" => Some(Grant::command("crash post")),
        // Known, but nothing is granted for them here.
        "osd" | "mds" => None,
        "rbd" | "rbd-read-only" => {
            if let Some(key) =
                grant.args.keys().find(|k| !matches!(k.as_str(), "pool" | "namespace"))
            {
                return Err(format!("profile '{profile}' does not recognize key '{key}'"));
            }
            Some(Grant {
                module: "rbd_support".to_owned(),
                args: grant.args.clone(),
                allow: if profile == "rbd" { rw } else { Perm::R },
                ..Grant::default()
            })
        }
        _ => return Err(format!("unrecognized profile '{profile}'")),
    })
}

fn grant(s: &mut Scan<'_>) -> Option<Grant> {
    s.attempt(blanket_grant)
        .or_else(|| s.attempt(profile_grant))
        .or_else(|| s.attempt(service_grant))
        .or_else(|| s.attempt(module_grant))
        .or_else(|| s.attempt(command_grant))
}

fn blanket_grant(s: &mut Scan<'_>) -> Option<Grant> {
    allow(s)?;
    let allow = perm(s)?;
    Some(Grant { allow, network: s.network(), ..Grant::default() })
}

fn profile_grant(s: &mut Scan<'_>) -> Option<Grant> {
    s.attempt(allow);
    let profile = named(s, "profile")?;
    let args = constraints(s, true).unwrap_or_default();
    Some(Grant { profile, args, network: s.network(), ..Grant::default() })
}

fn service_grant(s: &mut Scan<'_>) -> Option<Grant> {
    allow(s)?;
    let service = named(s, "service")?;
    s.spaces()?;
    let allow = perm(s)?;
    Some(Grant { service, allow, network: s.network(), ..Grant::default() })
}

fn module_grant(s: &mut Scan<'_>) -> Option<Grant> {
    allow(s)?;
    let module = named(s, "module")?;
    let args = with_constraints(s, true);
    s.spaces()?;
    let allow = perm(s)?;
    Some(Grant { module, args, allow, network: s.network(), ..Grant::default() })
}

fn command_grant(s: &mut Scan<'_>) -> Option<Grant> {
    allow(s)?;
    let command = named(s, "command")?;
    let args = with_constraints(s, true);
    Some(Grant { command, args, network: s.network(), ..Grant::default() })
}
