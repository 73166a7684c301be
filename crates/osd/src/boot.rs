//! How a target joins the cluster: what it tells the monitor about itself, and when.

use std::collections::BTreeMap;

use spirula_msgr::Config as MessengerConfig;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::osd::{
    OsdAlive, OsdBeacon, OsdBoot, OsdMarkMeDead, OsdMarkMeDown, OsdPgCreated,
};
use spirula_wire::types::{CompatSet, EntityName, FeatureSet, OsdSuperblock, PgId};
use spirula_wire::{Features, Message, RawMessage};

use crate::options::Options;
use crate::target::Target;

const F: Features = Features::PACIFIC;

/// The messenger's side of every connection of this target.
pub fn messenger_config(target: &Target) -> MessengerConfig {
    let name = EntityName::osd(target.config().osd_id.into());
    let mut config = MessengerConfig::new(name, target.addrs().clone());
    config.global_seq = target.next_global_seq();
    config
}

/// `osd_boot`: this instance, at these addresses, has maps up to the current one.
pub fn boot_message(target: &Target) -> RawMessage {
    let config = target.config();
    let epoch = target.epoch();
    let addrs = target.all_addrs();
    let sb = OsdSuperblock {
        cluster_fsid: config.fsid,
        whoami: config.osd_id,
        current_epoch: epoch,
        oldest_map: 1,
        newest_map: epoch,
        weight: 0.0,
        compat_features: compat_set(),
        clean_thru: epoch,
        osd_fsid: config.osd_uuid,
        ..OsdSuperblock::default()
    };
    OsdBoot {
        paxos: Paxos::at(epoch.into()),
        sb,
        hb_back_addrs: addrs.hb_back.clone(),
        cluster_addrs: addrs.cluster.clone(),
        boot_epoch: target.booted_epoch(),
        hb_front_addrs: addrs.hb_front.clone(),
        metadata: metadata(target),
        osd_features: F.0,
    }
    .to_raw(0, F)
}

/// `osd_alive`: writes of an interval that begins at `want` may have been accepted here.
pub fn alive_message(target: &Target, want: u32) -> RawMessage {
    OsdAlive { paxos: Paxos::at(target.epoch().into()), want }.to_raw(0, F)
}

pub fn beacon_message(target: &Target) -> RawMessage {
    let epoch = target.epoch();
    let served = target.pgs().all();
    let pgs = served.iter().map(|pg| pg.pgid.pgid).collect();
    let clean =
        |pg: &std::rc::Rc<crate::pg::Pg>| pg.shard.machine.borrow().info().history.last_epoch_clean;
    let min_last_epoch_clean = served.iter().map(clean).min().unwrap_or(epoch);
    let interval = target.with_options(Options::beacon_interval).as_secs();
    OsdBeacon {
        paxos: Paxos::at(epoch.into()),
        pgs,
        min_last_epoch_clean,
        osd_beacon_report_interval: interval.try_into().unwrap_or(i32::MAX),
        ..OsdBeacon::default()
    }
    .to_raw(0, F)
}

pub fn mark_me_down_message(target: &Target) -> RawMessage {
    let config = target.config();
    let epoch = target.epoch();
    OsdMarkMeDown {
        paxos: Paxos::at(epoch.into()),
        fsid: config.fsid,
        target_osd: config.osd_id,
        target_addrs: target.addrs().clone(),
        epoch,
        request_ack: true,
        down_and_dead: true,
    }
    .to_raw(0, F)
}

/// `osd_mark_me_dead`: the map has us down, and what it had us for we serve no more.
pub fn mark_me_dead_message(target: &Target, epoch: u32) -> RawMessage {
    let config = target.config();
    OsdMarkMeDead {
        paxos: Paxos::at(epoch.into()),
        fsid: config.fsid,
        target_osd: config.osd_id,
        epoch,
    }
    .to_raw(0, F)
}

pub fn pg_created_message(pgid: PgId) -> RawMessage {
    OsdPgCreated { paxos: Paxos::default(), pgid }.to_raw(0, F)
}

/// Feature names that a Pacific OSD writes into its superblock.
fn compat_set() -> CompatSet {
    let names = [
        (1, "initial feature set(~v.18)"),
        (2, "pginfo object"),
        (3, "object locator"),
        (4, "last_epoch_clean"),
        (5, "categories"),
        (6, "hobjectpool"),
        (7, "biginfo"),
        (8, "leveldbinfo"),
        (9, "leveldblog"),
        (10, "snapmapper"),
        (12, "transaction hints"),
        (13, "pg meta object"),
        (14, "explicit missing set"),
        (15, "fastinfo pg attr"),
        (16, "deletes in missing set"),
    ];
    let mask = names.iter().fold(0, |mask, (bit, _)| mask | 1 << bit);
    let names: BTreeMap<u64, String> =
        names.into_iter().map(|(bit, name)| (bit, name.to_owned())).collect();
    CompatSet { incompat: FeatureSet { mask, names }, ..CompatSet::default() }
}

/// What `ceph osd metadata` shows.
fn metadata(target: &Target) -> BTreeMap<String, String> {
    let config = target.config();
    let addrs = target.all_addrs();
    let statfs = target.store().statfs();
    let found = [
        ("arch", std::env::consts::ARCH.to_owned()),
        ("back_addr", addrs.cluster.to_string()),
        ("back_iface", String::new()),
        ("front_addr", addrs.public.to_string()),
        ("front_iface", String::new()),
        ("hb_back_addr", addrs.hb_back.to_string()),
        ("hb_front_addr", addrs.hb_front.to_string()),
        ("ceph_release", "pacific".to_owned()),
        ("ceph_version", CEPH_VERSION.to_owned()),
        ("ceph_version_short", "16.2.15".to_owned()),
        ("hostname", config.hostname.clone()),
        ("os", "Linux".to_owned()),
        ("osd_objectstore", "vos".to_owned()),
        ("vos_device_size", statfs.total.to_string()),
        ("default_device_class", "ssd".to_owned()),
        ("rotational", "0".to_owned()),
        ("journal_rotational", "0".to_owned()),
    ];
    let mut all: BTreeMap<String, String> =
        found.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    all.extend(config.metadata.clone());
    all
}

/// The release whose protocol is spoken; tools group daemons by this text.
pub const CEPH_VERSION: &str =
    concat!("ceph version 16.2.15 (spirula ", env!("CARGO_PKG_VERSION"), ") pacific (stable)");
