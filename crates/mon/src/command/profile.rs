//! `osd erasure-code-profile *`.

use std::collections::BTreeMap;

use super::osd_edit::put;
use super::{Answer, Args, Context, Outcome, errno, refuse};
use crate::json::Json;

pub(super) fn ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let profiles = &ctx.state.osd.map().erasure_code_profiles;
    if ctx.format == super::Format::Plain {
        return Ok(Answer::text(profiles.keys().fold(String::new(), |out, n| out + n + "\n")));
    }
    Ok(ctx.json_line(&Json::arr(profiles.keys())))
}

pub(super) fn get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let Some(profile) = ctx.state.osd.map().erasure_code_profiles.get(name) else {
        return refuse(errno::ENOENT, format!("unknown erasure code profile '{name}'"));
    };
    if ctx.format == super::Format::Plain {
        return Ok(Answer::text(
            profile.iter().map(|(k, v)| format!("{k}={v}\n")).collect::<String>(),
        ));
    }
    Ok(ctx.json_line(&Json::obj(profile.iter().map(|(k, v)| (k.clone(), Json::from(v))))))
}

pub(super) fn set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let mut words = args.strs("profile")?;
    let force = args.flag("force") || words.contains(&"--force");
    words.retain(|w| *w != "--force");
    let mut profile = defaults();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        profile.insert(key.to_owned(), value.to_owned());
    }
    if profile.get("plugin").is_some_and(|p| p != "jerasure" && p != "isa") {
        return refuse(
            errno::ENOENT,
            format!("unknown erasure code plugin '{}'", profile["plugin"]),
        );
    }
    for key in ["k", "m"] {
        if profile.get(key).and_then(|v| v.parse::<u8>().ok()).is_none_or(|n| n == 0) {
            return refuse(
                errno::EINVAL,
                format!(
                    "{key}={} must be a number above 0",
                    profile.get(key).map_or("", String::as_str)
                ),
            );
        }
    }
    if let Some(old) = ctx.state.osd.map().erasure_code_profiles.get(name) {
        if *old == profile {
            return Ok(Answer::default());
        }
        if !force {
            let text = format!(
                "will not override erasure code profile {name} because the existing profile {} is different from the proposed profile {}",
                shown(old),
                shown(&profile)
            );
            return refuse(errno::EPERM, text);
        }
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_erasure_code_profiles.insert(name.to_owned(), profile);
    put(ctx, inc)?;
    Ok(Answer::default())
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let map = ctx.state.osd.map();
    if !map.erasure_code_profiles.contains_key(name) {
        return Ok(Answer::status(format!("erasure-code-profile {name} does not exist")));
    }
    if let Some((id, _)) =
        map.pools.iter().find(|(_, p)| p.is_erasure() && p.erasure_code_profile == name)
    {
        let pool = map.pool_name(*id).unwrap_or_default();
        return refuse(
            errno::EBUSY,
            format!("pool '{pool}' is using the erasure code profile '{name}'"),
        );
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.old_erasure_code_profiles.push(name.to_owned());
    put(ctx, inc)?;
    Ok(Answer::default())
}

fn defaults() -> BTreeMap<String, String> {
    let pairs = [
        ("crush-device-class", ""),
        ("crush-failure-domain", "host"),
        ("crush-root", "default"),
        ("jerasure-per-chunk-alignment", "false"),
        ("k", "2"),
        ("m", "2"),
        ("plugin", "jerasure"),
        ("technique", "reed_sol_van"),
        ("w", "8"),
    ];
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn shown(profile: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = profile.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{{{}}}", pairs.join(","))
}
