//! Monitor capabilities: `allow rwx`, `allow service osd r`, `allow command "osd blocklist" with
//! blocklistop=add`, `profile osd`, each with an optional `network`.

mod profile;

use crate::caps::command::{
    CommandAccess, CommandCap, Grant, Perm, Rules, allow, named, perm, with_constraints,
};
use crate::caps::scan::Scan;

/// Capabilities for the monitors.
pub type MonCap = CommandCap<Mon>;

/// The rules of the monitors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mon;

impl Rules for Mon {
    const KIND: &'static str = "mon";

    fn grant(s: &mut Scan<'_>) -> Option<Grant> {
        s.attempt(blanket_grant)
            .or_else(|| s.attempt(profile_grant))
            .or_else(|| s.attempt(service_grant))
            .or_else(|| s.attempt(command_grant))
    }

    fn allowed(grant: &Grant, access: &CommandAccess<'_>) -> Perm {
        if !grant.profile.is_empty() {
            let expanded = profile::expand(&grant.profile, access.name);
            return expanded
                .iter()
                .map(|g| Self::allowed(g, access))
                .fold(Perm::NONE, |a, b| a | b);
        }
        if !grant.service.is_empty() {
            return if grant.service == access.service { grant.allow } else { Perm::NONE };
        }
        if !grant.command.is_empty() {
            let fits = grant.command == access.command && grant.accepts_args(access.args);
            return if fits { Perm::RWX } else { Perm::NONE };
        }
        // Keys of `config-key` may be secrets: nothing short of `*` or an explicit grant opens them.
        if access.service == "config-key" { Perm::NONE } else { grant.allow }
    }
}

fn blanket_grant(s: &mut Scan<'_>) -> Option<Grant> {
    allow(s)?;
    let allow = perm(s)?;
    let network = s.network();
    let fs_name = s.attempt(|s| {
        s.spaces()?;
        s.lit("fsname")?;
        s.equals_or_spaces()?;
        s.take_while(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)).map(str::to_owned)
    });
    Some(Grant { allow, network, fs_name: fs_name.unwrap_or_default(), ..Grant::default() })
}

fn profile_grant(s: &mut Scan<'_>) -> Option<Grant> {
    s.attempt(allow);
    let profile = named(s, "profile")?;
    Some(Grant { profile, network: s.network(), ..Grant::default() })
}

fn service_grant(s: &mut Scan<'_>) -> Option<Grant> {
    allow(s)?;
    let service = named(s, "service")?;
    s.spaces()?;
    let allow = perm(s)?;
    Some(Grant { service, allow, network: s.network(), ..Grant::default() })
}

fn command_grant(s: &mut Scan<'_>) -> Option<Grant> {
    allow(s)?;
    let command = named(s, "command")?;
    let args = with_constraints(s, false);
    Some(Grant { command, args, network: s.network(), ..Grant::default() })
}
