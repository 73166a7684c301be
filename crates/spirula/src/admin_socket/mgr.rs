//! The manager's own table: it has no options but its debug levels, and its `tell` answers the
//! cluster's commands, so that what it says about itself is here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::reply::{EINVAL, ENOENT};
use super::{AdminReply, DaemonAdmin, ReplyFuture};

/// The options there are, with their defaults.
const OPTIONS: &[(&str, &str)] = &[
    ("debug_asok", "1/5"),
    ("debug_auth", "1/5"),
    ("debug_mgr", "2/5"),
    ("debug_monc", "0/10"),
    ("debug_ms", "0/5"),
];

/// Prefix, parameters (`name` or `name...` for several), help.
const COMMANDS: &[(&str, &[&str], &str)] = &[
    ("config diff", &[], "dump diff of current config and default config"),
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
    ("log dump", &[], "dump recent log entries to log file"),
    ("log flush", &[], "flush log entries to log file"),
    ("log reopen", &[], "reopen log file"),
    ("mgr_status", &[], "Dump mgr status"),
    ("perf dump", &[], "dump perfcounters value"),
    ("perf schema", &[], "dump perfcounters schema"),
    ("status", &[], "show overall client status"),
    ("version", &[], "get ceph version"),
];

/// The admin socket's side of the manager.
pub(crate) struct MgrAdmin {
    /// What `status` says besides the name, such as addresses.
    status: Map<String, Value>,
    /// As in `16.2.15`.
    version: String,
    overrides: Mutex<BTreeMap<&'static str, String>>,
}

impl MgrAdmin {
    pub(crate) fn new(version: &str, status: Map<String, Value>) -> Self {
        Self { status, version: version.to_owned(), overrides: Mutex::default() }
    }

    fn overrides(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.overrides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, args: &Map<String, Value>) -> Result<Value, AdminReply> {
        let prefix = text(args, "prefix");
        Ok(match prefix.as_str() {
            "config diff" => json!({ "diff": self.diff() }),
            "config get" => {
                let (name, default) = option(args, "getting", ENOENT)?;
                json!({ name: self.value(name, default) })
            }
            "config set" => self.set(args)?,
            "config show" => {
                OPTIONS.iter().map(|(n, d)| ((*n).to_owned(), json!(self.value(n, d)))).collect()
            }
            "config unset" => {
                let (name, _) = option(args, "unsetting", EINVAL)?;
                self.overrides().remove(name);
                json!({})
            }
            "get_command_descriptions" => descriptions(),
            "git_version" => json!({ "git_version": "" }),
            "help" => COMMANDS.iter().map(|(p, _, h)| ((*p).to_owned(), json!(h))).collect(),
            "mgr_status" | "status" => Value::Object(self.status.clone()),
            "version" => json!({
                "version": self.version,
                "release": "pacific",
                "release_type": "stable",
            }),
            // The log's are carried out in front of this table; counters there are none.
            "log dump" | "log flush" | "log reopen" | "perf dump" | "perf schema" => json!({}),
            _ => return Err(AdminReply::refusal(EINVAL, unknown(&prefix))),
        })
    }

    fn set(&self, args: &Map<String, Value>) -> Result<Value, AdminReply> {
        let (name, _) = option(args, "setting", ENOENT)?;
        let value = text(args, "val");
        let (log, gather) = value.split_once('/').unwrap_or((&value, &value));
        let level = |t: &str| t.trim().parse().ok().filter(|n: &u8| *n <= 99);
        let (Some(log), Some(gather)) = (level(log), level(gather)) else {
            let why = format!("error setting '{name}' to '{value}': (22) Invalid argument");
            return Err(AdminReply::refusal(EINVAL, why));
        };
        self.overrides().insert(name, format!("{log}/{gather}"));
        Ok(json!({ "success": "" }))
    }

    fn value(&self, name: &str, default: &str) -> String {
        self.overrides().get(name).cloned().unwrap_or_else(|| default.to_owned())
    }

    fn diff(&self) -> Value {
        let default = |name| OPTIONS.iter().find(|(n, _)| *n == name).map_or("", |(_, d)| d);
        let row = |(name, value): (&&'static str, &String)| {
            let row = json!({ "default": default(*name), "override": value, "final": value });
            ((*name).to_owned(), row)
        };
        self.overrides().iter().map(row).collect()
    }
}

impl DaemonAdmin for MgrAdmin {
    fn command(&self, json: String) -> ReplyFuture<'_> {
        let args = serde_json::from_str::<Map<String, Value>>(&json);
        let reply = match args.map(|args| (self.answer(&args), text(&args, "format"))) {
            Ok((Ok(value), format)) => AdminReply::ok(render(&value, &format)),
            Ok((Err(refusal), _)) => refusal,
            Err(_) => AdminReply::refusal(EINVAL, "invalid json"),
        };
        Box::pin(std::future::ready(reply))
    }
}

/// In one line if asked for, else indented as Ceph does.
fn render(value: &Value, format: &str) -> Vec<u8> {
    if format == "json" {
        return value.to_string().into_bytes();
    }
    let mut out = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    // Writing to memory does not fail.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, indent));
    out.push(b'\n');
    out
}

fn option(
    args: &Map<String, Value>,
    doing: &str,
    errno: i32,
) -> Result<(&'static str, &'static str), AdminReply> {
    let name = text(args, "var");
    OPTIONS.iter().find(|(known, _)| *known == name).copied().ok_or_else(|| {
        AdminReply::refusal(
            errno,
            format!("error {doing} '{name}': {}", super::reply::describe(-errno)),
        )
    })
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

fn descriptions() -> Value {
    let param = |name: &&str| match name.strip_suffix("...") {
        Some(name) => json!({ "name": name, "type": "CephString", "n": "N" }),
        None => json!({ "name": name, "type": "CephString" }),
    };
    let row = |(i, (prefix, params, help)): (usize, &(&str, &[&str], &str))| {
        let words = prefix.split(' ').map(|w| json!(w));
        let sig: Vec<Value> = words.chain(params.iter().map(param)).collect();
        (format!("cmd{i:03}"), json!({ "sig": sig, "help": help }))
    };
    COMMANDS.iter().enumerate().map(row).collect()
}

fn unknown(prefix: &str) -> String {
    let first = prefix.split(' ').next().unwrap_or_default();
    let near: Vec<&str> =
        COMMANDS.iter().map(|c| c.0).filter(|p| !first.is_empty() && p.contains(first)).collect();
    let near = if near.is_empty() {
        String::new()
    } else {
        format!("; near matches: {}", near.join(", "))
    };
    format!("unknown command prefix {prefix}{near}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(mgr: &MgrAdmin, json: &str) -> String {
        let reply = mgr.command(json.to_owned()).await;
        String::from_utf8(reply.to_bytes()[4..].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn levels_are_set_and_shown() {
        let mgr = MgrAdmin::new("16.2.15", Map::new());
        let set = r#"{"prefix":"config set","var":"debug_mgr","val":["20"]}"#;
        assert_eq!(ask(&mgr, set).await, "{\n    \"success\": \"\"\n}\n");
        let get = r#"{"prefix":"config get","var":"debug_mgr","format":"json"}"#;
        assert_eq!(ask(&mgr, get).await, r#"{"debug_mgr":"20/20"}"#);
        let diff = r#"{"prefix":"config diff","format":"json"}"#;
        let want = r#"{"diff":{"debug_mgr":{"default":"2/5","override":"20/20","final":"20/20"}}}"#;
        assert_eq!(ask(&mgr, diff).await, want);
        let unset = r#"{"prefix":"config unset","var":"debug_mgr"}"#;
        assert_eq!(ask(&mgr, unset).await, "{}\n");
        assert_eq!(ask(&mgr, get).await, r#"{"debug_mgr":"2/5"}"#);
        let bad = r#"{"prefix":"config set","var":"debug_mgr","val":["loud"]}"#;
        let want = "ERROR: (22) Invalid argument\nerror setting 'debug_mgr' to 'loud': (22) Invalid argument\n";
        assert_eq!(ask(&mgr, bad).await, want);
        let absent = r#"{"prefix":"config get","var":"nope"}"#;
        let want = "ERROR: (2) No such file or directory\nerror getting 'nope': (2) No such file or directory\n";
        assert_eq!(ask(&mgr, absent).await, want);
    }

    #[tokio::test]
    async fn every_command_of_the_table_is_answered() {
        let mgr = MgrAdmin::new("16.2.15", Map::new());
        for (prefix, params, _) in COMMANDS.iter().filter(|(_, params, _)| params.is_empty()) {
            let text = ask(&mgr, &json!({ "prefix": prefix }).to_string()).await;
            assert!(!text.starts_with("ERROR"), "{prefix} {params:?}: {text}");
        }
        let unknown = ask(&mgr, r#"{"prefix":"log"}"#).await;
        assert!(unknown.contains("near matches: log dump, log flush, log reopen"), "{unknown}");
    }
}
