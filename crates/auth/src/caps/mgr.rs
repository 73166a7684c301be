//! Manager capabilities: as a monitor's, with modules and with arguments for profiles.

use crate::caps::CapError;
use crate::caps::command::{
    CommandAccess, CommandCap, Grant, Perm, Rules, allow, constraints, named, perm,
    with_constraints,
};
use crate::caps::scan::Scan;

/// Capabilities for the managers.
pub type MgrCap = CommandCap<Mgr>;

/// The rules of the managers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mgr;

impl Rules for Mgr {
    const KIND: &'static str = "mgr";

    fn grant(s: &mut Scan<'_>) -> Option<Grant> {
        s.attempt(blanket_grant)
            .or_else(|| s.attempt(profile_grant))
            .or_else(|| s.attempt(service_grant))
            .or_else(|| s.attempt(module_grant))
            .or_else(|| s.attempt(command_grant))
    }

    fn allowed(grant: &Grant, access: &CommandAccess<'_>) -> Perm {
        if !grant.profile.is_empty() {
            let expanded = profile(grant).ok().flatten();
            return expanded.map_or(Perm::NONE, |g| Self::allowed(&g, access));
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

    fn validate(grants: &[Grant]) -> Result<(), CapError> {
        // Ceph puts the complaints about all the profiles behind one another.
        let why: String = grants.iter().filter_map(|g| profile(g).err()).collect();
        if why.is_empty() {
            return Ok(());
        }
        Err(CapError(format!("mgr capability parse failed during profile evaluation: {why}")))
    }
}

/// The grant that a profile stands for, if any.
fn profile(grant: &Grant) -> Result<Option<Grant>, String> {
    let rw = Perm::R | Perm::W;
    let profile = grant.profile.as_str();
    Ok(match profile {
        "" => None,
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
