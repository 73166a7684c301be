//! Commands of Ceph's module for RBD, which this manager does not have. Clients send them unasked
//! (`rbd task list`, `rbd perf image iostat`), so they are known, and answered as a manager answers
//! whose module is off.

use std::collections::BTreeMap;

use spirula_auth::caps::Perm;
use spirula_wire::msg::mgr::CommandDescription;

use super::{Asked, EACCES, EOPNOTSUPP, NO_CAPS};

const MODULE: &str = "rbd_support";
/// The service that capabilities know all modules by.
const SERVICE: &str = "py";

pub(super) struct Row {
    prefix: &'static str,
    params: &'static str,
    help: &'static str,
    need: Perm,
}

const fn row(prefix: &'static str, params: &'static str, help: &'static str, need: Perm) -> Row {
    Row { prefix, params, help, need }
}

const LEVEL: &str = "name=level_spec,type=CephString,req=false";
const ADD: &str = "name=level_spec,type=CephString name=interval,type=CephString name=start_time,type=CephString,req=false";
const REMOVE: &str = "name=level_spec,type=CephString name=interval,type=CephString,req=false name=start_time,type=CephString,req=false";
const SORTED: &str = "name=pool_spec,type=CephString,req=false name=sort_by,type=CephChoices,strings=write_ops|write_bytes|write_latency|read_ops|read_bytes|read_latency,req=false";
const IMAGE: &str = "name=image_spec,type=CephString";

#[rustfmt::skip]
pub(super) const COMMANDS: &[Row] = &[
    row("rbd mirror snapshot schedule add", ADD,
        "mirror images by snapshots, regularly", Perm::W),
    row("rbd mirror snapshot schedule remove", REMOVE,
        "stop mirroring by snapshots", Perm::W),
    row("rbd mirror snapshot schedule list", LEVEL,
        "list when images are mirrored", Perm::R),
    row("rbd mirror snapshot schedule status", LEVEL,
        "show what is mirrored next", Perm::R),
    row("rbd perf image stats", SORTED,
        "show I/O rates of images", Perm::R),
    row("rbd perf image counters", SORTED,
        "show I/O counters of images", Perm::R),
    row("rbd task add flatten", IMAGE,
        "flatten a clone in the background", Perm::W),
    row("rbd task add remove", IMAGE,
        "remove an image in the background", Perm::W),
    row("rbd task add trash remove", "name=image_id_spec,type=CephString",
        "remove an image from the trash in the background", Perm::W),
    row("rbd task add migration execute", IMAGE,
        "carry out a migration in the background", Perm::W),
    row("rbd task add migration commit", IMAGE,
        "end a migration in the background", Perm::W),
    row("rbd task add migration abort", IMAGE,
        "give up a migration in the background", Perm::W),
    row("rbd task cancel", "name=task_id,type=CephString",
        "cancel a background task", Perm::R),
    row("rbd task list", "name=task_id,type=CephString,req=false",
        "list background tasks", Perm::R),
    row("rbd trash purge schedule add", ADD,
        "empty the trash regularly", Perm::W),
    row("rbd trash purge schedule remove", REMOVE,
        "stop emptying the trash", Perm::W),
    row("rbd trash purge schedule list", LEVEL,
        "list when the trash is emptied", Perm::R),
    row("rbd trash purge schedule status", LEVEL,
        "show what trash is emptied next", Perm::R),
];

pub(super) fn prefixes() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|row| row.prefix)
}

pub(super) fn descriptions() -> impl Iterator<Item = CommandDescription> {
    COMMANDS.iter().map(|row| CommandDescription {
        cmdstring: format!("{} {}", row.prefix, row.params),
        helpstring: row.help.to_owned(),
        module: "mgr".to_owned(),
        req_perms: if row.need == Perm::W { "w" } else { "r" }.to_owned(),
        availability: "cli,rest".to_owned(),
        flags: 0,
    })
}

/// Why a module's command is not carried out; `None`: no module here or in Ceph's RBD has it.
pub(super) fn refusal(
    prefix: &str,
    args: &BTreeMap<String, String>,
    allowed: impl FnOnce(&Asked<'_>) -> bool,
) -> Option<(i32, String)> {
    let row = COMMANDS.iter().find(|row| row.prefix == prefix)?;
    let asked = Asked { service: SERVICE, module: MODULE, prefix, args, need: row.need };
    if !allowed(&asked) {
        return Some((EACCES, NO_CAPS.to_owned()));
    }
    let text = format!(
        "Module '{MODULE}' is not enabled/loaded (required by command '{prefix}'): use `ceph mgr module enable {MODULE}` to enable it"
    );
    Some((EOPNOTSUPP, text))
}

#[cfg(test)]
mod tests {
    use spirula_auth::caps::{CommandAccess, MgrCap};

    use super::*;

    /// Who may, with 16.2.15, `rbd task list` and `rbd task add remove`.
    #[test]
    fn capabilities_are_looked_at_first() {
        for (caps, list, add) in [
            ("profile rbd", true, true),
            ("profile rbd pool=rbd", true, true),
            ("profile rbd-read-only", true, false),
            ("allow r", true, false),
            ("allow *", true, true),
            ("allow module rbd_support rw", true, true),
            ("allow module influx r", false, false),
            ("allow service mgr rw", false, false),
            ("allow service py rw", true, true),
            ("allow command \"rbd task list\"", true, false),
        ] {
            let caps_of = MgrCap::parse(caps).unwrap();
            let name = "client.a".parse().unwrap();
            let may = |prefix: &str| {
                let args = BTreeMap::new();
                let refusal = refusal(prefix, &args, |asked| {
                    caps_of.is_capable(&CommandAccess {
                        name: &name,
                        service: asked.service,
                        module: asked.module,
                        command: asked.prefix,
                        args: asked.args,
                        need: asked.need,
                        addr: None,
                    })
                });
                let (errno, text) = refusal.unwrap();
                assert_eq!(errno == EACCES, text == NO_CAPS);
                errno == EOPNOTSUPP
            };
            assert_eq!([may("rbd task list"), may("rbd task add remove")], [list, add], "{caps}");
        }
        assert_eq!(refusal("rbd task", &BTreeMap::new(), |_| true), None);
    }
}
