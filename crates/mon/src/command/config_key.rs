//! `config-key *`: the cluster's small key-value store.
//!
//! As in Ceph the options that are set (`config/WHO/NAME`) and their history
//! (`config-history/VERSION/...`) are keys of it too. Here these are a view of the configuration:
//! what is written there is checked like `config set`, and is in the history.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use spirula_wire::types::UTime;
use spirula_wire::{Encode, Features};

use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::json::Json;
use crate::options;
use crate::state::config::{ConfigDb, Scope};
use crate::state::{Change, State};

/// Largest value (`mon_config_key_max_entry_size`).
const VALUE_MAX: usize = 65_536;

const CONFIG: &str = "config/";
const HISTORY: &str = "config-history/";

/// What the store holds, and what is a view of the configuration.
fn all(state: &State) -> BTreeMap<Cow<'_, str>, Bytes> {
    let stored = state.keys.iter().map(|(key, value)| (Cow::from(key), value.clone()));
    stored.chain(options_set(&state.config)).chain(changes(&state.config)).collect()
}

fn options_set(config: &ConfigDb) -> impl Iterator<Item = (Cow<'_, str>, Bytes)> {
    config.dump().into_iter().map(|(scope, name, value)| {
        let key = format!("{CONFIG}{}/{name}", scope.who());
        (key.into(), Bytes::copy_from_slice(value.as_bytes()))
    })
}

/// For each version a stamp and a name, which are Ceph's binary, and what was before and after.
fn changes(config: &ConfigDb) -> impl Iterator<Item = (Cow<'_, str>, Bytes)> {
    config.history().flat_map(|event| {
        let key = move |rest: String| Cow::from(format!("{HISTORY}{}/{rest}", event.version));
        let option = move |sign: char| key(format!("{sign}{}/{}", event.scope.who(), event.name));
        let mut about = Vec::new();
        UTime::from(Duration::from_nanos(event.stamp_nanos)).encode(&mut about, Features::PACIFIC);
        "".to_owned().encode(&mut about, Features::PACIFIC);
        let text = |value: &String| Bytes::copy_from_slice(value.as_bytes());
        let before = event.before.as_ref().map(|value| (option('-'), text(value)));
        let after = event.after.as_ref().map(|value| (option('+'), text(value)));
        [Some((key(String::new()), about.into())), before, after].into_iter().flatten()
    })
}

fn find<'a>(state: &'a State, key: &str) -> Option<Cow<'a, Bytes>> {
    if key.starts_with(CONFIG) || key.starts_with(HISTORY) {
        return all(state).remove(key).map(Cow::Owned);
    }
    state.keys.get(key).map(Cow::Borrowed)
}

/// The change that writing or removing a key is.
fn change(ctx: &Context<'_>, key: &str, value: Option<Bytes>) -> Result<Change, Refusal> {
    if key.starts_with(HISTORY) {
        return refuse(errno::EPERM, "the configuration's history cannot be changed");
    }
    // What was stored before it was a view can still be removed.
    let is_stored = ctx.state.keys.contains_key(key) && value.is_none();
    match key.strip_prefix(CONFIG).filter(|_| !is_stored) {
        Some(option) => option_change(option, value),
        None => Ok(Change::Key { key: key.to_owned(), value }),
    }
}

fn option_change(option: &str, value: Option<Bytes>) -> Result<Change, Refusal> {
    // Masks and names of options may have slashes as well.
    let splits = option.rmatch_indices('/').map(|(at, _)| option.split_at(at));
    let parsed = splits.map(|(who, name)| (Scope::parse(who), name[1..].to_owned()));
    let Some((scope, name)) = parsed.into_iter().find_map(|(scope, name)| Some((scope?, name)))
    else {
        return refuse(errno::EINVAL, format!("'{CONFIG}{option}' names no option of a daemon"));
    };
    let Some(value) = value else {
        return Ok(Change::Config { scope, name, value: None });
    };
    let Ok(text) = std::str::from_utf8(&value) else {
        return refuse(errno::EINVAL, "the value of an option is text");
    };
    let checked = match options::find(&name).map(|opt| opt.normalize(text)) {
        Some(Err(e)) => return refuse(e.errno, format!("error parsing value: {}", e.text)),
        Some(Ok(value)) => value,
        None => text.to_owned(),
    };
    Ok(Change::Config { scope, name, value: Some(checked) })
}

pub(super) fn get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    match find(ctx.state, args.str("key")?) {
        Some(value) => Ok(Answer::raw(value.into_owned())),
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
    let change = change(ctx, key, Some(value))?;
    ctx.change(change);
    Ok(Answer::status(format!("set {key}")))
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let key = args.str("key")?;
    if find(ctx.state, key).is_some() {
        let change = change(ctx, key, None)?;
        ctx.change(change);
    }
    Ok(Answer::status("key deleted"))
}

pub(super) fn exists(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let key = args.str("key")?;
    if find(ctx.state, key).is_some() {
        return Ok(Answer::status(format!("key '{key}' exists")));
    }
    refuse(errno::ENOENT, format!("key '{key}' doesn't exist"))
}

pub(super) fn ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json_nl(&Json::arr(all(ctx.state).keys().map(Cow::as_ref))))
}

pub(super) fn dump(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let prefix = args.str_opt("key")?.unwrap_or_default();
    let wanted = all(ctx.state).into_iter().filter(|(key, _)| key.starts_with(prefix));
    let members = wanted.map(|(key, value)| {
        let shown = match std::str::from_utf8(&value) {
            Ok(text) if text.chars().all(|c| !c.is_control() || c == '\n') => text.to_owned(),
            _ => format!("<<< binary blob of length {} >>>", value.len()),
        };
        (key.into_owned(), Json::from(shown))
    });
    Ok(ctx.json_nl(&Json::obj(members)))
}
