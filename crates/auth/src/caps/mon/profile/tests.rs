//! Profiles against a real monitor.
#![cfg(test)]

use std::collections::BTreeMap;

use crate::caps::{CommandAccess, MonCap, Perm};

/// Each profile, and which of [`PROBES`] a client of Ceph 16.2.15 got past the check with.
const PROFILES: &[(&str, &str)] = &[
    ("nonsense", ""),
    ("read-only", "mon-r osd-r mds-r conf-r getmap"),
    (
        "read-write",
        "mon-r osd-r mds-r osd-w mon-w conf-r conf-mclock conf-other bl-one bl-host bl-rm black-one getmap fs-w",
    ),
    ("mon", "mon-r mon-w private getmap"),
    ("osd", "mon-r osd-r osd-w conf-mclock bl-one bl-host bl-rm black-one private getmap"),
    ("mds", "mon-r osd-r mds-r bl-one bl-host bl-rm black-one private getmap"),
    (
        "mgr",
        "mon-r osd-r mds-r osd-w mon-w auth-rx auth-rwx ck-r ck-w conf-r conf-mclock conf-other bl-one bl-host bl-rm black-one mirror mirror-deep mirror-set cephfs-mirror private not-private getmap goc fs-w",
    ),
    ("bootstrap-osd", "mon-r osd-r getmap"),
    ("bootstrap-mds", "mon-r osd-r getmap"),
    ("bootstrap-mgr", "mon-r osd-r getmap"),
    ("bootstrap-rgw", "mon-r osd-r getmap"),
    ("bootstrap-rbd", "mon-r getmap"),
    ("bootstrap-rbd-mirror", "mon-r getmap"),
    ("fs-client", "mon-r osd-r mds-r getmap"),
    ("simple-rados-client", "mon-r osd-r getmap"),
    ("simple-rados-client-with-blocklist", "mon-r osd-r bl-one getmap"),
    ("rbd", "mon-r osd-r bl-one black-one getmap"),
    ("rbd-read-only", "mon-r osd-r bl-one black-one getmap"),
    ("rbdx", "mon-r osd-r bl-one black-one getmap"),
    ("rbd-mirror", "mon-r osd-r bl-one black-one mirror mirror-deep getmap"),
    ("rbd-mirror-peer", "mon-r osd-r bl-one black-one mirror mirror-set getmap"),
    ("cephfs-mirror", "mon-r osd-r mds-r cephfs-mirror getmap"),
    ("crash", "mon-r getmap"),
    ("role-definer", "mon-r auth-rx auth-rwx getmap goc"),
];

type Probe<'a> = (&'a str, &'a str, Perm, &'a str, &'a [(&'a str, &'a str)]);

/// A name, and the service, permissions and command with arguments that are asked for.
const PROBES: &[Probe<'_>] = &[
    ("mon-r", "mon", Perm::R, "mon dump", &[]),
    ("osd-r", "osd", Perm::R, "osd dump", &[]),
    ("mds-r", "mds", Perm::R, "mds stat", &[]),
    ("osd-w", "osd", Perm::RW, "osd setmaxosd", &[]),
    ("mon-w", "mon", Perm::RW, "log", &[]),
    ("auth-rx", "auth", Perm::RWX, "auth get", &[("entity", "client.a")]),
    ("auth-rwx", "auth", Perm::RWX, "auth rm", &[("entity", "client.a")]),
    ("ck-r", "config-key", Perm::R, "config-key exists", &[("key", "a/b")]),
    ("ck-w", "config-key", Perm::RW, "config-key rm", &[("key", "a/b")]),
    ("conf-r", "config", Perm::R, "config get", &[]),
    (
        "conf-mclock",
        "config",
        Perm::RW,
        "config set",
        &[("name", "osd_mclock_max_capacity_iops_hdd")],
    ),
    ("conf-other", "config", Perm::RW, "config set", &[("name", "osd_max_backfills")]),
    (
        "bl-one",
        "osd",
        Perm::RW,
        "osd blocklist",
        &[("blocklistop", "add"), ("addr", "1.2.3.4:0/77")],
    ),
    ("bl-host", "osd", Perm::RW, "osd blocklist", &[("blocklistop", "add"), ("addr", "1.2.3.4")]),
    ("bl-rm", "osd", Perm::RW, "osd blocklist", &[("blocklistop", "rm"), ("addr", "1.2.3.4:0/77")]),
    (
        "black-one",
        "osd",
        Perm::RW,
        "osd blacklist",
        &[("blacklistop", "add"), ("addr", "1.2.3.4:0/77")],
    ),
    ("mirror", "config-key", Perm::R, "config-key get", &[("key", "rbd/mirror/a")]),
    ("mirror-deep", "config-key", Perm::R, "config-key get", &[("key", "rbd/mirror/a/b")]),
    ("mirror-set", "config-key", Perm::RW, "config-key set", &[("key", "rbd/mirror/peer/b")]),
    ("cephfs-mirror", "config-key", Perm::R, "config-key get", &[("key", "cephfs/mirror/peer/b")]),
    ("private", "config-key", Perm::RW, "config-key set", &[("key", "daemon-private/client.pr/b")]),
    (
        "not-private",
        "config-key",
        Perm::RW,
        "config-key set",
        &[("key", "daemon-private/client.prx/b")],
    ),
    ("getmap", "mon", Perm::R, "mon getmap", &[]),
    ("goc", "auth", Perm::RWX, "auth get-or-create", &[("entity", "client.nn")]),
    ("fs-w", "fs", Perm::RW, "fs flag set", &[]),
];

#[test]
fn profiles_grant_what_they_do_at_ceph() {
    let name = "client.pr".parse().unwrap();
    for (profile, expected) in PROFILES {
        let cap = MonCap::parse(&format!("profile {profile}")).unwrap();
        let passes = |(_, service, need, command, args): &&Probe<'_>| {
            let args = args.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            cap.is_capable(&CommandAccess {
                name: &name,
                service,
                module: "",
                command,
                args: &args.collect::<BTreeMap<_, _>>(),
                need: *need,
                addr: None,
            })
        };
        let granted: Vec<&str> = PROBES.iter().filter(passes).map(|p| p.0).collect();
        assert_eq!(granted.join(" "), *expected, "{profile}");
    }
}
