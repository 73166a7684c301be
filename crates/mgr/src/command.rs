//! Commands the manager answers: the table, its descriptions for the monitor, and dispatch.
//!
//! To add a command: a handler in the file of its family and one row in [`COMMANDS`].

mod config;
mod module;
mod osd;
mod osd_df;
mod osd_safety;
mod pg;
mod pg_dump;
mod pg_orders;
mod pg_stuck;
mod pool;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use spirula_auth::caps::Perm;
use spirula_maps::OsdMap;
use spirula_mon::json::Json;
use spirula_wire::errno::{EACCES, EAGAIN, EBUSY, EINVAL, ENOENT, EOPNOTSUPP};
use spirula_wire::msg::command::CommandReply;
use spirula_wire::msg::mgr::{CommandDescription, MgrCommandReply};
use spirula_wire::types::{PgId, Uuid};
use spirula_wire::{Features, Message, RawMessage};

use crate::daemons::Daemons;
use crate::pgmap::PgMap;

const NO_CAPS: &str = "access denied: does your client key have mgr caps? See http://docs.ceph.com/en/latest/mgr/administrator/#client-authentication";

/// A command whose caller's capabilities have to be checked.
pub struct Asked<'a> {
    pub service: &'a str,
    /// The module that serves the command; empty if the manager itself does.
    pub module: &'a str,
    pub prefix: &'a str,
    pub args: &'a BTreeMap<String, String>,
    pub need: Perm,
}

/// What the manager knows.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub pgmap: &'a PgMap,
    pub osdmap: &'a OsdMap,
    pub daemons: &'a Daemons,
    /// For how long PGs are unwell that count as stuck.
    pub stuck: Duration,
    pub fsid: Uuid,
    /// OSDs with a session.
    pub connected: &'a BTreeSet<i32>,
}

/// What a command comes to.
pub struct Answered {
    pub reply: MgrCommandReply,
    /// To be sent to these OSDs first.
    pub to_osds: Vec<(i32, RawMessage)>,
    /// A command for the monitor, whose answer is the reply to a command that went well.
    pub to_mon: Option<String>,
}

impl From<MgrCommandReply> for Answered {
    fn from(reply: MgrCommandReply) -> Self {
        Self { reply, to_osds: Vec::new(), to_mon: None }
    }
}

/// What a handler may look at.
pub(crate) struct Context<'a> {
    view: View<'a>,
    /// The parsed command.
    args: &'a Value,
    to_osds: RefCell<Vec<(i32, RawMessage)>>,
    to_mon: RefCell<Option<String>>,
}

impl<'a> Deref for Context<'a> {
    type Target = View<'a>;

    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

/// Plain text and JSON of one answer; the caller's format chooses.
pub(crate) struct Shown {
    pub(crate) plain: String,
    /// Without it the text is the answer in every format.
    pub(crate) json: Option<Json>,
    /// Printed to stderr by the tool.
    pub(crate) status: String,
    /// Some commands show why they refuse.
    pub(crate) errno: i32,
}

impl Shown {
    /// The answer in every format.
    pub(crate) fn text(plain: impl Into<String>) -> Self {
        Self { plain: plain.into(), json: None, status: String::new(), errno: 0 }
    }

    /// Nothing but a status line.
    pub(crate) fn status(status: impl Into<String>) -> Self {
        Self { status: status.into(), ..Self::text("") }
    }
}

pub(crate) type Outcome = Result<Shown, (i32, String)>;

pub(crate) struct Row {
    prefix: &'static str,
    /// Parameters in Ceph's descriptor language.
    params: &'static str,
    help: &'static str,
    module: &'static str,
    need: Perm,
    run: fn(&Context<'_>) -> Outcome,
}

pub(crate) const COMMANDS: &[Row] = &[
    row("pg stat", "", "show placement group status.", pg::stat),
    row(
        "pg dump",
        "name=dumpcontents,type=CephChoices,strings=all|summary|sum|delta|pools|osds|pgs|pgs_brief,n=N,req=false",
        "show human-readable versions of pg map (only 'all' valid with plain)",
        pg_dump::dump,
    ),
    row(
        "pg ls",
        "name=pool,type=CephInt,req=false name=states,type=CephString,n=N,req=false",
        "list pg with specific pool, osd, state",
        pg::ls,
    ),
    row(
        "pg ls-by-pool",
        "name=poolstr,type=CephString name=states,type=CephString,n=N,req=false",
        "list pg with pool = [poolname]",
        pg::ls_by_pool,
    ),
    row(
        "pg ls-by-osd",
        "name=osd,type=CephOsdName name=pool,type=CephInt,req=false name=states,type=CephString,n=N,req=false",
        "list pg on osd [osd]",
        pg::ls_by_osd,
    ),
    row(
        "pg ls-by-primary",
        "name=osd,type=CephOsdName name=pool,type=CephInt,req=false name=states,type=CephString,n=N,req=false",
        "list pg with primary = [osd]",
        pg::ls_by_primary,
    ),
    row(
        "osd df",
        "name=output_method,type=CephChoices,strings=plain|tree,req=false name=filter_by,type=CephChoices,strings=class|name,req=false name=filter,type=CephString,req=false",
        "show OSD utilization",
        osd_df::df,
    ),
    row(
        "pg dump_stuck",
        "name=stuckops,type=CephChoices,strings=inactive|unclean|stale|undersized|degraded,n=N,req=false name=threshold,type=CephInt,req=false",
        "show information about stuck pgs",
        pg_stuck::dump_stuck,
    ),
    row(
        "pg debug",
        "name=debugop,type=CephChoices,strings=unfound_objects_exist|degraded_pgs_exist",
        "show debug info about pgs",
        pg_stuck::debug,
    ),
    row(
        "osd blocked-by",
        "",
        "print histogram of which OSDs are blocking their peers",
        osd::blocked_by,
    ),
    row(
        "osd safe-to-destroy",
        "name=ids,type=CephString,n=N",
        "check whether osd(s) can be safely destroyed without reducing data durability",
        osd_safety::safe_to_destroy,
    ),
    row(
        "osd ok-to-stop",
        "name=ids,type=CephString,n=N name=max,type=CephInt,req=false",
        "check whether osd(s) can be safely stopped without reducing immediate data availability",
        osd_safety::ok_to_stop,
    ),
    order(
        "osd destroy",
        "name=id,type=CephOsdName name=force,type=CephBool,req=false name=yes_i_really_mean_it,type=CephBool,req=false",
        "destroy an OSD, if that is safe or forced",
        osd_safety::destroy,
    ),
    order(
        "osd purge",
        "name=id,type=CephOsdName name=force,type=CephBool,req=false name=yes_i_really_mean_it,type=CephBool,req=false",
        "purge an OSD, if that is safe or forced",
        osd_safety::destroy,
    ),
    order("pg scrub", "name=pgid,type=CephPgid", "start scrub on <pgid>", pg_orders::scrub_pg),
    order(
        "osd scrub",
        "name=who,type=CephString",
        "start scrub on osd <who>, or use <all|any> on all",
        pg_orders::scrub_osd,
    ),
    order(
        "osd pool scrub",
        "name=who,type=CephPoolname,n=N",
        "start scrub on pool <who>",
        pg_orders::scrub_pools,
    ),
    order(
        "pg deep-scrub",
        "name=pgid,type=CephPgid",
        "start deep-scrub on <pgid>",
        pg_orders::scrub_pg,
    ),
    order(
        "osd deep-scrub",
        "name=who,type=CephString",
        "start deep-scrub on osd <who>, or use <all|any> on all",
        pg_orders::scrub_osd,
    ),
    order(
        "osd pool deep-scrub",
        "name=who,type=CephPoolname,n=N",
        "start deep-scrub on pool <who>",
        pg_orders::scrub_pools,
    ),
    order("pg repair", "name=pgid,type=CephPgid", "start repair on <pgid>", pg_orders::scrub_pg),
    order(
        "osd repair",
        "name=who,type=CephString",
        "start repair on osd <who>, or use <all|any> on all",
        pg_orders::scrub_osd,
    ),
    order(
        "osd pool repair",
        "name=who,type=CephPoolname,n=N",
        "start repair on pool <who>",
        pg_orders::scrub_pools,
    ),
    order(
        "pg force-recovery",
        "name=pgid,type=CephPgid,n=N",
        "force-recovery of <pgid>",
        pg_orders::force_pgs,
    ),
    order(
        "osd pool force-recovery",
        "name=who,type=CephPoolname,n=N",
        "force-recovery of pool <who>",
        pg_orders::force_pools,
    ),
    order(
        "pg force-backfill",
        "name=pgid,type=CephPgid,n=N",
        "force-backfill of <pgid>",
        pg_orders::force_pgs,
    ),
    order(
        "osd pool force-backfill",
        "name=who,type=CephPoolname,n=N",
        "force-backfill of pool <who>",
        pg_orders::force_pools,
    ),
    order(
        "pg cancel-force-recovery",
        "name=pgid,type=CephPgid,n=N",
        "cancel-force-recovery of <pgid>",
        pg_orders::force_pgs,
    ),
    order(
        "osd pool cancel-force-recovery",
        "name=who,type=CephPoolname,n=N",
        "cancel-force-recovery of pool <who>",
        pg_orders::force_pools,
    ),
    order(
        "pg cancel-force-backfill",
        "name=pgid,type=CephPgid,n=N",
        "cancel-force-backfill of <pgid>",
        pg_orders::force_pgs,
    ),
    order(
        "osd pool cancel-force-backfill",
        "name=who,type=CephPoolname,n=N",
        "cancel-force-backfill of pool <who>",
        pg_orders::force_pools,
    ),
    row("osd perf", "", "print dump of OSD perf summary stats", osd::perf),
    row(
        "osd pool stats",
        "name=pool_name,type=CephPoolname,req=false",
        "obtain stats from all pools, or from specified pool",
        pool::stats,
    ),
    row(
        "config show",
        "name=who,type=CephString name=key,type=CephString,req=false",
        "Show running configuration",
        config::show,
    ),
    row(
        "config show-with-defaults",
        "name=who,type=CephString",
        "Show running configuration (including compiled-in defaults)",
        config::show_with_defaults,
    ),
];

const fn row(
    prefix: &'static str,
    params: &'static str,
    help: &'static str,
    run: fn(&Context<'_>) -> Outcome,
) -> Row {
    let module = match prefix.as_bytes()[0] {
        b'c' => "mgr",
        b'p' => "pg",
        _ => "osd",
    };
    Row { prefix, params, help, module, need: Perm::R, run }
}

/// A command that changes something.
const fn order(
    prefix: &'static str,
    params: &'static str,
    help: &'static str,
    run: fn(&Context<'_>) -> Outcome,
) -> Row {
    let Row { module, .. } = row(prefix, params, help, run);
    Row { prefix, params, help, module, need: Perm::RW, run }
}

/// The words of every command that is carried out, and of those that are answered as by a manager
/// whose module is off.
pub fn prefixes() -> (Vec<&'static str>, Vec<&'static str>) {
    (COMMANDS.iter().map(|row| row.prefix).collect(), module::prefixes().collect())
}

/// The table as the monitor passes it on to clients.
pub fn descriptions() -> Vec<CommandDescription> {
    let each = COMMANDS.iter().map(|r| CommandDescription {
        cmdstring: format!("{} {}", r.prefix, r.params).trim_end().to_owned(),
        helpstring: r.help.to_owned(),
        module: r.module.to_owned(),
        req_perms: if r.need.has(Perm::W) { "rw" } else { "r" }.to_owned(),
        availability: "cli,rest".to_owned(),
        flags: 0,
    });
    each.chain(module::descriptions()).collect()
}

/// Answers one command; `allowed` decides by prefix and permission whether the caller may.
pub fn answer(
    cmd: &[String],
    view: View<'_>,
    allowed: impl FnOnce(&Asked<'_>) -> bool,
) -> Answered {
    let failed = |errno: i32, text: String| -> Answered {
        MgrCommandReply { r: -errno, rs: text, outbl: Bytes::new() }.into()
    };
    let Some(args) = parse(&cmd.concat()) else {
        return failed(EINVAL, "command is not valid JSON".into());
    };
    let prefix = args["prefix"].as_str().unwrap_or_default().to_owned();
    if prefix == "get_command_descriptions" {
        let outbl = spirula_mon::describe_commands(&descriptions()).compact().into();
        return MgrCommandReply { outbl, ..MgrCommandReply::default() }.into();
    }
    let texts = string_args(&args);
    let Some(row) = COMMANDS.iter().find(|r| r.prefix == prefix) else {
        let (errno, text) =
            module::refusal(&prefix, &texts, allowed).unwrap_or_else(|| (EINVAL, unknown(&prefix)));
        return failed(errno, text);
    };
    let (service, prefix) = (row.module, row.prefix);
    let asked = Asked { service, module: "", prefix, args: &texts, need: row.need };
    if !allowed(&asked) {
        return failed(EACCES, NO_CAPS.into());
    }
    let (to_osds, to_mon) = (RefCell::default(), RefCell::default());
    let context = Context { view, args: &args, to_osds, to_mon };
    match (row.run)(&context) {
        Err((errno, text)) => failed(errno, text),
        Ok(shown) => {
            let out = match (args["format"].as_str(), shown.json) {
                (Some("json-pretty"), Some(json)) => json.pretty(),
                (Some(f), Some(json)) if f.starts_with("json") => json.compact(),
                _ => shown.plain,
            };
            Answered {
                reply: MgrCommandReply { r: -shown.errno, rs: shown.status, outbl: out.into() },
                to_osds: context.to_osds.into_inner(),
                to_mon: context.to_mon.into_inner(),
            }
        }
    }
}

/// The first value; what follows does not matter, as in Ceph: `rbd perf image iostat` sends a quote too many.
fn parse(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

/// To whoever has not the capabilities that a command needs.
pub(crate) fn access_denied() -> CommandReply {
    CommandReply { r: -EACCES, rs: NO_CAPS.into(), outbl: Bytes::new() }
}

/// The arguments as text, for capabilities that constrain them.
fn string_args(args: &Value) -> BTreeMap<String, String> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    args.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect()
}

/// Names the commands that begin alike.
fn unknown(prefix: &str) -> String {
    let word = prefix.split(' ').next().unwrap_or_default();
    let near: Vec<_> = COMMANDS.iter().map(|r| r.prefix).filter(|p| p.starts_with(word)).collect();
    if near.is_empty() {
        return format!("command not supported: {prefix}");
    }
    format!("command not supported: {prefix}; near matches: {}", near.join(", "))
}

impl Context<'_> {
    /// Has a message sent to an OSD that is connected.
    pub(crate) fn tell(&self, osd: i32, message: &impl Message) {
        self.to_osds.borrow_mut().push((osd, message.to_raw(0, Features::PACIFIC)));
    }

    /// Leaves the rest to a command of the monitor.
    pub(crate) fn pass_on(&self, command: &Json) {
        *self.to_mon.borrow_mut() = Some(command.compact());
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        match &self.args[name] {
            Value::Bool(set) => *set,
            Value::String(text) => text.starts_with("--") || text == "true",
            _ => false,
        }
    }

    pub(crate) fn str(&self, name: &str) -> Option<&str> {
        self.args[name].as_str()
    }

    /// A repeated string; one value may come as a plain string.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        match &self.args[name] {
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one],
            _ => Vec::new(),
        }
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        let value = &self.args[name];
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }

    /// `osd.3`, `3` or the number 3.
    pub(crate) fn osd(&self, name: &str) -> Result<i32, (i32, String)> {
        let text = self.str(name).map(|s| s.trim_start_matches("osd."));
        let id = self.int(name).or_else(|| text?.parse().ok());
        let id = id.and_then(|id| i32::try_from(id).ok()).filter(|id| self.osdmap.exists(*id));
        id.ok_or_else(|| (ENOENT, format!("osd '{}' does not exist", text.unwrap_or_default())))
    }

    pub(crate) fn pool(&self, name: &str) -> Result<i64, (i32, String)> {
        let pool = self.str(name).unwrap_or_default();
        self.osdmap
            .pool_by_name(pool)
            .ok_or_else(|| (ENOENT, format!("pool '{pool}' does not exist")))
    }
}

pub(crate) fn pgid(pg: PgId) -> String {
    format!("{}.{:x}", pg.pool, pg.seed)
}

/// Answers a command about these in tests.
#[cfg(test)]
pub(crate) fn ask(args: &Value, pgmap: &PgMap, osdmap: &OsdMap) -> MgrCommandReply {
    ask_with(args, pgmap, osdmap, &BTreeSet::new()).reply
}

/// The same while these OSDs are connected.
#[cfg(test)]
pub(crate) fn ask_with(
    args: &Value,
    pgmap: &PgMap,
    osdmap: &OsdMap,
    connected: &BTreeSet<i32>,
) -> Answered {
    let (daemons, stuck, fsid) = (&Daemons::default(), Duration::from_secs(60), Uuid([7; 16]));
    let view = View { pgmap, osdmap, daemons, stuck, fsid, connected };
    answer(&[args.to_string()], view, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOBODY: BTreeSet<i32> = BTreeSet::new();

    fn view<'a>(pgmap: &'a PgMap, osdmap: &'a OsdMap, daemons: &'a Daemons) -> View<'a> {
        let (stuck, fsid, connected) = (Duration::ZERO, Uuid::default(), &NOBODY);
        View { pgmap, osdmap, daemons, stuck, fsid, connected }
    }

    #[test]
    fn unknown_commands_and_missing_rights_are_refused() {
        let (pgmap, osdmap, daemons) = (PgMap::default(), OsdMap::default(), Daemons::default());
        let run = |json: &str, may| {
            answer(&[json.to_owned()], view(&pgmap, &osdmap, &daemons), |_| may).reply
        };
        assert_eq!(run("{\"prefix\":\"pg stat\"}", true).r, 0);
        assert_eq!(run("{\"prefix\":\"pg stat\"}", false).r, -EACCES);
        assert_eq!(run("{\"prefix\":\"rbd perf image stats\"}\"", true).r, -EOPNOTSUPP);
        let unknown = run("{\"prefix\":\"pg nonsense\"}", true);
        assert_eq!(unknown.r, -EINVAL);
        assert!(unknown.rs.contains("pg stat"), "{}", unknown.rs);
        assert_eq!(run("not json", true).r, -EINVAL);
        assert_eq!(run("{\"prefix\":\"osd pool stats\",\"pool_name\":\"x\"}", true).r, -ENOENT);
    }

    #[test]
    fn every_row_is_described() {
        assert_eq!(descriptions().len(), COMMANDS.len() + module::COMMANDS.len());
        let ask = ["{\"prefix\":\"get_command_descriptions\"}".to_owned()];
        let (pgmap, osdmap, daemons) = (PgMap::default(), OsdMap::default(), Daemons::default());
        let reply = answer(&ask, view(&pgmap, &osdmap, &daemons), |_| false).reply;
        let text = String::from_utf8_lossy(&reply.outbl);
        let first = r#"{"cmd000":{"sig":["pg","stat"],"help":"show placement group status.","module":"pg","perm":"r","flags":0},"#;
        assert!(reply.r == 0 && text.starts_with(first), "{text}");
    }
}
