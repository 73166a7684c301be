//! The grants that each monitor profile stands for, as Ceph 16.2 has them.

#[cfg(test)]
mod tests;

use spirula_wire::types::EntityNameStr;

use crate::caps::command::{Constraint, Grant, Perm};

const R: Perm = Perm::R;
const W: Perm = Perm::W;
const RWX: Perm = Perm::RWX;

/// One address with its nonce, not a whole host.
const ONE_CLIENT: &str = "^[^/]+/[0-9]+$";

/// The grants that a profile stands for. An unknown profile grants nothing.
pub(super) fn expand(profile: &str, name: &EntityNameStr) -> Vec<Grant> {
    let blanket = match profile {
        "read-only" => Some(R),
        "read-write" => Some(R | W),
        _ => None,
    };
    let mut grants: Vec<Grant> = blanket.into_iter().map(Grant::blanket).collect();
    grants.extend(services(profile).iter().map(|(service, allow)| Grant::service(service, *allow)));
    grants.extend(commands(profile).iter().map(|command| Grant::command(command)));
    if matches!(profile, "mon" | "osd" | "mds" | "mgr") {
        grants.extend(private_keys(name));
    }
    grants.extend(keys(profile));
    grants.extend(fencing(profile));
    grants.extend(bootstrap(profile));
    grants
}

fn services(profile: &str) -> &'static [(&'static str, Perm)] {
    const RW: Perm = Perm::RW;
    match profile {
        "mon" => &[("mon", RWX), ("log", RWX)],
        "osd" => &[("osd", RWX), ("mon", R), ("pg", RW), ("log", W)],
        "mds" => &[("mds", RWX), ("mon", R), ("osd", R), ("log", W)],
        "mgr" => &[
            ("mgr", RWX),
            ("log", RW),
            ("mon", RW),
            ("mds", RW),
            ("fs", RW),
            ("osd", RW),
            ("auth", RWX),
            ("config-key", RW),
            ("config", RW),
        ],
        "bootstrap-osd" | "bootstrap-mds" | "bootstrap-mgr" | "bootstrap-rgw" => {
            &[("mon", R), ("osd", R)]
        }
        "bootstrap-rbd" | "bootstrap-rbd-mirror" | "crash" => &[("mon", R)],
        "fs-client" | "cephfs-mirror" => &[("mon", R), ("mds", R), ("osd", R), ("pg", R)],
        "simple-rados-client" | "simple-rados-client-with-blocklist" => {
            &[("mon", R), ("osd", R), ("pg", R)]
        }
        rbd if rbd.starts_with("rbd") => &[("mon", R), ("osd", R), ("pg", R)],
        "role-definer" => &[("mon", R), ("auth", RWX)],
        _ => &[],
    }
}

/// Commands that are granted whatever their arguments are.
fn commands(profile: &str) -> &'static [&'static str] {
    match profile {
        // `osd pool rmsnap` is also what a message to remove snapshots is checked against.
        "mds" => &["osd pool rmsnap", "osd blocklist", "osd blacklist"],
        "mgr" => &["auth get-or-create", "auth caps", "auth rm", "smart"],
        "bootstrap-osd" => &["mon getmap", "osd new", "osd purge-new"],
        "bootstrap-mds" | "bootstrap-mgr" | "bootstrap-rgw" => &["mon getmap"],
        _ => &[],
    }
}

/// A daemon's own part of the config-key store.
fn private_keys(name: &EntityNameStr) -> impl Iterator<Item = Grant> {
    let prefix = Constraint::Prefix(format!("daemon-private/{name}/"));
    ["get", "put", "set", "exists", "delete"]
        .into_iter()
        .map(move |verb| Grant::command(&format!("config-key {verb}")).with("key", prefix.clone()))
}

/// Commands that are granted for some keys or options.
fn keys(profile: &str) -> Vec<Grant> {
    let prefix = |v: &str| Constraint::Prefix(v.to_owned());
    let regex = |v: &str| Constraint::Regex(v.to_owned());
    let get = |keys| Grant::command("config-key get").with("key", keys);
    match profile {
        // What an OSD measured of its device.
        "osd" => {
            let options = regex("osd_mclock_max_capacity_iops_(hdd|ssd)");
            vec![Grant::command("config set").with("name", options)]
        }
        "rbd-mirror" => vec![get(prefix("rbd/mirror/"))],
        "rbd-mirror-peer" => {
            let set = Grant::command("config-key set").with("key", prefix("rbd/mirror/peer/"));
            vec![get(regex("rbd/mirror/[^/]+")), set]
        }
        "cephfs-mirror" => vec![get(prefix("cephfs/mirror/peer/"))],
        _ => Vec::new(),
    }
}

/// A client may fence a dead lock owner.
fn fencing(profile: &str) -> Vec<Grant> {
    let spellings: &[&str] = match profile {
        "simple-rados-client-with-blocklist" => &["blocklist"],
        rbd if rbd.starts_with("rbd") => &["blocklist", "blacklist"],
        _ => &[],
    };
    let grant = |spelling: &&str| {
        Grant::command(&format!("osd {spelling}"))
            .with(&format!("{spelling}op"), Constraint::Equal("add".to_owned()))
            .with("addr", Constraint::Regex(ONE_CLIENT.to_owned()))
    };
    spellings.iter().map(grant).collect()
}

/// `auth get-or-create` with exactly the capabilities that the bootstrapped daemon needs.
fn bootstrap(profile: &str) -> Option<Grant> {
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
