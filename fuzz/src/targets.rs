//! The table of fuzz targets: one row for each decoder that meets bytes from outside.

/// A decoder under test; it must return for every input.
pub struct Target {
    /// Also the name of its folder under `fuzz/corpus`.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// `name = function` rows.
macro_rules! targets {
    ($($name:ident = $run:path),* $(,)?) => {
        &[$(Target { name: stringify!($name), run: $run }),*]
    };
}

pub const TARGETS: &[Target] = targets! {
    wire_types = spirula_wire::fuzzing::types,
    wire_auth = spirula_wire::fuzzing::auth_messages,
    wire_command = spirula_wire::fuzzing::command_messages,
    wire_mon = spirula_wire::fuzzing::mon_messages,
    wire_osd = spirula_wire::fuzzing::osd_messages,
    wire_osd_op = spirula_wire::fuzzing::osd_op_messages,
    wire_pg = spirula_wire::fuzzing::pg_messages,
    wire_copies = spirula_wire::fuzzing::copies_messages,
    wire_repop = spirula_wire::fuzzing::repop_messages,
    wire_mgr = spirula_wire::fuzzing::mgr_messages,
    cls_methods = spirula_cls::fuzzing::methods,
    crush_map = spirula_crush::fuzzing::crushmap,
    maps_osdmap = spirula_maps::fuzzing::osdmap,
    maps_incremental = spirula_maps::fuzzing::incremental,
    maps_monmap = spirula_maps::fuzzing::monmap,
    maps_mgrmap = spirula_maps::fuzzing::mgrmap,
    maps_digest = spirula_maps::fuzzing::digest,
    auth_caps = spirula_auth::fuzzing::auth_caps,
    auth_keyring = spirula_auth::fuzzing::auth_keyring,
    auth_protocol = spirula_auth::fuzzing::auth_protocol,
    auth_accept_mon = spirula_auth::fuzzing::auth_accept_mon,
    auth_accept_service = spirula_auth::fuzzing::auth_accept_service,
    auth_connect = spirula_auth::fuzzing::auth_connect,
    msgr_frames = spirula_msgr_core::fuzzing::frames,
    msgr_accept = spirula_msgr_core::fuzzing::accept,
    msgr_session = spirula_msgr_core::fuzzing::session,
    monc_messages = spirula_monc::fuzzing::monc_messages,
    bio_superblock = spirula_bio::fuzzing::superblock,
    bio_wal_batch = spirula_bio::fuzzing::wal_batch,
    pg_messages = spirula_pg::fuzzing::messages,
    vos_wal_record = spirula_vos::fuzzing::wal_record,
    vos_page = spirula_vos::fuzzing::page,
    vos_root = spirula_vos::fuzzing::root,
    vos_entry = spirula_vos::fuzzing::entry,
    vos_tx = spirula_vos::fuzzing::tx,
    osd_stored = spirula_osd::fuzzing::stored,
    osd_plan = spirula_osd::fuzzing::plan,
    osd_inputs = spirula_osd::fuzzing::inputs,
    osd_copies = spirula_osd::fuzzing::copies,
    mon_proposal = spirula_mon::fuzzing::proposal,
    mon_snapshot = spirula_mon::fuzzing::snapshot,
    mon_command = spirula_mon::fuzzing::command,
    mon_quorum = spirula_mon::fuzzing::quorum,
    mon_peer = spirula_mon::fuzzing::peer,
};

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
