//! `config-key *`: the cluster's small key-value store.

use bytes::Bytes;

use super::{Answer, Args, Context, Outcome, errno, refuse};
use crate::json::Json;
use crate::state::Change;

/// Largest value (`mon_config_key_max_entry_size`).
const VALUE_MAX: usize = 65_536;

pub(super) fn get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    match ctx.state.keys.get(args.str("key")?) {
        Some(value) => Ok(Answer::raw(value.clone())),
        None => refuse(errno::ENOENT, ""),
    }
}

pub(super) fn set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let key = args.str("key")?;
    let value = match args.str_opt("val")? {
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
        None => ctx.input.clone(),
    };
    if value.len() > VALUE_MAX {
        return refuse(
            27,
            format!(
                "error: entry size limited to {VALUE_MAX} bytes. Use 'mon config key max entry size' to manually adjust"
            ),
        );
    }
    ctx.change(Change::Key { key: key.to_owned(), value: Some(value) });
    Ok(Answer::status(format!("set {key}")))
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let key = args.str("key")?;
    if ctx.state.keys.contains_key(key) {
        ctx.change(Change::Key { key: key.to_owned(), value: None });
    }
    Ok(Answer::status("key deleted"))
}

pub(super) fn exists(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let key = args.str("key")?;
    if ctx.state.keys.contains_key(key) {
        return Ok(Answer::status(format!("key '{key}' exists")));
    }
    refuse(errno::ENOENT, format!("key '{key}' doesn't exist"))
}

pub(super) fn ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json_nl(&Json::arr(ctx.state.keys.keys())))
}

pub(super) fn dump(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let prefix = args.str_opt("key")?.unwrap_or_default();
    let members =
        ctx.state.keys.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, value)| {
            let shown = match std::str::from_utf8(value) {
                Ok(text) if text.chars().all(|c| !c.is_control() || c == '\n') => text.to_owned(),
                _ => format!("<<< binary blob of length {} >>>", value.len()),
            };
            (key.clone(), Json::from(shown))
        });
    Ok(ctx.json_nl(&Json::obj(members)))
}
