//! What the manager answers about itself: `ceph tell mgr.x` and its admin socket. (The cluster's
//! commands are in [`command`](crate::command).)
//!
//! Its only options are its debug levels, and it keeps no counters.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value};
use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_wire::errno::{EINVAL, ENOENT};
use spirula_wire::msg::command::CommandReply;
use spirula_wire::msg::mgr::{DaemonConfig, config_level};
use spirula_wire::types::{EntityAddr, EntityName};

use crate::daemons::DaemonOptions;
use crate::health::{QuotaThresholds, Thresholds};

const LEVEL_MAX: u8 = 99;

/// The options there are, with their defaults.
const OPTIONS: &[(&str, &str)] = &[
    ("debug_asok", "1/5"),
    ("debug_auth", "1/5"),
    ("debug_mgr", "2/5"),
    ("debug_monc", "0/10"),
    ("debug_ms", "0/0"),
];

/// Prefix, parameters (`name...`: one or more, `name?`: optional), help.
const COMMANDS: &[(&str, &[&str], &str)] = &[
    ("config diff", &[], "dump diff of current config and default config"),
    (
        "config diff get",
        &["var"],
        "dump diff get <field>: dump diff of current and default config setting <field>",
    ),
    ("config get", &["var"], "config get <field>: get the config value"),
    (
        "config set",
        &["var", "val..."],
        "config set <field> <val> [<val> ...]: set a config variable",
    ),
    ("config show", &[], "dump current config settings"),
    ("config unset", &["var"], "config unset <field>: unset a config variable"),
    ("get_command_descriptions", &[], "list available commands"),
    ("git_version", &[], "get git sha1"),
    ("help", &[], "list available commands"),
    ("injectargs", &["injected_args..."], "inject configuration arguments into running daemon"),
    ("log dump", &[], "dump recent log entries to log file"),
    ("log flush", &[], "flush log entries to log file"),
    ("log reopen", &[], "reopen log file"),
    ("mgr_status", &[], "Dump mgr status"),
    ("perf dump", &["logger?", "counter?"], "dump perfcounters value"),
    ("perf schema", &["logger?", "counter?"], "dump perfcounters schema"),
    ("status", &[], "show overall client status"),
    ("version", &[], "get ceph version"),
];

/// What the manager says of its state.
pub(crate) struct Status {
    pub(crate) gid: u64,
    pub(crate) addr: EntityAddr,
    pub(crate) mgrmap_epoch: u32,
    pub(crate) osd_epoch: u32,
}

/// The values of the manager's options.
#[derive(Debug, Default)]
pub(crate) struct Options {
    mon: BTreeMap<String, String>,
    overrides: BTreeMap<&'static str, String>,
}

/// A positive error number and a text for the user.
type Failure = (i32, String);

/// The words of all commands.
pub fn prefixes() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(prefix, ..)| *prefix)
}

/// The prefix of a command that acts on the log's file.
pub fn log_command(json: &str) -> Option<String> {
    let prefix = text(&serde_json::from_str(json).ok()?, "prefix");
    matches!(prefix.as_str(), "log dump" | "log flush" | "log reopen").then_some(prefix)
}

/// Answers a command, a JSON object with a `prefix`. (What acts on the log has been done before.)
pub(crate) fn answer(options: &mut Options, status: &Status, json: &str) -> CommandReply {
    let refuse = |(errno, rs): Failure| CommandReply { r: -errno, rs, ..CommandReply::default() };
    let Ok(args) = serde_json::from_str::<Map<String, Value>>(json) else {
        return refuse((EINVAL, "invalid json".into()));
    };
    match options.answer(status, &args) {
        Err(failure) => refuse(failure),
        Ok(json) => {
            let is_compact = text(&args, "format") == "json";
            let out = if is_compact { json.compact() } else { json.pretty() };
            CommandReply { outbl: out.into(), ..CommandReply::default() }
        }
    }
}

impl Options {
    /// The monitor's values, which come below those set here.
    pub(crate) fn set_mon(&mut self, values: BTreeMap<String, String>) {
        self.mon = values;
    }

    /// What health checks go by.
    pub(crate) fn thresholds(&self) -> Thresholds {
        let stuck = self.mon.get("mon_pg_stuck_threshold").and_then(|v| v.parse().ok());
        let stuck = Duration::from_secs(stuck.unwrap_or(60));
        Thresholds { quotas: self.quota_thresholds(), stuck }
    }

    /// From which use of their quota on pools are in a health check.
    fn quota_thresholds(&self) -> QuotaThresholds {
        let percent = |name: &str| self.mon.get(name).and_then(|v| v.parse().ok()).unwrap_or(0);
        QuotaThresholds {
            warn: percent("mon_pool_quota_warn_threshold"),
            critical: percent("mon_pool_quota_crit_threshold"),
        }
    }

    /// As `config show` has them.
    pub(crate) fn report(&self) -> DaemonOptions {
        let mut values: BTreeMap<String, BTreeMap<i32, String>> = BTreeMap::new();
        let mut add = |name: &str, level, value: &String| {
            values.entry(name.to_owned()).or_default().insert(level, value.clone());
        };
        self.mon.iter().for_each(|(name, value)| add(name, config_level::MON, value));
        self.overrides.iter().for_each(|(name, value)| add(name, config_level::OVERRIDE, value));
        let defaults = OPTIONS.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        DaemonOptions {
            config: DaemonConfig { values, ignored: BTreeMap::new() },
            defaults: defaults.collect(),
        }
    }

    fn answer(&mut self, status: &Status, args: &Map<String, Value>) -> Result<Json, Failure> {
        let prefix = text(args, "prefix");
        Ok(match prefix.as_str() {
            "config diff" => obj! { "diff" => self.diff(None) },
            "config diff get" => obj! { "diff" => self.diff(Some(&text(args, "var"))) },
            "config get" => {
                let (name, default) = option(&text(args, "var"), "getting", ENOENT)?;
                obj! { name => self.value(name, default) }
            }
            "config set" => {
                self.set(&text(args, "var"), &text(args, "val"))?;
                obj! { "success" => "" }
            }
            "config show" => Json::obj(OPTIONS.iter().map(|(n, d)| (*n, self.value(n, d).into()))),
            "config unset" => {
                let (name, _) = option(&text(args, "var"), "unsetting", EINVAL)?;
                self.overrides.remove(name);
                obj! {}
            }
            "get_command_descriptions" => descriptions(),
            "git_version" => obj! { "git_version" => "" },
            "help" => Json::obj(COMMANDS.iter().map(|(p, _, h)| (*p, Json::from(*h)))),
            "injectargs" => self.inject(&text(args, "injected_args"))?,
            "mgr_status" => obj! { "mgrmap_epoch" => status.mgrmap_epoch, "initialized" => true },
            "status" => status.json(),
            "version" => obj! {
                "version" => spirula_mon::CEPH_RELEASE,
                "release" => "pacific",
                "release_type" => "stable",
            },
            // The log's are done before; counters there are none.
            "log dump" | "log flush" | "log reopen" | "perf dump" | "perf schema" => obj! {},
            _ => return Err((EINVAL, unknown(&prefix))),
        })
    }

    fn set(&mut self, var: &str, value: &str) -> Result<(), Failure> {
        let (name, _) = option(var, &format!("setting to '{value}'"), ENOENT)
            .map_err(|(errno, _)| set_failure(var, value, errno))?;
        let (log, gather) = value.split_once('/').unwrap_or((value, value));
        let level = |t: &str| t.trim().parse().ok().filter(|n: &u8| *n <= LEVEL_MAX);
        let (Some(log), Some(gather)) = (level(log), level(gather)) else {
            return Err(set_failure(var, value, EINVAL));
        };
        self.overrides.insert(name, format!("{log}/{gather}"));
        Ok(())
    }

    /// `--name=value`, or `--name value`, any number of them.
    fn inject(&mut self, given: &str) -> Result<Json, Failure> {
        let mut words = given.split_whitespace();
        while let Some(word) = words.next() {
            let invalid = || (EINVAL, format!("failed to parse arguments: {word}"));
            let option = word.strip_prefix("--").ok_or_else(invalid)?;
            let (name, value) = match option.split_once('=') {
                Some(pair) => pair,
                None => (option, words.next().ok_or_else(invalid)?),
            };
            self.set(&name.replace('-', "_"), value)?;
        }
        Ok(obj! {})
    }

    fn value(&self, name: &str, default: &str) -> String {
        let set = self.overrides.get(name).or_else(|| self.mon.get(name));
        set.cloned().unwrap_or_else(|| default.to_owned())
    }

    /// Where the value of each changed option comes from.
    fn diff(&self, only: Option<&str>) -> Json {
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let row = |(name, default): &(&'static str, &str)| {
            let sources = [("mon", self.mon.get(*name)), ("override", self.overrides.get(*name))];
            let set = sources.into_iter().filter_map(|(source, value)| Some((source, value?)));
            let set: Vec<_> = set.map(|(source, value)| (source, value.as_str().into())).collect();
            if set.is_empty() || !wanted(name) {
                return None;
            }
            let ends = |key, value: &str| [(key, Json::from(value))];
            let row = ends("default", default).into_iter().chain(set);
            Some((*name, Json::obj(row.chain(ends("final", &self.value(name, default))))))
        };
        Json::obj(OPTIONS.iter().filter_map(row))
    }
}

impl Status {
    /// Of what Ceph's manager says here, as a client of MDSs, the part that any client has.
    fn json(&self) -> Json {
        let name = EntityName::mgr(self.gid as i64);
        let plain = self.addr.addr.map_or_else(|| "-".to_owned(), |addr| addr.to_string());
        let addr = obj! { "type" => "v2", "addr" => plain.as_str(), "nonce" => self.addr.nonce };
        let addr_str = format!("{plain}/{}", self.addr.nonce);
        obj! {
            "metadata" => obj! {},
            "id" => self.gid,
            "inst" => obj! {
                "name" => obj! { "type" => "mgr", "num" => self.gid },
                "addr" => addr.clone(),
            },
            "addr" => addr,
            "inst_str" => format!("{name} {addr_str}"),
            "addr_str" => addr_str,
            "osd_epoch" => self.osd_epoch,
            "blocklisted" => false,
        }
    }
}

fn option(name: &str, doing: &str, errno: i32) -> Result<(&'static str, &'static str), Failure> {
    let known = OPTIONS.iter().find(|(known, _)| *known == name).copied();
    known.ok_or_else(|| (errno, format!("error {doing} '{name}': {}", describe(errno))))
}

fn set_failure(var: &str, value: &str, errno: i32) -> Failure {
    (errno, format!("error setting '{var}' to '{value}': {}", describe(errno)))
}

/// `(22) Invalid argument`
fn describe(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    // Rust adds the number at the end.
    let text = text.rsplit_once(" (os error ").map_or(text.as_str(), |(text, _)| text);
    format!("({errno}) {text}")
}

/// An argument as text; several words are joined.
fn text(args: &Map<String, Value>, name: &str) -> String {
    match args.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

fn descriptions() -> Json {
    let param = |text: &&str| {
        let name = text.trim_end_matches("...").trim_end_matches('?');
        let param = obj! { "name" => name, "type" => "CephString" };
        match text {
            text if text.ends_with("...") => param.with("n", "N"),
            text if text.ends_with('?') => param.with("req", "false"),
            _ => param,
        }
    };
    let row = |(i, (prefix, params, help)): (usize, &(&str, &[&str], &str))| {
        let words = prefix.split(' ').map(Json::from);
        let sig = Json::Arr(words.chain(params.iter().map(param)).collect());
        (format!("cmd{i:03}"), obj! { "sig" => sig, "help" => *help })
    };
    Json::obj(COMMANDS.iter().enumerate().map(row))
}

fn unknown(prefix: &str) -> String {
    let first = prefix.split(' ').next().unwrap_or_default();
    let near: Vec<&str> =
        COMMANDS.iter().map(|c| c.0).filter(|p| !first.is_empty() && p.contains(first)).collect();
    match near.as_slice() {
        [] => format!("unknown command prefix {prefix}"),
        near => format!("unknown command prefix {prefix}; near matches: {}", near.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let addr = EntityAddr::msgr2("10.0.0.1:6800".parse().unwrap(), 7);
        Status { gid: 4100, addr, mgrmap_epoch: 3, osd_epoch: 5 }
    }

    fn ask(options: &mut Options, json: &str) -> CommandReply {
        answer(options, &status(), json)
    }

    fn check(options: &mut Options, json: &str, want: &str) {
        let reply = ask(options, json);
        let text = String::from_utf8_lossy(&reply.outbl).into_owned();
        assert_eq!(if reply.r == 0 { text } else { format!("{} {}", reply.r, reply.rs) }, want);
    }

    #[test]
    fn levels_are_set_and_shown() {
        let mut options = Options::default();
        options.set_mon([("debug_mgr".to_owned(), "4/5".to_owned())].into());
        let get = r#"{"prefix":"config get","var":"debug_mgr","format":"json"}"#;
        check(&mut options, get, r#"{"debug_mgr":"4/5"}"#);
        let set = r#"{"prefix":"config set","var":"debug_mgr","val":["20"]}"#;
        check(&mut options, set, "{\n    \"success\": \"\"\n}\n");
        check(&mut options, get, r#"{"debug_mgr":"20/20"}"#);
        let diff = r#"{"prefix":"config diff","format":"json"}"#;
        let want = r#"{"diff":{"debug_mgr":{"default":"2/5","mon":"4/5","override":"20/20","final":"20/20"}}}"#;
        check(&mut options, diff, want);
        let other = r#"{"prefix":"config diff get","var":"debug_ms","format":"json"}"#;
        check(&mut options, other, r#"{"diff":{}}"#);
        let levels = &options.report().config.values["debug_mgr"];
        assert_eq!(levels.values().collect::<Vec<_>>(), ["4/5", "20/20"]);
        check(&mut options, r#"{"prefix":"config unset","var":"debug_mgr"}"#, "{}\n");
        check(&mut options, get, r#"{"debug_mgr":"4/5"}"#);
        let inject =
            r#"{"prefix":"injectargs","injected_args":["--debug-ms=1","--debug_auth","7"]}"#;
        check(&mut options, inject, "{}\n");
        assert_eq!(options.value("debug_ms", ""), "1/1");
        assert_eq!(options.value("debug_auth", ""), "7/7");
    }

    #[test]
    fn refusals_are_those_of_ceph() {
        let mut options = Options::default();
        let set = |var: &str, value: &str| {
            format!(r#"{{"prefix":"config set","var":"{var}","val":["{value}"]}}"#)
        };
        let bad = "-22 error setting 'debug_mgr' to 'loud': (22) Invalid argument";
        check(&mut options, &set("debug_mgr", "loud"), bad);
        let absent = "-2 error setting 'nope' to '1': (2) No such file or directory";
        check(&mut options, &set("nope", "1"), absent);
        let get = r#"{"prefix":"config get","var":"nope"}"#;
        check(&mut options, get, "-2 error getting 'nope': (2) No such file or directory");
        let unset = r#"{"prefix":"config unset","var":"nope"}"#;
        check(&mut options, unset, "-22 error unsetting 'nope': (22) Invalid argument");
        let near = "-22 unknown command prefix log; near matches: log dump, log flush, log reopen";
        check(&mut options, r#"{"prefix":"log"}"#, near);
        check(&mut options, "[]", "-22 invalid json");
    }

    #[test]
    fn every_command_of_the_table_is_answered() {
        let mut options = Options::default();
        let each = COMMANDS.iter().filter(|(_, params, _)| params.iter().all(|p| p.ends_with('?')));
        for (prefix, ..) in each {
            let reply = ask(&mut options, &format!(r#"{{"prefix":"{prefix}"}}"#));
            assert_eq!((reply.r, reply.outbl.is_empty()), (0, false), "{prefix}");
        }
        let status = ask(&mut options, r#"{"prefix":"status","format":"json"}"#);
        let status: Value = serde_json::from_slice(&status.outbl).unwrap();
        assert_eq!(status["inst_str"], "mgr.4100 10.0.0.1:6800/7");
    }
}
