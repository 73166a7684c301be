//! CRUSH edits: a map edited here and one edited by crushtool encode to the same bytes.

use spirula_crush::{CrushMap, Location, RuleMode};
use spirula_wire::{Decode, Encode, Features};

use crate::tool::Tools;

fn at(pairs: &[(&str, &str)]) -> Location {
    pairs.iter().map(|&(level, name)| (level.to_owned(), name.to_owned())).collect()
}

fn cluster() -> CrushMap {
    let mut map = CrushMap::new();
    map.add_bucket("default", "root").unwrap();
    for osd in 0..9 {
        let host = format!("h{}", osd / 3);
        let host = at(&[("host", &host), ("root", "default")]);
        map.insert_item(osd, 0x1_0000, &format!("osd.{osd}"), &host).unwrap();
        map.set_device_class(osd, ["hdd", "ssd"][osd as usize % 2]).unwrap();
    }
    map.add_simple_rule("replicated_rule", "default", "host", None, RuleMode::Firstn).unwrap();
    map
}

type Edit = fn(&mut CrushMap);

/// What crushtool makes of the cluster with these arguments, against what `edit` makes of it.
fn check(args: &[&str], edit: Edit) {
    let tools = Tools::new();
    let mut map = cluster();
    tools.write("in", &map.to_bytes(Features::PACIFIC));
    tools.run("crushtool", &[&["-i", "in", "-o", "out"], args].concat());
    let theirs = CrushMap::from_bytes(&tools.read("out")).unwrap();
    edit(&mut map);
    let ours = CrushMap::from_bytes(&map.to_bytes(Features::PACIFIC)).unwrap();
    assert_eq!(ours, theirs, "{args:?}");
}

#[test]
fn our_cluster_is_what_crushtool_would_make() {
    check(&["--rebuild-class-roots"], |_| {});
}

#[test]
fn items_are_added_and_removed() {
    let loc = ["--loc", "host", "h9", "--loc", "rack", "r1", "--loc", "root", "default"];
    check(&[&["--add-item", "12", "1.5", "osd.12"], &loc[..]].concat(), |map| {
        let to = at(&[("host", "h9"), ("rack", "r1"), ("root", "default")]);
        map.insert_item(12, 0x1_8000, "osd.12", &to).unwrap();
    });
    check(&["--remove-item", "osd.4"], |map| map.remove_item(4).unwrap());
    let loc = ["--loc", "host", "h2", "--loc", "root", "default"];
    check(&[&["--update-item", "0", "2.0", "osd.0"], &loc[..]].concat(), |map| {
        let to = at(&[("host", "h2"), ("root", "default")]);
        assert_eq!(map.update_item(0, 0x2_0000, "osd.0", &to), Ok(true));
    });
}

#[test]
fn weights_change() {
    check(&["--reweight-item", "osd.3", "0.25"], |map| {
        assert_eq!(map.set_item_weight(3, 0x4000), 2);
    });
}

#[test]
fn buckets_are_made_and_moved() {
    let loc = ["--loc", "root", "default"];
    check(&[&["--add-bucket", "r7", "rack"], &loc[..]].concat(), |map| {
        let id = map.add_bucket("r7", "rack").unwrap();
        map.move_bucket(id, &at(&[("root", "default")])).unwrap();
    });
}

#[test]
fn rules_are_made_and_removed() {
    let args = ["--create-replicated-rule", "fast", "default", "host", "--device-class", "ssd"];
    check(&args, |map| {
        map.add_simple_rule("fast", "default", "host", Some("ssd"), RuleMode::Firstn).unwrap();
    });
    let args = ["--create-simple-rule", "by-place", "default", "osd", "indep"];
    check(&args, |map| {
        let id = map.add_simple_rule("by-place", "default", "osd", None, RuleMode::Indep);
        // The tool makes rules for replicated pools only.
        let rule = map.rules[id.unwrap() as usize].as_mut().unwrap();
        rule.mask.type_ = spirula_crush::RULE_TYPE_REPLICATED;
    });
    check(&["--remove-rule", "replicated_rule"], |map| {
        map.remove_rule("replicated_rule").unwrap();
    });
}
