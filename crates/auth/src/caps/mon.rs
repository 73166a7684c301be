//! Monitor capabilities: `allow rwx`, `allow service osd r`, `allow command "osd blocklist" with
//! blocklistop=add`, `profile osd`, each with an optional `network`.

use spirula_wire::types::EntityNameStr;

use crate::caps::CapError;
use crate::caps::command::{
    self, CommandAccess, Constraint, Grant, Perm, allow, named, perm, with_constraints,
};
use crate::caps::scan::Scan;
use crate::handshake::AuthenticatedPeer;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonCap {
    text: String,
    grants: Vec<Grant>,
}

impl MonCap {
    pub fn parse(text: &str) -> Result<Self, CapError> {
        let grants = command::parse_list("mon", text, grant)?;
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
        let expanded = profile(&grant.profile, access.name);
        return expanded.iter().map(|g| allowed(g, access)).fold(Perm::NONE, |a, b| a | b);
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

fn grant(s: &mut Scan<'_>) -> Option<Grant> {
    s.attempt(blanket_grant)
        .or_else(|| s.attempt(profile_grant))
        .or_else(|| s.attempt(service_grant))
        .or_else(|| s.attempt(command_grant))
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

/// The grants that a profile stands for. An unknown profile grants nothing.
fn profile(profile: &str, name: &EntityNameStr) -> Vec<Grant> {
    const R: Perm = Perm::R;
    const W: Perm = Perm::W;
    const RWX: Perm = Perm::RWX;
    let rw = R | W;
    let services = |list: &[(&str, Perm)]| -> Vec<Grant> {
        list.iter().map(|(service, allow)| Grant::service(service, *allow)).collect()
    };
    let reader = || services(&[("mon", R), ("osd", R), ("pg", R)]);
    let mut grants = match profile {
        "read-only" => return vec![Grant::blanket(R)],
        "read-write" => return vec![Grant::blanket(rw)],
        "mon" => services(&[("mon", RWX), ("log", RWX)]),
        "osd" => services(&[("osd", RWX), ("mon", R), ("pg", rw), ("log", W)]),
        "mds" => services(&[("mds", RWX), ("mon", R), ("osd", R), ("log", W)]),
        "mgr" => services(&[
            ("mgr", RWX),
            ("log", rw),
            ("mon", rw),
            ("mds", rw),
            ("fs", rw),
            ("osd", rw),
            ("auth", RWX),
            ("config-key", rw),
            ("config", rw),
        ]),
        "bootstrap-osd" | "bootstrap-mds" | "bootstrap-mgr" | "bootstrap-rgw" => {
            services(&[("mon", R), ("osd", R)])
        }
        "bootstrap-rbd" | "bootstrap-rbd-mirror" | "crash" => services(&[("mon", R)]),
        "fs-client" => services(&[("mon", R), ("mds", R), ("osd", R), ("pg", R)]),
        "simple-rados-client" | "rbd" | "rbd-mirror" | "rbd-read-only" => reader(),
        "simple-rados-client-with-blocklist" => reader(),
        "role-definer" => services(&[("mon", R), ("auth", RWX)]),
        _ => return Vec::new(),
    };
    grants.extend(profile_commands(profile, name));
    grants
}

fn profile_commands(profile: &str, name: &EntityNameStr) -> Vec<Grant> {
    let commands = |list: &[&str]| list.iter().map(|c| Grant::command(c)).collect::<Vec<_>>();
    let mut grants = match profile {
        // `osd pool rmsnap` is also what a message to remove snapshots is checked against.
        "mds" => commands(&["osd pool rmsnap", "osd blocklist", "osd blacklist"]),
        "mgr" => commands(&["auth get", "auth get-or-create", "auth caps", "auth rm", "smart"]),
        "bootstrap-osd" => commands(&["mon getmap", "osd new", "osd purge-new"]),
        "bootstrap-mds" | "bootstrap-mgr" | "bootstrap-rgw" => commands(&["mon getmap"]),
        _ => Vec::new(),
    };
    grants.extend(bootstrap_command(profile));
    if matches!(profile, "mon" | "osd" | "mds" | "mgr") {
        let prefix = Constraint::Prefix(format!("daemon-private/{name}/"));
        for command in ["get", "put", "set", "exists", "delete"] {
            let command = format!("config-key {command}");
            grants.push(Grant::command(&command).with("key", prefix.clone()));
        }
    }
    if matches!(profile, "rbd" | "rbd-mirror" | "simple-rados-client-with-blocklist") {
        // A client may fence a dead lock owner: one address with its nonce, not a whole host.
        for spelling in ["blocklist", "blacklist"] {
            let op = Constraint::Equal("add".to_owned());
            let addr = Constraint::Regex("^[^/]+/[0-9]+$".to_owned());
            let command = Grant::command(&format!("osd {spelling}"));
            grants.push(command.with(&format!("{spelling}op"), op).with("addr", addr));
        }
    }
    if profile == "rbd-mirror" {
        let prefix = Constraint::Prefix("rbd/mirror/".to_owned());
        grants.push(Grant::command("config-key get").with("key", prefix));
    }
    grants
}

/// `auth get-or-create` with exactly the capabilities that the bootstrapped daemon needs.
fn bootstrap_command(profile: &str) -> Option<Grant> {
    const RBD_OSD_CAPS: &str = concat!(
        r#"^([ ,]*profile(=|[ ]+)['"]?rbd[^ ,'"]*['"]?"#,
        r#"([ ]+pool(=|[ ]+)['"]?[^,'"]+['"]?)?)+$"#
    );
    let equal = |v: &str| Constraint::Equal(v.to_owned());
    let (entity, caps): (_, &[(&str, Constraint)]) = match profile {
        "bootstrap-mds" => (
            "mds.",
            &[
                ("caps_mon", equal("allow profile mds")),
                ("caps_osd", equal("allow rwx")),
                ("caps_mds", equal("allow")),
            ],
        ),
        "bootstrap-mgr" => ("mgr.", &[("caps_mon", equal("allow profile mgr"))]),
        "bootstrap-rgw" => {
            ("client.rgw.", &[("caps_mon", equal("allow rw")), ("caps_osd", equal("allow rwx"))])
        }
        "bootstrap-rbd" | "bootstrap-rbd-mirror" => (
            "client.",
            &[
                ("caps_mon", equal(&profile.replace("bootstrap-", "profile "))),
                ("caps_osd", Constraint::Regex(RBD_OSD_CAPS.to_owned())),
            ],
        ),
        _ => return None,
    };
    let mut grant =
        Grant::command("auth get-or-create").with("entity", Constraint::Prefix(entity.to_owned()));
    for (arg, constraint) in caps {
        grant = grant.with(arg, constraint.clone());
    }
    Some(grant)
}
