//! CRUSH: random maps of ours and built maps of crushtool's are placed the same by both.

use spirula_crush::{
    Alg, Bucket, ChooseArg, CrushMap, DEFAULT_CHOOSE_ARGS, Rule, RuleMask, Step, StepOp, Tunables,
};
use spirula_wire::{Decode, Encode, Features};

use crate::tool::{Random, Tools, arg};

const HOST: u16 = 1;
const RACK: u16 = 3;
const ROOT: u16 = 11;

/// Places `0..xs` by every rule of the map in `name`, here and there; returns how many.
fn compare(
    tools: &Tools,
    name: &str,
    map: &CrushMap,
    weights: &[u32],
    xs: u32,
    size: u32,
) -> usize {
    let max_x = (xs - 1).to_string();
    let size_arg = size.to_string();
    let mut args = vec!["-i", name, "--test", "--show-mappings", "--min-x", "0", "--max-x", &max_x];
    args.extend(["--num-rep", &size_arg]);
    let texts: Vec<(String, String)> = weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight != 0x1_0000)
        .map(|(osd, &weight)| (osd.to_string(), (f64::from(weight) / 65536.0).to_string()))
        .collect();
    for (osd, weight) in &texts {
        args.extend(["--weight", osd, weight]);
    }
    let printed = tools.run("crushtool", &args);
    let mut compared = 0;
    for line in printed.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["CRUSH", "rule", rule, "x", x, found] = words[..] else { panic!("{line}") };
        let found = found.trim_matches(['[', ']']);
        let found: Vec<i32> =
            found.split(',').filter(|s| !s.is_empty()).map(|s| s.parse().unwrap()).collect();
        let (rule, x) = (rule.parse().unwrap(), x.parse().unwrap());
        let ours = map.do_rule(rule, x, size as usize, weights, map.choose_args_for(0));
        assert_eq!(ours, found, "{line}");
        compared += 1;
    }
    assert_eq!(compared, map.rules.iter().flatten().count() * xs as usize);
    compared
}

fn random_weight(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => 0,
        1 => 0x1_0000,
        _ => 0x1000 + random.below(0x5_0000) as u32,
    }
}

/// Puts a bucket of these items into the map.
fn add(map: &mut CrushMap, random: &mut Random, alg: Alg, type_: u16, items: &[i32]) -> i32 {
    let id = !(map.buckets.len() as i32);
    let equal = 0x1_0000 + random.below(0x1_0000) as u32;
    let weighted: Vec<(i32, u32)> = items
        .iter()
        .map(|&item| {
            let own = map.bucket(item).map_or_else(|| random_weight(random), |b| b.weight);
            (item, if alg == Alg::Uniform { equal } else { own })
        })
        .collect();
    let version = map.tunables.straw_calc_version;
    map.buckets.push(Some(Bucket::new(id, type_, alg, version, &weighted)));
    map.names.insert(id, format!("b{}", -id));
    id
}

fn random_rule(random: &mut Random, root: i32, id: u8) -> Rule {
    let mut steps = Vec::new();
    if random.one_in(3) {
        for (op, below) in [
            (StepOp::SetChooseTries, 100),
            (StepOp::SetChooseleafTries, 10),
            (StepOp::SetChooseLocalTries, 4),
            (StepOp::SetChooseLocalFallbackTries, 6),
            (StepOp::SetChooseleafVaryR, 4),
            (StepOp::SetChooseleafStable, 2),
        ] {
            if random.one_in(2) {
                steps.push(Step::new(op, random.below(below) as i32, 0));
            }
        }
    }
    steps.push(Step::new(StepOp::Take, root, 0));
    let firstn = random.one_in(2);
    let (choose, leaf) = if firstn {
        (StepOp::ChooseFirstn, StepOp::ChooseleafFirstn)
    } else {
        (StepOp::ChooseIndep, StepOp::ChooseleafIndep)
    };
    match random.below(5) {
        0 => steps.push(Step::new(choose, 0, 0)),
        1 => steps.push(Step::new(leaf, 0, RACK.into())),
        2 => {
            steps.push(Step::new(choose, 2, RACK.into()));
            steps.push(Step::new(leaf, 2, HOST.into()));
        }
        3 => {
            steps.push(Step::new(choose, -1, HOST.into()));
            steps.push(Step::new(choose, 1, 0));
        }
        _ => steps.push(Step::new(leaf, 0, HOST.into())),
    }
    steps.push(Step::new(StepOp::Emit, 0, 0));
    Rule { mask: RuleMask { ruleset: id, type_: 1, min_size: 1, max_size: 10 }, steps }
}

fn random_map(random: &mut Random) -> CrushMap {
    let mut map = CrushMap::new();
    map.tunables = random.pick(&[
        Tunables::LEGACY,
        Tunables::BOBTAIL,
        Tunables::FIREFLY,
        Tunables::HAMMER,
        Tunables::JEWEL,
        Tunables::JEWEL,
    ]);
    let mut next_osd = 0;
    let mut racks = Vec::new();
    for _ in 0..2 + random.below(4) {
        let mut hosts = Vec::new();
        for _ in 0..1 + random.below(5) {
            let count = random.below(7) as i32;
            let osds: Vec<i32> = (next_osd..next_osd + count).collect();
            next_osd += count;
            let alg = random.pick(&Alg::ALL);
            hosts.push(add(&mut map, random, alg, HOST, &osds));
        }
        let alg = random.pick(&Alg::ALL);
        racks.push(add(&mut map, random, alg, RACK, &hosts));
    }
    let alg = random.pick(&Alg::ALL);
    let root = add(&mut map, random, alg, ROOT, &racks);
    map.max_devices = next_osd;
    map.names.extend((0..next_osd).map(|osd| (osd, format!("osd.{osd}"))));
    for id in 0..3 {
        map.rules.push(Some(random_rule(random, root, id)));
        map.rule_names.insert(id.into(), format!("rule{id}"));
    }
    if random.one_in(2) {
        add_choose_args(&mut map, random);
    }
    map
}

fn add_choose_args(map: &mut CrushMap, random: &mut Random) {
    let positions = 1 + random.below(3);
    let mut args = spirula_crush::ChooseArgMap::new();
    for (index, bucket) in (0..).zip(map.iter_buckets()) {
        if bucket.alg() != Alg::Straw2 || bucket.items.is_empty() || random.one_in(3) {
            continue;
        }
        let set =
            |random: &mut Random| bucket.items.iter().map(|_| random_weight(random)).collect();
        let weight_set = (0..positions).map(|_| set(random)).collect();
        let ids = if random.one_in(3) {
            bucket.items.iter().map(|&item| item.wrapping_add(1000)).collect()
        } else {
            Vec::new()
        };
        args.insert(index, ChooseArg { weight_set, ids });
    }
    map.choose_args.insert(DEFAULT_CHOOSE_ARGS, args);
}

#[test]
fn random_maps_place_as_crushtool_does() {
    let tools = Tools::new();
    let mut random = Random(1);
    let mut compared = 0;
    for n in 0..24 {
        let map = random_map(&mut random);
        let bytes = map.to_bytes(Features::PACIFIC);
        let decoded = CrushMap::from_bytes(&bytes).unwrap();
        assert_eq!(decoded.to_bytes(Features::PACIFIC), bytes);
        let name = format!("map{n}");
        tools.write(&name, &bytes);
        let weights: Vec<u32> = (0..map.max_devices)
            .map(|_| random.pick(&[0x1_0000, 0x1_0000, 0x1_0000, 0x8000, 0x2000, 0]))
            .collect();
        let size = 1 + random.below(6) as u32;
        // crushtool gives devices that are in no bucket the weight 0; here all are in one.
        compared += compare(&tools, &name, &decoded, &weights, 100, size);
    }
    assert!(compared >= 7000, "{compared}");
}

#[test]
fn maps_that_crushtool_builds_place_the_same() {
    let tools = Tools::new();
    for alg in Alg::ALL {
        let alg = alg.name();
        let args = ["--build", "--num_osds", "23", "-o", alg, "host", alg, "5", "root", alg, "0"];
        tools.run("crushtool", &args);
        let bytes = tools.read(alg);
        let map = CrushMap::from_bytes(&bytes).unwrap();
        assert!(map.to_bytes(Features::PACIFIC) == bytes, "{alg}");
        for bucket in map.iter_buckets() {
            let items: Vec<(i32, u32)> =
                bucket.items.iter().copied().zip(bucket.weights()).collect();
            let version = map.tunables.straw_calc_version;
            let ours = Bucket::new(bucket.id, bucket.type_, bucket.alg(), version, &items);
            assert_eq!(&ours, bucket);
        }
        compare(&tools, alg, &map, &[0x1_0000; 23], 200, 3);
    }
}

#[test]
fn our_map_decompiles() {
    let tools = Tools::new();
    let map = random_map(&mut Random(7));
    let path = tools.write("map", &map.to_bytes(Features::PACIFIC));
    let text = tools.run("crushtool", &["-d", arg(&path)]);
    assert!(text.contains("rule rule0 {") && text.contains("# end crush map"), "{text}");
}
