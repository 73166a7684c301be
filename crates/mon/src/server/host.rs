//! What a daemon says about the host it runs on.

use std::collections::BTreeMap;
use std::fs;

use spirula_wire::types::EntityAddrVec;

/// The metadata of a daemon, with the keys that Ceph's daemons use; `addrs` may not be known yet.
pub fn metadata(addrs: &EntityAddrVec) -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let field = |text: &str, name: &str, separator: char| {
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        let value = line.map(|l| l.trim_start_matches([separator, ' ', '\t']));
        value.unwrap_or_default().trim_matches('"').trim().to_owned()
    };
    let (os, cpu, memory) = (read("/etc/os-release"), read("/proc/cpuinfo"), read("/proc/meminfo"));
    let kib = |name| field(&memory, name, ':').split(' ').next().unwrap_or_default().to_owned();
    let pairs = [
        ("arch", std::env::consts::ARCH.to_owned()),
        ("ceph_release", "pacific".to_owned()),
        ("ceph_version", crate::ceph_version()),
        ("ceph_version_short", crate::CEPH_RELEASE.to_owned()),
        ("cpu", field(&cpu, "model name", ':')),
        ("distro", field(&os, "ID", '=')),
        ("distro_description", field(&os, "PRETTY_NAME", '=')),
        ("distro_version", field(&os, "VERSION_ID", '=')),
        ("hostname", read("/proc/sys/kernel/hostname")),
        ("kernel_description", read("/proc/sys/kernel/version")),
        ("kernel_version", read("/proc/sys/kernel/osrelease")),
        ("mem_swap_kb", kib("SwapTotal")),
        ("mem_total_kb", kib("MemTotal")),
        ("os", "Linux".to_owned()),
    ];
    let own = (!addrs.is_empty()).then(|| ("addrs", addrs.to_string()));
    pairs.into_iter().chain(own).map(|(k, v)| (k.to_owned(), v)).collect()
}
