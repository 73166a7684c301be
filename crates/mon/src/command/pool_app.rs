//! `osd pool application *`: what a pool is used for.

use super::pool::{pool_named, put_pool};
use super::{Answer, Args, Context, Outcome, errno, refuse};
use crate::json::Json;

/// Applications of one pool, pairs of one application, and bytes of a name or value, at most.
const APPS_MAX: usize = 4;
const KEYS_MAX: usize = 64;
const NAME_MAX: usize = 128;

pub(super) fn enable(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, app) = (args.str("pool")?, args.str("app")?);
    let (id, mut pool) = pool_named(ctx.state.osd.map(), name)?;
    let done = format!("enabled application '{app}' on pool '{name}'");
    if app.is_empty() {
        return refuse(errno::EINVAL, "application name must be provided");
    }
    if pool.application_metadata.contains_key(app) {
        return Ok(Answer::status(done));
    }
    if !pool.application_metadata.is_empty() && !args.flag("yes_i_really_mean_it") {
        let text = format!(
            "Are you SURE? Pool '{name}' already has an enabled application; pass --yes-i-really-mean-it to proceed anyway"
        );
        return refuse(errno::EPERM, text);
    }
    if pool.application_metadata.len() >= APPS_MAX {
        return refuse(
            errno::EINVAL,
            format!("too many enabled applications on pool '{name}'; max {APPS_MAX}"),
        );
    }
    if app.len() > NAME_MAX {
        return refuse(
            errno::EINVAL,
            format!("application name '{app}' too long; max length {NAME_MAX}"),
        );
    }
    pool.application_metadata.insert(app.to_owned(), Default::default());
    put_pool(ctx, id, pool)?;
    Ok(Answer::status(done))
}

pub(super) fn disable(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, app) = (args.str("pool")?, args.str("app")?);
    let (id, mut pool) = pool_named(ctx.state.osd.map(), name)?;
    if !args.flag("yes_i_really_mean_it") {
        let text = "Are you SURE? Disabling an application within a pool might result in loss of application functionality; pass --yes-i-really-mean-it to proceed anyway";
        return refuse(errno::EPERM, text);
    }
    if pool.application_metadata.remove(app).is_none() {
        return Ok(Answer::status(format!("application '{app}' is not enabled on pool '{name}'")));
    }
    put_pool(ctx, id, pool)?;
    Ok(Answer::status(format!("disable application '{app}' on pool '{name}'")))
}

pub(super) fn set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, app) = (args.str("pool")?, args.str("app")?);
    let (key, value) = (args.str("key")?, args.str("value")?);
    let (id, mut pool) = pool_named(ctx.state.osd.map(), name)?;
    let Some(pairs) = pool.application_metadata.get_mut(app) else {
        return refuse(
            errno::ENOENT,
            format!("application '{app}' is not enabled on pool '{name}'"),
        );
    };
    let complaint = if key.is_empty() {
        Some("key must be provided".to_owned())
    } else if pairs.len() >= KEYS_MAX && !pairs.contains_key(key) {
        Some(format!("too many keys set for application '{app}' on pool '{name}'; max {KEYS_MAX}"))
    } else if key.len() > NAME_MAX {
        // Ceph names the application here, not the key.
        Some(format!("key '{app}' too long; max length {NAME_MAX}"))
    } else if value.len() > NAME_MAX {
        Some(format!("value '{value}' too long; max length {NAME_MAX}"))
    } else {
        None
    };
    if let Some(text) = complaint {
        return refuse(errno::EINVAL, text);
    }
    pairs.insert(key.to_owned(), value.to_owned());
    put_pool(ctx, id, pool)?;
    Ok(Answer::status(format!("set application '{app}' key '{key}' to '{value}' on pool '{name}'")))
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, app, key) = (args.str("pool")?, args.str("app")?, args.str("key")?);
    let (id, mut pool) = pool_named(ctx.state.osd.map(), name)?;
    let Some(pairs) = pool.application_metadata.get_mut(app) else {
        return refuse(
            errno::ENOENT,
            format!("application '{app}' is not enabled on pool '{name}'"),
        );
    };
    if pairs.remove(key).is_none() {
        return Ok(Answer::status(format!(
            "application '{app}' on pool '{name}' does not have key '{key}'"
        )));
    }
    put_pool(ctx, id, pool)?;
    Ok(Answer::status(format!("removed application '{app}' key '{key}' on pool '{name}'")))
}

pub(super) fn get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let apps_json = |pool: &spirula_maps::PgPool| {
        Json::obj(
            pool.application_metadata.iter().map(|(app, pairs)| (app.clone(), pairs_json(pairs))),
        )
    };
    let Some(name) = args.str_opt("pool")? else {
        let all =
            map.pools.iter().map(|(id, p)| (map.pool_name(*id).unwrap_or_default(), apps_json(p)));
        return Ok(ctx.json(&Json::obj(all)));
    };
    let (_, pool) = pool_named(map, name)?;
    let Some(app) = args.str_opt("app")? else {
        return Ok(ctx.json(&apps_json(&pool)));
    };
    let Some(pairs) = pool.application_metadata.get(app) else {
        return refuse(errno::ENOENT, format!("pool '{name}' has no application '{app}'"));
    };
    let Some(key) = args.str_opt("key")? else {
        return Ok(ctx.json(&pairs_json(pairs)));
    };
    match pairs.get(key) {
        Some(value) => Ok(Answer::text(format!("{value}\n"))),
        None => refuse(
            errno::ENOENT,
            format!("application '{app}' on pool '{name}' does not have key '{key}'"),
        ),
    }
}

fn pairs_json(pairs: &std::collections::BTreeMap<String, String>) -> Json {
    Json::obj(pairs.iter().map(|(k, v)| (k.clone(), Json::from(v))))
}
