//! `osd set-group|unset-group` and `osd add-no*|rm-no*`: `noup`, `nodown`, `noin` and `noout` for some OSDs,
//! for what is below a CRUSH bucket, or for a device class.

use spirula_maps::{Incremental, OsdMap, osd_state};

use super::args::parse_osd;
use super::osd_edit::{osds_named, put};
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};

fn bit(name: &str) -> Result<u32, Refusal> {
    match name {
        "noup" => Ok(osd_state::NOUP),
        "nodown" => Ok(osd_state::NODOWN),
        "noin" => Ok(osd_state::NOIN),
        "noout" => Ok(osd_state::NOOUT),
        other => {
            let known = "must be one of {noup,nodown,noin,noout}";
            refuse(errno::EINVAL, format!("unrecognized flag '{other}', {known}"))
        }
    }
}

pub(super) fn set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    change(ctx, args, true)
}

pub(super) fn unset(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    change(ctx, args, false)
}

fn change(ctx: &mut Context<'_>, args: &Args, on: bool) -> Outcome {
    let names = args.str("flags")?.split([',', ' ']).filter(|name| !name.is_empty());
    let bits = names.map(bit).collect::<Result<Vec<u32>, _>>()?;
    let bits = bits.into_iter().fold(0, |all, bit| all | bit);
    let mut inc = ctx.state.osd.next(ctx.now);
    let mut said = String::new();
    let mut found = false;
    for who in args.strs("who")? {
        found |= mark(ctx.state.osd.map(), &mut inc, who, (bits, on), &mut said);
    }
    if !found {
        return refuse(errno::EINVAL, said);
    }
    if !inc.is_empty() {
        put(ctx, inc)?;
    }
    Ok(Answer::status(said))
}

/// Sets or clears bits for whom `who` names; whether it names anything.
fn mark(
    map: &OsdMap,
    inc: &mut Incremental,
    who: &str,
    (bits, on): (u32, bool),
    said: &mut String,
) -> bool {
    let changed = |old: u32| if on { old | bits } else { old & !bits };
    if matches!(who, "all" | "any" | "*") {
        let all: Vec<i32> = map.existing_osds().map(|(id, _)| id).collect();
        all.iter().for_each(|osd| mark_osd(map, inc, *osd, bits, on));
    } else if let Some(osd) = parse_osd(who).filter(|osd| *osd >= 0) {
        if map.exists(osd) {
            mark_osd(map, inc, osd, bits, on);
        } else {
            *said += &format!("osd.{osd} does not exist. ");
        }
    } else if let Some(node) = map.crush.item_by_name(who) {
        let old = map.crush_node_flags.get(&node).copied().unwrap_or(0);
        if changed(old) != old {
            inc.new_crush_node_flags.insert(node, changed(old));
        }
    } else if let Some(class) = map.crush.class_by_name(who) {
        let old = map.device_class_flags.get(&class).copied().unwrap_or(0);
        if changed(old) != old {
            inc.new_device_class_flags.insert(class, changed(old));
        }
    } else {
        *said += &format!("unable to parse osd id or crush node or device class: \"{who}\". ");
        return false;
    }
    true
}

fn mark_osd(map: &OsdMap, inc: &mut Incremental, osd: i32, bits: u32, on: bool) {
    let state = map.osd(osd).map_or(0, |known| known.state);
    let flips = if on { bits & !state } else { bits & state };
    if flips != 0 {
        *inc.new_state.entry(osd).or_insert(0) |= flips;
    }
}

/// `osd add-noout IDS` and its kin, by the words of the command.
pub(super) fn of_osds(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let words = args.str("prefix")?.to_owned();
    let word = words.rsplit(' ').next().unwrap_or_default();
    let (on, name) = match word.split_once('-') {
        Some((verb, name)) => (verb == "add", name),
        None => (false, word),
    };
    let bits = bit(name)?;
    let map = ctx.state.osd.map();
    let mut inc = ctx.state.osd.next(ctx.now);
    let mut said = String::new();
    for osd in osds_named(ctx, args, |_| true)? {
        if map.exists(osd) {
            mark_osd(map, &mut inc, osd, bits, on);
        } else {
            said += &format!("osd.{osd} does not exist. ");
        }
    }
    if !inc.is_empty() {
        put(ctx, inc)?;
    }
    Ok(Answer::status(said))
}
