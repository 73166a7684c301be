//! `health`, `health mute|unmute`.

use std::time::Duration;

use spirula_wire::msg::mgr::HealthCheck;

use super::{Answer, Args, Context, Format, Outcome, Refusal, errno, refuse};
use crate::health::{muted, name, overall, short_name};
use crate::json::Json;
use crate::obj;
use crate::state::{Change, Mute};
use crate::text::{age, parse_timespan, stamp};

pub(super) fn health(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let detail = args.str_opt("detail")? == Some("detail");
    if ctx.format != Format::Plain {
        return Ok(ctx.json(&checks_json(ctx, detail)));
    }
    let mut out = format!("{}\n", line(ctx));
    if detail {
        for (code, check) in &ctx.live.checks.checks {
            let mark = mute_mark(ctx, code);
            out += &format!("{mark}{} {code}: {}\n", short_name(check.severity), check.summary);
            for text in &check.detail {
                out += &format!("    {text}\n");
            }
        }
    }
    Ok(Answer::text(out))
}

/// Health as `status` embeds it and other daemons are told.
pub(crate) fn health_json(ctx: &Context<'_>) -> Json {
    checks_json(ctx, false)
}

/// The summaries of what is open, as `status` lists them under the first line.
pub(super) fn summaries(ctx: &Context<'_>) -> Vec<String> {
    open_checks(ctx).map(|(_, check)| check.summary.clone()).collect()
}

/// ` (muted: A(59m) B)`, or nothing.
pub(super) fn muted_note(ctx: &Context<'_>) -> String {
    let mutes: Vec<String> =
        ctx.state.mutes.iter().map(|(code, m)| format!("{code}{}", left(ctx, m))).collect();
    if mutes.is_empty() { String::new() } else { format!(" (muted: {})", mutes.join(" ")) }
}

pub(super) fn status_name(ctx: &Context<'_>) -> &'static str {
    name(overall(ctx.state, &ctx.live.checks))
}

fn duration(text: &str) -> Result<Duration, Refusal> {
    let why = match parse_timespan(text) {
        Ok(0) => "timespan = 0".to_owned(),
        Ok(secs) => return Ok(Duration::from_secs(secs.unsigned_abs())),
        Err(why) => why,
    };
    refuse(errno::EINVAL, format!("invalid duration: {text} ({why})"))
}

pub(super) fn mute(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let code = args.str("code")?;
    let sticky = args.flag("sticky");
    let ttl = args.str_opt("ttl")?.map(duration).transpose()?;
    let check = ctx.live.checks.checks.get(code);
    if check.is_none() && !sticky {
        return refuse(errno::ENOENT, format!("health alert {code} is not currently raised"));
    }
    let until = ttl.map_or(0, |span| ctx.now.wall.saturating_add(span).as_nanos());
    let mute = Mute {
        until_nanos: until.try_into().unwrap_or(u64::MAX),
        sticky,
        summary: check.map(|c| c.summary.clone()).unwrap_or_default(),
        count: check.map_or(0, |c| c.count.max(0) as u64),
    };
    ctx.change(Change::Mute { code: code.to_owned(), mute: Some(mute) });
    Ok(Answer::default())
}

pub(super) fn unmute(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let wanted = args.str_opt("code")?;
    let ended = ctx.state.mutes.keys().filter(|code| wanted.is_none_or(|w| w == *code));
    let changes: Vec<_> =
        ended.map(|code| Change::Mute { code: code.clone(), mute: None }).collect();
    ctx.changes.extend(changes);
    Ok(Answer::default())
}

fn line(ctx: &Context<'_>) -> String {
    let open = summaries(ctx);
    let text = if open.is_empty() { String::new() } else { format!(" {}", open.join("; ")) };
    format!("{}{text}{}", status_name(ctx), muted_note(ctx))
}

fn open_checks<'a>(ctx: &'a Context<'_>) -> impl Iterator<Item = (&'a String, &'a HealthCheck)> {
    ctx.live.checks.checks.iter().filter(|(code, _)| !muted(ctx.state, code))
}

/// `(59m)`, or nothing for a mute without end.
fn left(ctx: &Context<'_>, mute: &Mute) -> String {
    if mute.until_nanos == 0 {
        return String::new();
    }
    let until = Duration::from_nanos(mute.until_nanos);
    format!("({})", age(until.saturating_sub(ctx.now.wall)))
}

fn mute_mark(ctx: &Context<'_>, code: &str) -> String {
    match ctx.state.mutes.get(code) {
        None => String::new(),
        Some(mute) => {
            let ttl = left(ctx, mute);
            let ttl = ttl.trim_matches(['(', ')']);
            let ttl = if ttl.is_empty() { String::new() } else { format!(", ttl {ttl}") };
            let sticky = if mute.sticky { ", STICKY" } else { "" };
            format!("(MUTED{ttl}{sticky}) ")
        }
    }
}

fn checks_json(ctx: &Context<'_>, detail: bool) -> Json {
    let one = |(code, check): (&String, &HealthCheck)| {
        let mut json = obj! {
            "severity" => name(check.severity),
            "summary" => obj! { "message" => &check.summary, "count" => check.count },
        };
        if detail {
            json = json
                .with("detail", Json::arr(check.detail.iter().map(|d| obj! { "message" => d })));
        }
        (code.clone(), json.with("muted", muted(ctx.state, code)))
    };
    let mutes = ctx.state.mutes.iter().map(|(code, m)| {
        let mut json = obj! { "code" => code };
        if m.until_nanos > 0 {
            json = json.with("ttl", stamp(Duration::from_nanos(m.until_nanos)));
        }
        json.with("sticky", m.sticky).with("summary", &m.summary).with("count", m.count)
    });
    obj! {
        "status" => status_name(ctx),
        "checks" => Json::obj(ctx.live.checks.checks.iter().map(one)),
        "mutes" => mutes.collect::<Vec<_>>(),
    }
}
