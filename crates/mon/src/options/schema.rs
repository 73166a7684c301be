//! The options that there are: all of Pacific's but those of manager modules, in Ceph's order.
//!
//! `schema.tsv` has one line for each, as `config help` of 16.2.15 describes it, with fields between
//! tabs; empty ones at the end are left out. The last two are ours: which of this cluster's daemons
//! act on the option, and what it is.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::{Kind, Level, Opt};

const TEXT: &str = include_str!("schema.tsv");

/// What the code asks of options is asked by name, often, so they are found by hash.
struct Schema {
    options: Vec<Opt>,
    by_name: HashMap<&'static str, usize>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    let options: Vec<Opt> = lines.filter_map(parse).collect();
    let by_name = options.iter().enumerate().map(|(i, o)| (o.name, i)).collect();
    Schema { options, by_name }
});

pub(super) fn all() -> &'static [Opt] {
    &SCHEMA.options
}

pub(super) fn find(name: &str) -> Option<&'static Opt> {
    Some(&SCHEMA.options[*SCHEMA.by_name.get(name)?])
}

/// `None` for a kind or level that there is not: a test holds that every line parses.
fn parse(line: &'static str) -> Option<Opt> {
    let mut fields = line.split('\t');
    let mut next = || fields.next().unwrap_or_default();
    let (name, kind, level) = (next(), kind(next())?, level(next())?);
    let mut default = || match kind {
        Kind::Float => super::value::float_text(next()),
        _ => next().to_owned(),
    };
    Some(Opt {
        name,
        kind,
        level,
        default: default(),
        daemon_default: default(),
        min: next(),
        max: next(),
        choices: next(),
        services: next(),
        flags: next(),
        tags: next(),
        see_also: next(),
        acts: next(),
        desc: next(),
    })
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "str" => Kind::Str,
        "level" => Kind::DebugLevel,
        "bool" => Kind::Bool,
        "int" => Kind::Int,
        "uint" => Kind::Uint,
        "float" => Kind::Float,
        "size" => Kind::Size,
        "secs" => Kind::Secs,
        "millisecs" => Kind::Millisecs,
        "addr" => Kind::Addr,
        "addrvec" => Kind::AddrVec,
        "uuid" => Kind::Uuid,
        _ => return None,
    })
}

fn level(name: &str) -> Option<Level> {
    Some(match name {
        "basic" => Level::Basic,
        "advanced" => Level::Advanced,
        "dev" => Level::Dev,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_an_option_with_a_valid_default() {
        let lines = TEXT.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all().len(), lines);
        assert_eq!(SCHEMA.by_name.len(), lines, "a name is there twice");
        for opt in all() {
            for default in [&opt.default, &opt.daemon_default] {
                // No client could set this one: its minimum is above its maximum.
                let open = default.is_empty() || opt.name == "rgw_rados_pool_recovery_priority";
                // As in Ceph, no value at all passes for these.
                if open || opt.kind == Kind::Millisecs {
                    continue;
                }
                let stored = opt.normalize(default);
                assert!(stored.is_ok(), "{} = {default}: {stored:?}", opt.name);
            }
        }
    }
}
