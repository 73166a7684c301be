//! What is expected is what a real manager (16.2.15) printed of such a cluster.

use std::sync::Arc;

use serde_json::{Value, json};
use spirula_maps::{NewCluster, OsdMap, PgPool, osd_state};
use spirula_wire::msg::mgr::MgrCommandReply;
use spirula_wire::types::{OsdStat, StoreStatfs, UTime, Uuid};

use crate::command;
use crate::pgmap::PgMap;

const WEIGHT: u32 = 131;
const OSD: Uuid = Uuid([1; 16]);

/// `default` holds rack `rack1` with host `h2`, and host `vm` with an hdd and an ssd; the OSD of `h2`
/// is of no class. `other` is empty. Pool `p` may use all, `racked` the rack, `spun` the hdds.
fn map() -> OsdMap {
    let new = NewCluster {
        osds: vec![(OSD, WEIGHT); 2],
        host: "vm".into(),
        device_class: String::new(),
        failure_domain: "osd".into(),
        ..NewCluster::new(Uuid::default(), UTime::default())
    };
    let mut map = new.osdmap().unwrap();
    map.osds.push(map.osds[0].clone());
    let crush = Arc::make_mut(&mut map.crush);
    crush.set_device_class(0, "hdd").unwrap();
    crush.set_device_class(1, "ssd").unwrap();
    let below = [("root", "default"), ("rack", "rack1"), ("host", "h2")];
    let below = below.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    crush.insert_item(2, WEIGHT, "osd.2", &below).unwrap();
    crush.add_bucket("other", "root").unwrap();
    for (pool, name, from) in
        [(1, "p", "default"), (2, "racked", "rack1"), (3, "spun", "default~hdd")]
    {
        let mut rule = crush.rule(0).unwrap().clone();
        rule.steps[0].arg1 = crush.item_by_name(from).unwrap();
        map.pools.insert(pool, PgPool::replicated(1, 1, 8, crush.rules.len() as u8));
        map.pool_names.insert(pool, name.into());
        crush.rules.push(Some(rule));
    }
    map.osds.iter_mut().for_each(|osd| osd.state |= osd_state::UP);
    map
}

fn ask_of(map: &OsdMap, args: Value) -> MgrCommandReply {
    let mut pgmap = PgMap::default();
    for osd in 0..3 {
        let statfs = StoreStatfs {
            total: 2_097_152 << 10,
            available: 1_799_832 << 10,
            allocated: 224 << 10,
            internal_metadata: 297_088 << 10,
            ..StoreStatfs::default()
        };
        pgmap.osds.insert(osd, OsdStat { statfs, ..OsdStat::default() });
    }
    command::ask(&args, &pgmap, map)
}

fn ask(method: &str, filter: &str, format: &str) -> MgrCommandReply {
    let args = json!({
        "prefix": "osd df", "output_method": method, "filter_by": "name", "filter": filter,
        "format": format,
    });
    ask_of(&map(), args)
}

fn plain(method: &str, filter: &str) -> String {
    let reply = ask(method, filter, "plain");
    assert_eq!(reply.r, 0, "{}", reply.rs);
    let text = String::from_utf8(reply.outbl.to_vec()).unwrap();
    text.lines().map(|l| format!("{}\n", l.trim_end())).collect()
}

fn in_json(map: &OsdMap, method: &str, filter: &str) -> Value {
    let args = json!({
        "prefix": "osd df", "output_method": method, "filter": filter, "format": "json",
    });
    serde_json::from_slice(&ask_of(map, args).outbl).unwrap()
}

fn names(list: &Value) -> String {
    let names = list.as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap());
    names.collect::<Vec<_>>().join(" ")
}

const TREE: &str = "\
ID   CLASS  WEIGHT   REWEIGHT  SIZE   RAW USE  DATA     OMAP  META     AVAIL    %USE   VAR   PGS  STATUS  TYPE NAME
-13               0         -    0 B      0 B      0 B   0 B      0 B      0 B      0     0    -          root other
 -1         0.00600         -  6 GiB  871 MiB  672 KiB   0 B  870 MiB  5.1 GiB  14.18  1.00    -          root default
 -8         0.00200         -  2 GiB  290 MiB  224 KiB   0 B  290 MiB  1.7 GiB  14.18  1.00    -              rack rack1
 -7         0.00200         -  2 GiB  290 MiB  224 KiB   0 B  290 MiB  1.7 GiB  14.18  1.00    -                  host h2
  2         0.00200   1.00000  2 GiB  290 MiB  224 KiB   0 B  290 MiB  1.7 GiB  14.18  1.00    0      up              osd.2
 -2         0.00400         -  4 GiB  581 MiB  448 KiB   0 B  580 MiB  3.4 GiB  14.18  1.00    -              host vm
  0    hdd  0.00200   1.00000  2 GiB  290 MiB  224 KiB   0 B  290 MiB  1.7 GiB  14.18  1.00    0      up          osd.0
  1    ssd  0.00200   1.00000  2 GiB  290 MiB  224 KiB   0 B  290 MiB  1.7 GiB  14.18  1.00    0      up          osd.1
                        TOTAL  6 GiB  871 MiB  672 KiB   0 B  870 MiB  5.1 GiB  14.18
MIN/MAX VAR: 1.00/1.00  STDDEV: 0
";

#[test]
fn the_tree_and_the_osds_alone() {
    assert_eq!(plain("tree", ""), TREE);
    let expected = "\
ID  CLASS  WEIGHT   REWEIGHT  SIZE   RAW USE  DATA     OMAP  META     AVAIL    %USE   VAR   PGS  STATUS
 0    hdd  0.00200   1.00000  2 GiB  290 MiB  224 KiB   0 B  290 MiB  1.7 GiB  14.18  1.00    0      up
                       TOTAL  2 GiB  290 MiB  224 KiB   0 B  290 MiB  1.7 GiB  14.18
MIN/MAX VAR: 1.00/1.00  STDDEV: 0
";
    assert_eq!(plain("plain", "hdd"), expected);
    assert_eq!(plain("plain", "spun"), expected);
    let none = "\
ID  CLASS  WEIGHT  REWEIGHT  SIZE   RAW USE  DATA     OMAP  META     AVAIL    %USE  VAR  PGS  STATUS
                      TOTAL  6 GiB  871 MiB  672 KiB   0 B  870 MiB  5.1 GiB     0
MIN/MAX VAR: -/-  STDDEV: 0
";
    assert_eq!(plain("plain", "other"), none);
}

#[test]
fn a_filter_chooses_items() {
    let everything = "default rack1 h2 osd.2 vm osd.0 osd.1";
    for (filter, shown, kb) in [
        ("", "other default rack1 h2 osd.2 vm osd.0 osd.1", 6_291_456),
        ("default", everything, 6_291_456),
        ("p", everything, 6_291_456),
        ("rack1", "rack1 h2 osd.2", 2_097_152),
        ("racked", "rack1 h2 osd.2", 2_097_152),
        ("h2", "h2 osd.2", 2_097_152),
        ("osd.0", "osd.0", 2_097_152),
        ("default~hdd", "osd.0", 2_097_152),
        ("spun", "osd.0", 2_097_152),
        ("ssd", "other default rack1 h2 vm osd.1", 2_097_152),
        ("other", "other", 6_291_456),
    ] {
        let shown_now = in_json(&map(), "tree", filter);
        assert_eq!(names(&shown_now["nodes"]), shown, "{filter}");
        assert_eq!(shown_now["summary"]["total_kb"], kb, "{filter}");
    }
    for filter in ["nope", "HDD", "hdd~", "0", "host"] {
        let refused = ask("plain", filter, "json");
        let text = format!("'{filter}' not a pool, crush node or device class name");
        assert_eq!((refused.r, refused.rs), (-22, text));
    }
}

#[test]
fn members_are_those_of_ceph() {
    let shown = in_json(&map(), "tree", "ssd");
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let space =
        "reweight kb kb_used kb_used_data kb_used_omap kb_used_meta kb_avail utilization var pgs";
    let node = |i: usize| keys(&shown["nodes"][i]);
    assert_eq!(node(1), format!("id name type type_id {space} children"));
    assert_eq!(node(2), format!("id name type type_id pool_weights {space} children"));
    let osd = "id device_class name type type_id crush_weight depth pool_weights";
    assert_eq!(node(5), format!("{osd} {space} status"));
    let (default, vm) = (&shown["nodes"][1], &shown["nodes"][4]);
    assert_eq!(
        (default["kb"].as_i64(), default["kb_used"].as_i64()),
        (Some(2_097_152), Some(297_320))
    );
    assert_eq!((&vm["children"], &vm["utilization"]), (&json!([1, 0]), &json!(14.177322387695312)));
    let none = in_json(&map(), "tree", "other");
    assert_eq!((&none["summary"]["min_var"], &none["nodes"][0]["var"]), (&json!(-1), &json!(1)));
}

#[test]
fn an_osd_that_is_out_counts_nothing_and_one_outside_the_tree_comes_last() {
    let mut map = map();
    map.osds[1].weight = 0;
    let shown = in_json(&map, "plain", "");
    assert_eq!(names(&shown["nodes"]), "osd.2 osd.0 osd.1");
    let out = &shown["nodes"][2];
    assert_eq!((&out["kb"], &out["var"], &out["reweight"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(shown["summary"]["total_kb"], 4_194_304);
    assert_eq!(shown["summary"]["min_var"], 1);
    Arc::make_mut(&mut map.crush).remove_item(1).unwrap();
    let shown = in_json(&map, "tree", "");
    assert_eq!(names(&shown["stray"]), "osd.1");
    assert!(shown["stray"][0].get("pool_weights").is_none());
    assert_eq!(names(&in_json(&map, "tree", "default")["stray"]), "");
}
