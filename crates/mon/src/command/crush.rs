//! `osd crush *` that only look: buckets, rules, tunables, device classes.

use spirula_crush::{CrushMap, DEFAULT_CHOOSE_ARGS, Rule, Step, StepOp};

use super::{Answer, Args, Context, Outcome, errno, refuse};
use crate::json::Json;
use crate::obj;

pub(super) fn dump(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let crush = &ctx.state.osd.map().crush;
    let devices = (0..crush.max_devices).filter_map(|id| {
        let mut json = obj! { "id" => id, "name" => crush.name(id)? };
        if let Some(class) = crush.item_class(id) {
            json = json.with("class", class);
        }
        Some(json)
    });
    let types = crush.types.iter().map(|(id, name)| obj! { "type_id" => *id, "name" => name });
    let buckets = crush.iter_buckets().map(|b| {
        let items = b.items.iter().enumerate().map(|(pos, id)| {
            obj! { "id" => *id, "weight" => b.item_weight(pos), "pos" => pos }
        });
        obj! {
            "id" => b.id,
            "name" => crush.name(b.id).unwrap_or_default(),
            "type_id" => b.type_,
            "type_name" => crush.types.get(&i32::from(b.type_)).cloned().unwrap_or_default(),
            "weight" => b.weight,
            "alg" => b.alg().name(),
            "hash" => "rjenkins1",
            "items" => items.collect::<Vec<_>>(),
        }
    });
    let json = obj! {
        "devices" => devices.collect::<Vec<_>>(),
        "types" => types.collect::<Vec<_>>(),
        "buckets" => buckets.collect::<Vec<_>>(),
        "rules" => rules(crush).map(|(id, r)| rule_json(crush, id, r)).collect::<Vec<_>>(),
        "tunables" => tunables_json(crush),
        "choose_args" => choose_args_json(crush),
    };
    Ok(ctx.json_line(&json))
}

fn rules(crush: &CrushMap) -> impl Iterator<Item = (u32, &Rule)> {
    (0..).zip(&crush.rules).filter_map(|(id, r)| Some((id, r.as_ref()?)))
}

fn rule_name(crush: &CrushMap, id: u32) -> String {
    crush.rule_names.get(&(id as i32)).cloned().unwrap_or_default()
}

pub(super) fn rule_ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let crush = &ctx.state.osd.map().crush;
    let names: Vec<String> = rules(crush).map(|(id, _)| rule_name(crush, id)).collect();
    Ok(lines(ctx, &names))
}

/// Rules that start from a shadow tree of the class.
pub(super) fn rule_ls_by_class(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let crush = &ctx.state.osd.map().crush;
    let class = args.str("class")?;
    if crush.class_by_name(class).is_none() {
        return refuse(errno::ENOENT, format!("failed to get rules by class '{class}'"));
    }
    let suffix = format!("~{class}");
    let takes = |r: &Rule| {
        let mut steps = r.steps.iter().filter(|s| s.op() == Some(StepOp::Take));
        steps.any(|s| crush.name(s.arg1).is_some_and(|n| n.ends_with(&suffix)))
    };
    let names: Vec<String> =
        rules(crush).filter(|(_, r)| takes(r)).map(|(id, _)| rule_name(crush, id)).collect();
    Ok(lines(ctx, &names))
}

pub(super) fn rule_dump(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let crush = &ctx.state.osd.map().crush;
    let Some(name) = args.str_opt("name")?.filter(|n| !n.is_empty()) else {
        let all: Vec<Json> = rules(crush).map(|(id, r)| rule_json(crush, id, r)).collect();
        return Ok(ctx.json_line(&Json::Arr(all)));
    };
    match crush.rule_by_name(name).and_then(|id| Some((id, crush.rule(id)?))) {
        Some((id, rule)) => Ok(ctx.json_line(&rule_json(crush, id, rule))),
        None => refuse(errno::ENOENT, format!("unknown crush rule '{name}'")),
    }
}

fn rule_json(crush: &CrushMap, id: u32, rule: &Rule) -> Json {
    obj! {
        "rule_id" => id,
        "rule_name" => rule_name(crush, id),
        "ruleset" => rule.mask.ruleset,
        "type" => rule.mask.type_,
        "min_size" => rule.mask.min_size,
        "max_size" => rule.mask.max_size,
        "steps" => rule.steps.iter().map(|s| step_json(crush, s)).collect::<Vec<_>>(),
    }
}

fn step_json(crush: &CrushMap, step: &Step) -> Json {
    let choose = |op: &str| {
        let type_ = crush.types.get(&step.arg2).cloned().unwrap_or_default();
        obj! { "op" => op, "num" => step.arg1, "type" => type_ }
    };
    let set = |op: &str| obj! { "op" => op, "num" => step.arg1 };
    match step.op() {
        Some(StepOp::Noop) => obj! { "op" => "noop" },
        Some(StepOp::Take) => obj! {
            "op" => "take",
            "item" => step.arg1,
            "item_name" => crush.name(step.arg1).unwrap_or_default(),
        },
        Some(StepOp::Emit) => obj! { "op" => "emit" },
        Some(StepOp::ChooseFirstn) => choose("choose_firstn"),
        Some(StepOp::ChooseIndep) => choose("choose_indep"),
        Some(StepOp::ChooseleafFirstn) => choose("chooseleaf_firstn"),
        Some(StepOp::ChooseleafIndep) => choose("chooseleaf_indep"),
        Some(StepOp::SetChooseTries) => set("set_choose_tries"),
        Some(StepOp::SetChooseleafTries) => set("set_chooseleaf_tries"),
        _ => obj! { "opcode" => step.op, "arg1" => step.arg1, "arg2" => step.arg2 },
    }
}

pub(super) fn show_tunables(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json_line(&tunables_json(&ctx.state.osd.map().crush)))
}

pub(super) fn get_tunable(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("tunable")?;
    if name != "straw_calc_version" {
        return refuse(errno::EINVAL, format!("unknown tunable '{name}'"));
    }
    let version = ctx.state.osd.map().crush.tunables.straw_calc_version;
    Ok(ctx.either(|| format!("{version}\n"), || obj! { "straw_calc_version" => version }))
}

fn tunables_json(crush: &CrushMap) -> Json {
    let t = &crush.tunables;
    let uses = |ops: &[StepOp]| {
        rules(crush)
            .any(|(_, r)| r.steps.iter().any(|s| s.op().is_some_and(|op| ops.contains(&op))))
    };
    let has_v2 = uses(&[
        StepOp::ChooseIndep,
        StepOp::ChooseleafIndep,
        StepOp::SetChooseTries,
        StepOp::SetChooseleafTries,
    ]);
    let has_v3 = uses(&[StepOp::SetChooseleafVaryR]);
    let has_v4 = crush.iter_buckets().any(|b| b.alg() == spirula_crush::Alg::Straw2);
    let has_v5 = uses(&[StepOp::SetChooseleafStable]);
    let legacy = spirula_crush::Tunables::LEGACY;
    let local = (t.choose_local_tries, t.choose_local_fallback_tries, t.choose_total_tries);
    let legacy_local =
        (legacy.choose_local_tries, legacy.choose_local_fallback_tries, legacy.choose_total_tries);
    let profile = t.profile();
    let release = match () {
        () if has_v5 || t.chooseleaf_stable != 0 => "jewel",
        () if has_v4 => "hammer",
        () if has_v3 || t.chooseleaf_vary_r != 0 => "firefly",
        () if has_v2 || t.chooseleaf_descend_once != 0 || local != legacy_local => "bobtail",
        () => "argonaut",
    };
    obj! {
        "choose_local_tries" => t.choose_local_tries,
        "choose_local_fallback_tries" => t.choose_local_fallback_tries,
        "choose_total_tries" => t.choose_total_tries,
        "chooseleaf_descend_once" => t.chooseleaf_descend_once,
        "chooseleaf_vary_r" => t.chooseleaf_vary_r,
        "chooseleaf_stable" => t.chooseleaf_stable,
        "straw_calc_version" => t.straw_calc_version,
        "allowed_bucket_algs" => t.allowed_bucket_algs,
        "profile" => profile,
        "optimal_tunables" => u32::from(profile == "jewel"),
        "legacy_tunables" => u32::from(profile == "argonaut"),
        "minimum_required_version" => release,
        "require_feature_tunables" => u32::from(local != legacy_local),
        "require_feature_tunables2" => u32::from(t.chooseleaf_descend_once != 0),
        "has_v2_rules" => u32::from(has_v2),
        "require_feature_tunables3" => u32::from(t.chooseleaf_vary_r != 0),
        "has_v3_rules" => u32::from(has_v3),
        "has_v4_buckets" => u32::from(has_v4),
        "require_feature_tunables5" => u32::from(t.chooseleaf_stable != 0),
        "has_v5_rules" => u32::from(has_v5),
    }
}

fn choose_args_json(crush: &CrushMap) -> Json {
    let floats = |weights: &Vec<u32>| Json::arr(weights.iter().map(|w| f64::from(*w) / 65_536.0));
    let sets = crush.choose_args.iter().map(|(pool, args)| {
        let name = if *pool == DEFAULT_CHOOSE_ARGS { "-1".to_owned() } else { pool.to_string() };
        let buckets = args.iter().map(|(index, arg)| {
            let mut json = obj! { "bucket_id" => -1 - (*index as i32) };
            if !arg.weight_set.is_empty() {
                json =
                    json.with("weight_set", arg.weight_set.iter().map(floats).collect::<Vec<_>>());
            }
            if !arg.ids.is_empty() {
                json = json.with("ids", arg.ids.clone());
            }
            json
        });
        (name, Json::Arr(buckets.collect()))
    });
    Json::obj(sets)
}

pub(super) fn weight_set_ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let name = |pool: &i64| match *pool {
        DEFAULT_CHOOSE_ARGS => "(compat)".to_owned(),
        id => map.pool_name(id).map_or_else(|| id.to_string(), str::to_owned),
    };
    let names: Vec<String> = map.crush.choose_args.keys().map(name).collect();
    Ok(lines(ctx, &names))
}

pub(super) fn weight_set_dump(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&choose_args_json(&ctx.state.osd.map().crush)))
}

pub(super) fn class_ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&Json::arr(ctx.state.osd.map().crush.class_names.values())))
}

pub(super) fn class_ls_osd(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let class = args.str("class")?;
    let map = ctx.state.osd.map();
    let osds: Vec<i32> = map
        .existing_osds()
        .map(|(id, _)| id)
        .filter(|id| map.crush.item_class(*id) == Some(class))
        .collect();
    Ok(ctx.either(
        || osds.iter().map(|id| format!("{id}\n")).collect(),
        || Json::arr(osds.iter().copied()),
    ))
}

pub(super) fn get_device_class(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let mut found = Vec::new();
    for word in args.strs("ids")? {
        if matches!(word, "any" | "all" | "*") {
            found = map.existing_osds().map(|(id, _)| id).collect();
            break;
        }
        match super::args::parse_osd(word).filter(|id| map.exists(*id)) {
            Some(id) => found.push(id),
            None => return refuse(errno::ENOENT, format!("osd.{word} does not exist")),
        }
    }
    let class = |id: &i32| map.crush.item_class(*id).unwrap_or_default().to_owned();
    Ok(ctx.either(
        || found.iter().map(|id| class(id) + "\n").collect(),
        || Json::arr(found.iter().map(|id| obj! { "osd" => *id, "device_class" => class(id) })),
    ))
}

fn lines(ctx: &Context<'_>, names: &[String]) -> Answer {
    ctx.either(|| names.iter().map(|n| format!("{n}\n")).collect(), || Json::arr(names))
}
