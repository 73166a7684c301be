//! What one monitor answers about itself: `ceph tell mon.a ...` and the admin socket.

use super::config::help_json;
use super::mon::mon_status_json;
use super::{Args, Context, Outcome, Refusal, TELL_COMMANDS, errno, refuse, shape, words_of};
use crate::json::Json;
use crate::obj;
use crate::options;
use crate::service::plain_addr;

pub(super) fn version(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let json = obj! { "version" => crate::CEPH_RELEASE, "release" => "pacific", "release_type" => "stable" };
    Ok(ctx.json(&json))
}

pub(super) fn git_version(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&obj! { "git_version" => "" }))
}

/// The log's file is the process's, which acts on it before it asks here.
pub(super) fn log_file(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&Json::obj(Vec::<(String, Json)>::new())))
}

pub(super) fn help(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let lines = TELL_COMMANDS.iter().map(|c| (words_of(c.signature), Json::from(c.help)));
    let json = Json::obj(lines);
    Ok(ctx.either(
        || {
            TELL_COMMANDS
                .iter()
                .map(|c| format!("{:<40}{}\n", shape(c.signature), c.help))
                .collect()
        },
        || json,
    ))
}

pub(super) fn mon_status(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&mon_status_json(ctx)))
}

pub(super) fn sessions(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let each = ctx.live.peers.iter().map(|(id, p)| {
        obj! {
            "id" => *id,
            "name" => p.name.to_string(),
            "global_id" => p.global_id,
            "addr" => plain_addr(&p.addrs.front()),
            "features" => format!("{:#x}", p.features),
        }
    });
    Ok(ctx.json(&Json::Arr(each.collect())))
}

/// Commands are answered as they come, so none is ever in flight when this one is.
pub(super) fn ops(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&obj! { "ops" => Json::Arr(vec![]), "num_ops" => 0u32 }))
}

/// Options that are set, with where their value comes from.
pub(super) fn config_show(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let all = options::all().iter().map(|o| (o.name, Json::from(ctx.settings.str(o.name))));
    Ok(ctx.json(&Json::obj(all)))
}

pub(super) fn config_diff(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let changed = ctx.settings.set_names().map(|name| {
        let default = options::find(name).map_or("", |o| &o.default);
        let source = ctx.settings.source(name).to_owned();
        let value = Json::from(ctx.settings.str(name));
        let members = vec![
            ("default".to_owned(), Json::from(default)),
            (source, value.clone()),
            ("final".to_owned(), value),
        ];
        (name.to_owned(), Json::obj(members))
    });
    Ok(ctx.json(&obj! { "diff" => Json::obj(changed.collect::<Vec<_>>()) }))
}

pub(super) fn config_get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("var")?;
    match options::find(name) {
        Some(opt) => Ok(ctx.json(&obj! { opt.name => ctx.settings.str(opt.name) })),
        None => {
            refuse(errno::ENOENT, format!("error getting '{name}': (2) No such file or directory"))
        }
    }
}

/// Takes effect at once and ends with the process.
pub(super) fn config_set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let value = args.strs("val")?.join(" ");
    let name = args.str("var")?;
    override_option(ctx, name, &value).map_err(|refusal| {
        let why = match refusal.errno {
            errno::ENOENT => "(2) No such file or directory",
            _ => "(22) Invalid argument",
        };
        Refusal { text: format!("error setting '{name}' to '{value}': {why}"), ..refusal }
    })?;
    Ok(ctx.json(&obj! { "success" => "" }))
}

/// What an option is, or all of them.
pub(super) fn config_help(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let Some(name) = args.str_opt("var")? else {
        return Ok(ctx.json(&obj! { "options" => Json::arr(options::all().iter().map(help_json)) }));
    };
    match options::find(name) {
        Some(opt) => Ok(ctx.json(&obj! { "option" => help_json(opt) })),
        None => refuse(errno::ENOENT, format!("Setting not found: '{name}'")),
    }
}

pub(super) fn config_unset(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("var")?;
    let Some(opt) = options::find(name) else {
        let why = format!("error unsetting '{name}': (22) Invalid argument");
        return refuse(errno::EINVAL, why);
    };
    ctx.overrides.push((opt.name, None));
    Ok(ctx.json(&obj! {}))
}

/// `--debug-mon=20 --debug_ms 1`: options as on a command line.
pub(super) fn injectargs(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let given = args.strs("injected_args")?.join(" ");
    let mut words = given.split_whitespace();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--") else {
            return refuse(errno::EINVAL, format!("failed to parse arguments: {word}"));
        };
        let (name, value) = match option.split_once('=') {
            Some(pair) => pair,
            None => (option, words.next().unwrap_or_default()),
        };
        override_option(ctx, name, value)?;
    }
    Ok(ctx.json(&obj! {}))
}

fn override_option(ctx: &mut Context<'_>, name: &str, value: &str) -> Result<(), Refusal> {
    let Some(opt) = options::find(name) else {
        return refuse(errno::ENOENT, format!("unrecognized config option '{name}'"));
    };
    match opt.normalize(value) {
        Ok(value) => {
            ctx.overrides.push((opt.name, Some(value)));
            Ok(())
        }
        Err(e) => refuse(e.errno, format!("error parsing value: {}", e.text)),
    }
}
