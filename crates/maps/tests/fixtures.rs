//! What a real cluster encoded: decoding and encoding gives the same bytes, applying incrementals
//! gives maps of the checksums that they promise, and placement is what `osdmaptool` printed.

use std::path::Path;

use spirula_maps::{
    CrushMap, Incremental, MgrMap, MonMap, NewCluster, OsdMap, PgMapDigest, PgPool, UpActing,
    pool_flags,
};
use spirula_wire::types::{AddrType, EntityAddr, PgId, UTime};
use spirula_wire::{Decode, Encode, Features};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// Applies a recorded history to `map`, checking bytes and checksums of every epoch.
fn replay(map: &mut OsdMap, name: &str, mut each: impl FnMut(&OsdMap)) {
    let recorded = fixture(name);
    let mut rest = &recorded[..];
    while let Some((len, tail)) = rest.split_first_chunk() {
        let (bytes, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
        rest = tail;
        let inc = Incremental::from_bytes(bytes).unwrap();
        let features = Features(inc.encode_features);
        assert!(inc.to_bytes(features) == bytes, "incremental {}", inc.epoch);

        map.apply(&inc).unwrap();
        let (full, crc) = map.encode_with_crc(features);
        assert_eq!(crc, inc.full_crc, "map of epoch {}", inc.epoch);
        let again = OsdMap::from_bytes(&full).unwrap();
        assert!(again.to_bytes(features) == full, "map of epoch {}", inc.epoch);
        each(map);
    }
}

#[test]
fn a_new_cluster_is_followed_from_its_first_epoch() {
    let mut map = OsdMap::default();
    replay(&mut map, "new-cluster.incrementals", |_| {});
    assert_eq!(map.epoch, 16);
    assert_eq!((0..4).filter(|&osd| map.is_up(osd)).count(), 3);
    assert_eq!(map.pool_by_name("device_health_metrics"), Some(1));
}

/// Our first map of an empty cluster is the one that the real monitor made.
#[test]
fn a_new_clusters_map_is_what_ceph_makes() {
    let recorded = fixture("new-cluster.incrementals");
    let first = Incremental::from_bytes(&recorded[4..]).unwrap();
    let theirs = OsdMap::from_bytes(&first.fullmap).unwrap();
    let failure_domain = "osd".to_owned();
    let ours =
        NewCluster { failure_domain, ..NewCluster::new(theirs.fsid, theirs.created) }.osdmap();
    assert_eq!(OsdMap { crc: theirs.crc, ..ours.unwrap() }, theirs);
}

#[test]
fn a_busy_cluster_is_followed_through_every_kind_of_change() {
    let bytes = fixture("busy-cluster.119.osdmap");
    let mut map = OsdMap::from_bytes(&bytes).unwrap();
    replay(&mut map, "busy-cluster.incrementals", |map| {
        if map.epoch == 121 {
            let name = map.pool_by_name("maps-b").unwrap();
            let theirs = map.pool(name).unwrap();
            let ours = PgPool {
                last_change: 121,
                create_time: theirs.create_time,
                // Until its PGs are there.
                flags: pool_flags::HASHPSPOOL | pool_flags::CREATING,
                ..PgPool::replicated(1, 1, 8, 0)
            };
            assert_eq!(theirs, &ours);
        }
        if map.epoch == 170 {
            assert_eq!(printed(map), String::from_utf8(fixture("busy-cluster.170.pgs")).unwrap());
        }
    });
    assert_eq!(map.epoch, 187);
}

/// `osdmaptool --test-map-pgs-dump-all`, as far as it can be told from the map alone.
fn printed(map: &OsdMap) -> String {
    let expected = String::from_utf8(fixture("busy-cluster.170.pgs")).unwrap();
    let list = |osds: &[i32]| {
        let osds = osds.iter().map(i32::to_string).collect::<Vec<_>>();
        format!("[{}]", osds.join(","))
    };
    let mut out = String::new();
    for line in expected.lines() {
        let Some(pg) = line.split(' ').next().and_then(|pg| pg.parse::<PgId>().ok()) else {
            out += &format!("{line}\n");
            continue;
        };
        let UpActing { up, up_primary, acting, acting_primary } = map.pg_to_up_acting(pg);
        let raw = map.pg_to_raw_osds(pg);
        let raw_primary = raw.iter().find(|&&osd| osd != spirula_maps::ITEM_NONE).unwrap();
        let raw = format!("raw ({}, p{raw_primary})", list(&raw));
        let up = format!("up ({}, p{up_primary})", list(&up));
        out += &format!("{pg} {raw} {up} acting ({}, p{acting_primary})\n", list(&acting));
    }
    out
}

#[test]
fn a_damaged_map_is_refused() {
    let mut bytes = fixture("busy-cluster.119.osdmap");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(OsdMap::from_bytes(&bytes).is_err());
}

fn round_trips<T: Decode + Encode>(name: &str) -> T {
    let bytes = fixture(name);
    let value = T::from_bytes(&bytes).unwrap();
    assert!(value.to_bytes(Features::PACIFIC) == bytes, "{name}");
    value
}

#[test]
fn other_maps_round_trip() {
    let monmap: MonMap = round_trips("one-mon.monmap");
    assert_eq!(monmap.rank_of("a"), Some(0));
    assert_eq!(monmap.persistent_features, spirula_maps::monmap::FEATURES_PACIFIC);
    round_trips::<MgrMap>("none-active.mgrmap");
    let mgrmap: MgrMap = round_trips("active.mgrmap");
    assert_eq!((mgrmap.active_name.as_str(), mgrmap.clients.len()), ("x", 2));
    let crush: CrushMap = round_trips("weight-sets.crush");
    assert!(crush.choose_args_for(1).is_some());
}

/// The pools of a digest come in no order, so its bytes may differ.
#[test]
fn a_digest_is_understood() {
    let bytes = fixture("three-osds.digest");
    let digest = PgMapDigest::from_bytes(&bytes).unwrap();
    let again = digest.to_bytes(Features::PACIFIC);
    assert_eq!(again.len(), bytes.len() - 26);
    assert_eq!(PgMapDigest::from_bytes(&again), Ok(digest.clone()));
    assert_eq!(digest.osd_sum.num_osds, 3);
}

/// Cut off, and with single bytes changed: whatever decodes must still be usable.
#[test]
fn damaged_fixtures_never_panic() {
    // An incremental, with others behind it that nobody reads.
    let one = fixture("busy-cluster.incrementals")[4..].to_vec();
    let targets: [(Vec<u8>, fn(&[u8])); 6] = [
        (fixture("busy-cluster.119.osdmap"), spirula_maps::fuzzing::osdmap),
        (one, spirula_maps::fuzzing::incremental),
        (fixture("one-mon.monmap"), spirula_maps::fuzzing::monmap),
        (fixture("none-active.mgrmap"), spirula_maps::fuzzing::mgrmap),
        (fixture("three-osds.digest"), spirula_maps::fuzzing::digest),
        (fixture("weight-sets.crush"), spirula_crush::fuzzing::crushmap),
    ];
    for (bytes, target) in targets {
        for at in (0..bytes.len().min(4_000)).step_by(13) {
            target(&bytes[..at]);
            for value in [0, 0xff, bytes[at] ^ 8] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                target(&damaged);
            }
        }
    }
}

/// A network was banned, and allowed again.
#[test]
fn a_banned_network_is_in_a_newer_section() {
    let recorded = fixture("range-bans.incrementals");
    let (first, rest) = recorded[4..].split_at(305);
    let [ban, lift] = [first, &rest[4..]].map(|bytes| {
        let inc = Incremental::from_bytes(bytes).unwrap();
        assert!(inc.to_bytes(Features(inc.encode_features)) == bytes);
        inc
    });
    let network = "10.1.0.0:0/16".parse::<EntityAddr>().unwrap().with_type(AddrType::CIDR);
    let until = ban.new_range_blocklist[&network];
    assert_eq!(lift.old_range_blocklist, [network]);
    let mut map = OsdMap { epoch: ban.epoch - 1, fsid: ban.fsid, ..OsdMap::default() };
    map.apply(&ban).unwrap();
    assert_eq!(
        OsdMap::from_bytes(&map.to_bytes(Features::PACIFIC)).unwrap().range_blocklist.len(),
        1
    );
    let (now, later) =
        (UTime { sec: until.sec - 1, nsec: 0 }, UTime { sec: until.sec + 1, nsec: 0 });
    for (addr, banned) in [("10.1.2.3:0/7", true), ("10.2.0.0:0/7", false), ("[::1]:0/7", false)] {
        let addr = addr.parse().unwrap();
        assert_eq!(map.is_blocklisted(&addr, now), banned, "{addr:?}");
        assert!(!map.is_blocklisted(&addr, later));
    }
    assert!(map.has_bans());
    map.apply(&lift).unwrap();
    assert!(!map.has_bans() && map.range_blocklist.is_empty());
}
