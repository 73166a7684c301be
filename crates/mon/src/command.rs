//! Commands: the signature language, argument access, the answer, and dispatch.
//!
//! To add a command: write a handler in the file of its family and one row in `table.rs`. The row
//! is all there is: it also yields the JSON that `get_command_descriptions` answers and by which
//! the `ceph` tool checks what its user typed.
//!
//! Invariant: a handler never changes [`State`]; it adds [`Change`]s, which are proposed together
//! and answered only after they are committed.

mod args;
mod auth;
mod bans;
mod config;
mod config_key;
mod crush;
mod crush_edit;
mod crush_tree_edit;
mod df;
mod fs;
mod health;
mod log;
mod mgr;
mod mon;
mod mon_edit;
mod osd;
mod osd_dump;
mod osd_edit;
mod osd_group;
mod osd_life;
mod osd_remove;
mod perf;
mod pg_place;
mod pool;
mod pool_app;
mod pool_opt;
mod pool_pgs;
mod pool_snap;
mod pool_var;
mod profile;
mod release;
mod signature;
mod status;
mod table;
mod tell;
mod tree;
mod weight_set;

use std::fmt::Display;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use spirula_wire::types::EntityNameStr;

pub(crate) use args::Args;
pub(crate) use health::health_json;
pub(crate) use log::level_of;
pub(crate) use mon::mon_status_json;
pub(crate) use pool::{NewPool, create_pool, remove_pool};
pub(crate) use pool_pgs::stays;
pub(crate) use pool_snap::{create_selfmanaged, create_snap, remove_selfmanaged, remove_snap};
pub use signature::describe_commands;
pub(crate) use signature::{
    Described, FLAG_DEPRECATED, FLAG_HIDDEN, describe, described_for_mgr, described_from_json,
    shape, words as words_of,
};
pub(crate) use spirula_wire::errno;
pub(crate) use table::{COMMANDS, TELL_COMMANDS};

use crate::Now;
use crate::json::Json;
use crate::live::Live;
use crate::options::Settings;
use crate::state::{Change, State};

/// One row of the table.
pub(crate) struct Command {
    /// Words, then parameters: `osd map name=pool,type=CephPoolname`.
    pub(crate) signature: &'static str,
    pub(crate) help: &'static str,
    pub(crate) module: &'static str,
    /// Of `r`, `w`, `x`: what the caller's capabilities must allow.
    pub(crate) perm: &'static str,
    pub(crate) flags: u32,
    pub(crate) run: Handler,
}

pub(crate) type Handler = fn(&mut Context<'_>, &Args) -> Outcome;
pub(crate) type Outcome = Result<Answer, Refusal>;

/// The words of every command to the cluster.
pub fn cluster_commands() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|command| words_of(command.signature))
}

/// The words of every command to one monitor about itself.
pub fn own_commands() -> impl Iterator<Item = &'static str> {
    TELL_COMMANDS.iter().map(|command| words_of(command.signature))
}

/// Everything a handler may look at, and where it leaves the changes it wants.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a State,
    pub(crate) live: &'a Live,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Now,
    pub(crate) rng: &'a mut ChaCha20Rng,
    /// Who asks.
    pub(crate) caller: &'a EntityNameStr,
    pub(crate) caller_addrs: &'a spirula_wire::types::EntityAddrVec,
    /// What came with the command (`-i FILE`).
    pub(crate) input: Bytes,
    pub(crate) format: Format,
    pub(crate) changes: Vec<Change>,
    /// Options of this monitor alone to set (`None`: to leave to the cluster again), until it stops.
    pub(crate) overrides: Vec<(&'static str, Option<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Json,
    JsonPretty,
}

/// A command that was carried out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// The status line, which the tool prints to stderr.
    pub(crate) status: String,
    pub(crate) out: Bytes,
}

/// A command that was refused.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    /// Positive errno.
    pub(crate) errno: i32,
    pub(crate) text: String,
    pub(crate) out: Bytes,
}

pub(crate) fn refuse<T>(errno: i32, text: impl Display) -> Result<T, Refusal> {
    Err(Refusal { errno, text: text.to_string(), out: Bytes::new() })
}

impl Answer {
    /// Nothing to print but a status line.
    pub(crate) fn status(text: impl Display) -> Self {
        Self { status: text.to_string(), out: Bytes::new() }
    }

    pub(crate) fn text(out: impl Into<String>) -> Self {
        Self { status: String::new(), out: out.into().into() }
    }

    pub(crate) fn raw(out: Bytes) -> Self {
        Self { status: String::new(), out }
    }

    pub(crate) fn with_status(mut self, text: impl Display) -> Self {
        self.status = text.to_string();
        self
    }
}

impl Context<'_> {
    /// JSON in every format; plain means pretty.
    pub(crate) fn json(&self, value: &Json) -> Answer {
        Answer::text(match self.format {
            Format::Json => value.compact(),
            Format::Plain | Format::JsonPretty => value.pretty(),
        })
    }

    /// As [`json`](Self::json), with a newline behind the compact form too. Ceph's commands differ
    /// in this, and scripts compare bytes.
    pub(crate) fn json_nl(&self, value: &Json) -> Answer {
        Answer::text(match self.format {
            Format::Json => value.compact() + "\n",
            Format::Plain | Format::JsonPretty => value.pretty(),
        })
    }

    /// As [`json_nl`](Self::json_nl), with an empty line behind the pretty form.
    pub(crate) fn json_line(&self, value: &Json) -> Answer {
        Answer::text(match self.format {
            Format::Json => value.compact() + "\n",
            Format::Plain | Format::JsonPretty => value.pretty() + "\n",
        })
    }

    /// Text in the plain format, else [`json`](Self::json).
    pub(crate) fn either(
        &self,
        plain: impl FnOnce() -> String,
        json: impl FnOnce() -> Json,
    ) -> Answer {
        if self.format == Format::Plain { Answer::text(plain()) } else { self.json(&json()) }
    }

    /// Text in the plain format, else [`json_nl`](Self::json_nl).
    pub(crate) fn either_nl(
        &self,
        plain: impl FnOnce() -> String,
        json: impl FnOnce() -> Json,
    ) -> Answer {
        if self.format == Format::Plain { Answer::text(plain()) } else { self.json_nl(&json()) }
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }
}

impl Format {
    fn parse(name: Option<&str>) -> Result<Self, Refusal> {
        match name {
            None | Some("plain" | "") => Ok(Self::Plain),
            Some("json") => Ok(Self::Json),
            Some("json-pretty") => Ok(Self::JsonPretty),
            Some(other) => refuse(
                errno::EINVAL,
                format!("unsupported format '{other}': use plain, json or json-pretty"),
            ),
        }
    }
}

/// A command line as it arrived, matched to its row.
pub(crate) struct Request {
    pub(crate) command: &'static Command,
    pub(crate) args: Args,
    pub(crate) format: Format,
}

/// Parses the JSON of a command and finds its row in `table`.
pub(crate) fn parse(text: &str, table: &'static [Command]) -> Result<Request, Refusal> {
    let args = Args::parse(text)?;
    let prefix = args.str("prefix")?;
    let format = Format::parse(args.str_opt("format")?)?;
    let mut rows = table.iter().filter(|c| signature::words(c.signature) == prefix);
    let Some(first) = rows.next() else {
        return refuse(errno::EINVAL, unknown(prefix, table));
    };
    // Where two commands share their words, the arguments tell which one is meant.
    let fits = |c: &&Command| signature::check(c.signature, &args).is_ok();
    let others = rows.filter(fits).filter(|c| knows(c, &args) > knows(first, &args));
    let command = others.max_by_key(|c| knows(c, &args)).unwrap_or(first);
    Ok(Request { command, args, format })
}

/// How many of the arguments a command has parameters for.
fn knows(command: &Command, args: &Args) -> usize {
    signature::names(command.signature).filter(|name| args.has(name)).count()
}

/// The text for a prefix that no row has: the ten commands nearest to it.
fn unknown(prefix: &str, table: &[Command]) -> String {
    let common = |c: &&Command| {
        let words = signature::words(c.signature);
        words.split(' ').zip(prefix.split(' ')).take_while(|(a, b)| a == b).count()
    };
    let best = table.iter().map(|c| common(&c)).max().unwrap_or(0);
    if best == 0 {
        return format!("command not known: '{prefix}'; `help` lists the commands there are");
    }
    let near: Vec<String> = table
        .iter()
        .filter(|c| c.flags & (FLAG_HIDDEN | FLAG_DEPRECATED) == 0 && common(c) == best)
        .take(10)
        .map(|c| shape(c.signature))
        .collect();
    format!("no valid command found; {} closest matches:\n{}", near.len(), near.join("\n"))
}
