//! OSDMap and MonMap: Ceph's tools read ours, and place PGs as we do.

use std::collections::BTreeMap;
use std::sync::Arc;

use spirula_crush::{CrushMap, Location, RuleMode};
use spirula_maps::{
    ITEM_NONE, MonMap, NewCluster, OsdMap, PgPool, UpActing, WEIGHT_IN, osd_state, pool_flags,
};
use spirula_wire::types::{EntityAddr, EntityAddrVec, PgId, UTime, Uuid};
use spirula_wire::{Encode, Features};

use crate::tool::{Random, Tools, arg};

const NOW: UTime = UTime { sec: 1_800_000_000, nsec: 0 };

fn fsid() -> Uuid {
    Uuid::from_random([0x5a; 16])
}

fn addrs(port: u16) -> EntityAddrVec {
    EntityAddrVec(vec![
        EntityAddr::msgr2(([127, 0, 0, 1], port).into(), 7),
        EntityAddr::legacy(([127, 0, 0, 1], port + 1).into(), 7),
    ])
}

fn new_cluster(osds: usize) -> OsdMap {
    let osd = |n: usize| (Uuid::from_random([n as u8 + 1; 16]), 0x1_0000);
    let cluster = NewCluster { osds: (0..osds).map(osd).collect(), ..NewCluster::new(fsid(), NOW) };
    cluster.osdmap().unwrap()
}

fn crush(random: &mut Random, osds: i32) -> CrushMap {
    let mut map = CrushMap::new();
    map.add_bucket("default", "root").unwrap();
    for osd in 0..osds {
        let location: Location = [
            ("host".to_owned(), format!("h{}", osd / 2)),
            ("rack".to_owned(), format!("r{}", osd / 6)),
            ("root".to_owned(), "default".to_owned()),
        ]
        .into();
        let weight = 0x8000 + random.below(0x2_0000) as u32;
        map.insert_item(osd, weight, &format!("osd.{osd}"), &location).unwrap();
    }
    map.add_simple_rule("rep", "default", "host", None, RuleMode::Firstn).unwrap();
    map.add_simple_rule("ec", "default", "osd", None, RuleMode::Indep).unwrap();
    map
}

/// OSDs in all states, pools of both kinds, and every kind of exception to CRUSH.
fn random_osdmap(random: &mut Random) -> OsdMap {
    let osds = 12 + random.below(20) as i32;
    let mut map = new_cluster(osds as usize);
    map.crush = Arc::new(crush(random, osds));
    for (n, osd) in (0..).zip(&mut map.osds) {
        osd.state = random.pick(&[
            osd_state::EXISTS | osd_state::UP,
            osd_state::EXISTS | osd_state::UP,
            osd_state::EXISTS | osd_state::UP,
            osd_state::EXISTS,
            0,
        ]);
        osd.weight = random.pick(&[WEIGHT_IN, WEIGHT_IN, WEIGHT_IN, 0x8000, 0]);
        osd.client_addrs = addrs(6800 + 8 * n);
        osd.cluster_addrs = addrs(6802 + 8 * n);
    }
    if random.one_in(2) {
        map.primary_affinity =
            (0..osds).map(|_| random.pick(&[0x1_0000, 0x1_0000, 0x8000, 0])).collect();
    }
    for id in 1..=3 {
        let pg_num = 20 + random.below(60) as u32;
        let mut pool = PgPool::replicated(1 + random.below(4) as u8, 1, pg_num, 0);
        pool.pgp_num = 1 + random.below(pg_num.into()) as u32;
        if id == 2 {
            pool.flags &= !pool_flags::HASHPSPOOL;
        }
        if id == 3 {
            (pool.type_, pool.size, pool.crush_rule) = (3, 5, 1);
        }
        map.pools.insert(id, pool);
        map.pool_names.insert(id, format!("pool{id}"));
    }
    map.pool_max = 3;
    add_exceptions(&mut map, random, osds);
    map
}

fn add_exceptions(map: &mut OsdMap, random: &mut Random, osds: i32) {
    let sizes: Vec<(i64, u32, u8)> =
        map.pools.iter().map(|(&id, pool)| (id, pool.pg_num, pool.size)).collect();
    for (pool, pg_num, size) in sizes {
        for pg in (0..pg_num).map(|seed| PgId::new(pool, seed)) {
            let mut osd = || random.below(osds as u64) as i32;
            let list: Vec<i32> = (0..size).map(|_| osd()).collect();
            let items = vec![(osd(), osd()), (osd(), osd())];
            let one = osd();
            match random.below(12) {
                0 => _ = map.pg_temp.insert(pg, list),
                1 => _ = map.primary_temp.insert(pg, one),
                2 => _ = map.pg_upmap.insert(pg, list),
                3 | 4 => _ = map.pg_upmap_items.insert(pg, items),
                5 => {
                    map.pg_upmap.insert(pg, list);
                    map.pg_upmap_items.insert(pg, items);
                }
                _ => {}
            }
        }
    }
}

/// `a.b raw ([..], pN) up ([..], pN) acting ([..], pN)`, as the tool prints it.
fn line(map: &OsdMap, pg: PgId) -> String {
    let list = |osds: &[i32], primary: i32| {
        let osds = osds.iter().map(i32::to_string).collect::<Vec<_>>();
        format!("([{}], p{primary})", osds.join(","))
    };
    let UpActing { up, up_primary, acting, acting_primary } = map.pg_to_up_acting(pg);
    let raw = map.pg_to_raw_osds(pg);
    let raw_primary = raw.iter().copied().find(|&osd| osd != ITEM_NONE).unwrap_or(-1);
    let raw = list(&raw, raw_primary);
    format!("{pg} raw {raw} up {} acting {}", list(&up, up_primary), list(&acting, acting_primary))
}

#[test]
fn pgs_are_placed_as_osdmaptool_does() {
    let tools = Tools::new();
    let mut random = Random(3);
    let mut compared = 0;
    for n in 0..24 {
        let map = random_osdmap(&mut random);
        let path = tools.write(&format!("map{n}"), &map.to_bytes(Features::PACIFIC));
        let printed = tools.run("osdmaptool", &[arg(&path), "--test-map-pgs-dump-all"]);
        let lines: BTreeMap<PgId, &str> = printed
            .lines()
            .filter_map(|line| Some((line.split(' ').next()?.parse().ok()?, line)))
            .collect();
        let expected: u32 = map.pools.values().map(|pool| pool.pg_num).sum();
        assert_eq!(lines.len(), expected as usize);
        for (&pg, &theirs) in &lines {
            assert_eq!(line(&map, pg), theirs, "map {n}");
        }
        compared += lines.len();
    }
    assert!(compared >= 3000, "{compared}");
}

#[test]
fn objects_are_placed_as_osdmaptool_does() {
    let tools = Tools::new();
    let map = random_osdmap(&mut Random(5));
    let path = tools.write("map", &map.to_bytes(Features::PACIFIC));
    for name in ["a", "rbd_data.1.0000000000000000", "twelve bytes", "\u{e9}t\u{e9}", "x y"] {
        let args = [arg(&path), "--test-map-object", name, "--pool", "1"];
        let printed = tools.run("osdmaptool", &args);
        let locator = spirula_wire::types::ObjectLocator::pool(1);
        let raw = map.object_to_pg(&locator, name.as_bytes()).unwrap();
        let pg = map.raw_pg_to_pg(raw).unwrap();
        assert!(printed.contains(&format!("object '{name}' -> {pg} ->")), "{printed}");
    }
}

#[test]
fn a_new_clusters_map_is_printed() {
    let tools = Tools::new();
    let mut map = new_cluster(3);
    map.pools.insert(1, PgPool::replicated(3, 2, 32, 0));
    map.pool_names.insert(1, "first".into());
    map.pool_max = 1;
    map.blocklist.insert(EntityAddr::msgr2(([10, 0, 0, 1], 0).into(), 5), NOW);
    let path = tools.write("map", &map.to_bytes(Features::PACIFIC));
    let printed = tools.run("osdmaptool", &["--print", arg(&path)]);
    for expected in [
        "epoch 1\n",
        &format!("fsid {}\n", fsid()),
        "flags sortbitwise,recovery_deletes,purged_snapdirs,pglog_hardlimit\n",
        "require_min_compat_client luminous\n",
        "require_osd_release pacific\n",
        "pool 1 'first' replicated size 3 min_size 2 crush_rule 0 object_hash rjenkins pg_num 32 \
         pgp_num 32 autoscale_mode off last_change 0 flags hashpspool stripe_width 0\n",
        "max_osd 3\n",
    ] {
        assert!(printed.contains(expected), "{expected:?} in {printed}");
    }
    let crush = tools.write("crush", &map.crush.to_bytes(Features::PACIFIC));
    let text = tools.run("crushtool", &["-d", arg(&crush)]);
    assert!(text.contains("rule replicated_rule {"), "{text}");
}

#[test]
fn our_monmap_is_printed() {
    let tools = Tools::new();
    let mut map = MonMap::new(fsid(), NOW);
    map.add("a", addrs(3300));
    map.add("b", addrs(3400));
    let path = tools.write("map", &map.to_bytes(Features::PACIFIC));
    let printed = tools.run("monmaptool", &["--print", arg(&path)]);
    for expected in [
        &format!("fsid {}\n", fsid())[..],
        "min_mon_release 16 (pacific)\n",
        "0: [v2:127.0.0.1:3300/7,v1:127.0.0.1:3301/7] mon.a\n",
        "1: [v2:127.0.0.1:3400/7,v1:127.0.0.1:3401/7] mon.b\n",
    ] {
        assert!(printed.contains(expected), "{expected:?} in {printed}");
    }
}
