//! `ceph tell osd.N` and the admin socket: one table of commands, which also yields the
//! descriptions that the `ceph` tool asks for.

mod config;
mod dump;
mod peering;
mod query;
mod scrub;
mod unfound;
mod vos;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use spirula_msgr::on_xstream::Incoming;
use spirula_wire::msg::command::{Command, CommandReply};
use spirula_wire::{Features, Message, RawMessage};
use spirula_xstream::{Class, mailbox, spawn};

use crate::boot::{CEPH_VERSION, beacon_message};
use crate::errno::*;
use crate::full::Level;
use crate::session::Session;
use crate::target::Target;

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommandResult {
    /// 0 or a negated error number.
    pub r: i32,
    /// Status text.
    pub rs: String,
    pub out: Vec<u8>,
}

/// Arguments by name, as text.
pub type Args = BTreeMap<String, Value>;

type Handler = fn(&Target, &Args) -> Result<Value, Failure>;

/// An error number (positive) and a text for the user.
struct Failure(i32, String);

struct Row {
    /// Words and, in angle brackets, arguments as `<name:type>`; `?` before the type: optional,
    /// `...` behind it: one or more.
    sig: &'static str,
    help: &'static str,
    handler: Handler,
}

macro_rules! commands {
    ($($sig:literal, $help:literal => $handler:expr;)*) => {
        const COMMANDS: &[Row] = &[$(Row { sig: $sig, help: $help, handler: $handler }),*];
    };
}

commands! {
    "bluestore allocator dump block", "dump allocator free regions" => vos::allocator_dump;
    "bluestore allocator score block", "give score on allocator fragmentation (0-no fragmentation, 1-absolute fragmentation)"
        => vos::allocator_score;
    "cache drop", "Drop all OSD caches" => |_, _| Ok(json!({}));
    "cache status", "Get OSD caches statistics" => |_, _| Ok(json!({ "object_ctx": 0, "bytes": 0 }));
    "config diff", "dump diff of current config and default config" => config::diff;
    "config diff get <var:CephString>",
        "dump diff get <field>: dump diff of current and default config setting <field>" => config::diff_get;
    "config get <var:CephString>", "config get <field>: get the config value" => config::get;
    "config help <var:?CephString>", "get config setting schema and descriptions" => config::help;
    "config set <var:CephString> <val:CephString...>",
        "config set <field> <val> [<val> ...]: set a config variable" => config::set;
    "config show", "dump current config settings" => config::show;
    "config unset <var:CephString>", "config unset <field>: unset a config variable" => config::unset;
    "dump_blocked_ops", "show the blocked ops currently in flight" => dump::ops_blocked;
    "dump_blocklist", "dump blocklisted clients and times" => dump::blocklist;
    "dump_historic_ops", "show recent ops" => dump::ops_historic;
    "dump_historic_ops_by_duration", "show slowest recent ops, sorted by duration"
        => dump::ops_by_duration;
    "dump_historic_slow_ops", "show slowest recent ops" => dump::ops_slow;
    "dump_ops_in_flight", "show the ops currently in flight" => dump::ops_in_flight;
    "dump_watchers", "show clients which have active watches, and on which objects"
        => dump::watchers;
    "dump_scrubs", "show when the store was scrubbed and what is damaged" => scrub::dump;
    "flush_pg_stats", "flush pg stats" => flush_pg_stats;
    "get_command_descriptions", "list available commands" => |_, _| Ok(descriptions());
    "get_latest_osdmap", "force osd to update the latest map from the mon" => get_latest_osdmap;
    "get_mapped_pools", "dump pools whose PG(s) are mapped to this OSD." => dump::mapped_pools;
    "git_version", "get git sha1" => |_, _| Ok(json!({ "git_version": "" }));
    "help", "list available commands" => |_, _| Ok(help());
    "injectfull <type:?CephString> <count:?CephInt>", "Inject a full disk (optional count times)"
        => inject_full;
    "injectargs <injected_args:CephString...>", "inject configuration arguments into running daemon"
        => config::inject;
    "list_unfound <pgid:?CephPgid> <offset:?CephString>",
        "list unfound objects on this pg, perhaps starting at an offset given in JSON" => unfound::list;
    "log dump", "dump recent log entries to log file" => |_, _| Ok(json!({}));
    "log flush", "flush log entries to log file" => |_, _| Ok(json!({}));
    "log reopen", "reopen log file" => |_, _| Ok(json!({}));
    "mark_unfound_lost <pgid:?CephPgid> <mulcmd:CephChoices:revert|delete>",
        "mark all unfound objects in this pg as lost, either removing or reverting to a prior version if one is available"
        => unfound::mark;
    "ops", "show the ops currently in flight" => dump::ops_in_flight;
    "perf dump <logger:?CephString> <counter:?CephString>", "dump perfcounters value" => dump::perf;
    "perf schema <logger:?CephString> <counter:?CephString>", "dump perfcounters schema"
        => dump::perf_schema;
    "pg <pgid:CephPgid> <cmd:CephChoices:list_unfound> <offset:?CephString>",
        "list unfound objects on this pg, perhaps starting at an offset given in JSON" => query::pg_command;
    "pg <pgid:CephPgid> <cmd:CephChoices:mark_unfound_lost> <mulcmd:CephChoices:revert|delete>",
        "mark all unfound objects in this pg as lost, either removing or reverting to a prior version if one is available"
        => query::pg_command;
    "pg <pgid:CephPgid> <cmd:CephChoices:query>", "show details of a specific pg" => query::pg_command;
    "query <pgid:?CephPgid>", "show details of a specific pg" => query::pg_query;
    "send_beacon", "send OSD beacon to mon immediately" => send_beacon;
    "status", "high-level status of OSD" => dump::status;
    "trigger_deep_scrub <pgid:?CephString>",
        "scrub the whole store now, whatever the PG: every page and extent is verified"
        => scrub::trigger;
    "version", "get ceph version" => version;
}

/// The signatures of all commands, as in the table.
pub fn signatures() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|row| row.sig)
}

/// Answers a `command` message. Only those who may do everything may give commands.
pub fn handle_command(target: &Target, session: &Session, incoming: &Incoming) {
    let result = match Command::from_raw(&incoming.raw) {
        Ok(_) if !session.allow_all => {
            CommandResult { r: -13, rs: "access denied".into(), ..CommandResult::default() }
        }
        Ok(command) => {
            let text = command.cmd.concat();
            if let Some(prefix) = log_command(&text) {
                return answer_when_logged(target, session, incoming, &prefix, text);
            }
            if let Some(order) = marks_lost(target, &text) {
                return answer_when_given_up(target, session, incoming, order);
            }
            run_json(target, &text)
        }
        Err(e) => CommandResult { r: -EINVAL, rs: e.to_string(), ..CommandResult::default() },
    };
    session.link.send(reply_to(incoming.raw.header.tid, result));
}

fn reply_to(tid: u64, result: CommandResult) -> RawMessage {
    let reply = CommandReply { r: result.r, rs: result.rs, outbl: result.out.into() };
    reply.to_raw(tid, Features::PACIFIC)
}

/// The prefix of a command that acts on the log's file.
fn log_command(text: &str) -> Option<String> {
    let prefix = text_arg(&serde_json::from_str(text).ok()?, "prefix");
    matches!(prefix.as_str(), "log dump" | "log flush" | "log reopen").then_some(prefix)
}

/// Unfound objects are to be given up, and may be.
fn marks_lost(target: &Target, text: &str) -> Option<unfound::Order> {
    let args: Args = serde_json::from_str(text).ok()?;
    let names = [text_arg(&args, "prefix"), text_arg(&args, "cmd")];
    let marks = names.iter().any(|name| name == "mark_unfound_lost");
    marks.then(|| unfound::order(target, &args).ok()).flatten()
}

fn answer_when_given_up(
    target: &Target,
    session: &Session,
    incoming: &Incoming,
    order: unfound::Order,
) {
    let (link, tid) = (session.link.clone(), incoming.raw.header.tid);
    unfound::carry_out(target, order, move |result| link.send(reply_to(tid, result)));
}

/// The log's thread may have to wait for the disk, this one must not.
fn answer_when_logged(
    target: &Target,
    session: &Session,
    incoming: &Incoming,
    prefix: &str,
    text: String,
) {
    let (done, mut is_done) = mailbox();
    target.log_command(prefix, Box::new(move || _ = done.send(())));
    let (link, reply) =
        (session.link.clone(), reply_to(incoming.raw.header.tid, run_json(target, &text)));
    drop(spawn(Class::Background, async move {
        // Nothing comes from a log that ended.
        let _ = is_done.recv().await;
        link.send(reply);
    }));
}

/// Runs a command given as a JSON object with a `prefix`.
pub fn run_json(target: &Target, text: &str) -> CommandResult {
    let fail = |rs: String| CommandResult { r: -EINVAL, rs, ..CommandResult::default() };
    let args: Args = match serde_json::from_str(text) {
        Ok(args) => args,
        Err(e) => return fail(format!("command is not JSON: {e}")),
    };
    let prefix = text_arg(&args, "prefix");
    let Some(row) = COMMANDS.iter().find(|row| row.prefix() == prefix) else {
        return fail(unknown(&prefix));
    };
    match (row.handler)(target, &args) {
        Ok(value) => {
            CommandResult { out: render(&value, &text_arg(&args, "format")), ..Default::default() }
        }
        Err(Failure(errno, rs)) => CommandResult { r: -errno, rs, ..CommandResult::default() },
    }
}

fn unknown(prefix: &str) -> String {
    let first = prefix.split(' ').next().unwrap_or_default();
    let near: Vec<String> = COMMANDS
        .iter()
        .map(Row::prefix)
        .filter(|p| !first.is_empty() && p.contains(first))
        .take(10)
        .collect();
    match near.as_slice() {
        [] => format!("no valid command found for '{prefix}'; see 'help'"),
        near => {
            format!("no valid command found; {} closest matches: {}", near.len(), near.join(", "))
        }
    }
}

impl Row {
    fn prefix(&self) -> String {
        let words: Vec<_> = self.sig.split(' ').filter(|w| !w.starts_with('<')).collect();
        words.join(" ")
    }

    fn sig_json(&self) -> Value {
        let part = |word: &str| {
            let Some(arg) = word.strip_prefix('<').and_then(|w| w.strip_suffix('>')) else {
                return json!(word);
            };
            let mut fields = arg.split(':');
            let (name, kind) =
                (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let mut out = Map::new();
            out.insert("name".into(), json!(name));
            let kind_name = kind.trim_start_matches('?').trim_end_matches("...");
            out.insert("type".into(), json!(kind_name));
            if kind.ends_with("...") {
                out.insert("n".into(), json!("N"));
            }
            if let Some(choices) = fields.next() {
                out.insert("strings".into(), json!(choices));
            }
            if kind.starts_with('?') {
                out.insert("req".into(), json!("false"));
            }
            Value::Object(out)
        };
        self.sig.split(' ').map(part).collect()
    }
}

fn descriptions() -> Value {
    let row = |(i, row): (usize, &Row)| {
        (format!("cmd{i:03}"), json!({ "sig": row.sig_json(), "help": row.help }))
    };
    Value::Object(COMMANDS.iter().enumerate().map(row).collect())
}

fn help() -> Value {
    Value::Object(COMMANDS.iter().map(|r| (r.prefix(), json!(r.help))).collect())
}

/// Text as it is; everything else as JSON, indented unless asked for in one line.
fn render(value: &Value, format: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Null => {}
        Value::String(text) => out.extend_from_slice(text.as_bytes()),
        value if format == "json" => out = value.to_string().into_bytes(),
        value => {
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut writer = serde_json::Serializer::with_formatter(&mut out, indent);
            // Writing to memory does not fail.
            let _ = serde::Serialize::serialize(value, &mut writer);
            out.push(b'\n');
        }
    }
    out
}

fn text_arg(args: &Args, name: &str) -> String {
    match args.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn version(_: &Target, _: &Args) -> Result<Value, Failure> {
    let short = CEPH_VERSION.split(' ').nth(2).unwrap_or_default();
    Ok(json!({ "version": short, "release": "pacific", "release_type": "stable" }))
}

fn inject_full(target: &Target, args: &Args) -> Result<Value, Failure> {
    let name = match text_arg(args, "type") {
        none if none.is_empty() => "full".to_owned(),
        name => name,
    };
    let count = args.get("count").and_then(Value::as_i64).unwrap_or(-1);
    // As in Ceph, where this is no error.
    let Some(level) = Level::by_name(&name) else {
        return Ok(json!("Invalid type use (none, nearfull, backfillfull, full, failsafe)"));
    };
    target.fullness().inject(target, level, count);
    Ok(Value::Null)
}

fn send_beacon(target: &Target, _: &Args) -> Result<Value, Failure> {
    target.mon().send(target, beacon_message(target));
    Ok(Value::Null)
}

fn get_latest_osdmap(target: &Target, _: &Args) -> Result<Value, Failure> {
    target.mon().want_maps(target);
    Ok(Value::Null)
}

fn flush_pg_stats(target: &Target, _: &Args) -> Result<Value, Failure> {
    target.report_now();
    // The report that was just asked for is the next one.
    Ok(Value::String(format!("{}\n", crate::mgr::report_seq(target) + 1)))
}
