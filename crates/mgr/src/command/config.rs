//! `config show`, `config show-with-defaults`: options as the daemons report them.

use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_mon::text::{Align, TextTable};
use spirula_wire::msg::mgr::config_level;

use super::{Context, EINVAL, ENOENT, Outcome, Shown};
use crate::daemons::DaemonOptions;

/// An option in force, and what it overrides.
struct Line<'a> {
    name: &'a str,
    value: &'a str,
    level: i32,
    /// Level and value, the highest first.
    overrides: Vec<(i32, &'a str)>,
    is_ignored: bool,
}

pub(super) fn show(c: &Context<'_>) -> Outcome {
    shown(c, |options| options.config.values.keys().filter_map(|n| line(options, n)).collect())
}

pub(super) fn show_with_defaults(c: &Context<'_>) -> Outcome {
    shown(c, |options| {
        let each = options.defaults.iter();
        each.map(|(name, value)| line(options, name).unwrap_or_else(|| plain_default(name, value)))
            .collect()
    })
}

fn shown(c: &Context<'_>, lines: impl Fn(&DaemonOptions) -> Vec<Line<'_>>) -> Outcome {
    let who = c.str("who").unwrap_or_default();
    if !who.contains('.') {
        return Err((EINVAL, "invalid daemon name: use <type>.<id>".into()));
    }
    let unknown = || (ENOENT, format!("no config state for daemon {who}"));
    let options = c.daemons.get(who).ok_or_else(unknown)?;
    if let Some(key) = c.str("key") {
        return value_of(c, options, key);
    }
    // Ceph shows nothing of a daemon that does not say what options it has.
    let lines = if options.defaults.is_empty() { Vec::new() } else { lines(options) };
    let plain = if options.defaults.is_empty() { String::new() } else { table(&lines) };
    let json = Some(Json::Arr(lines.iter().map(json).collect()));
    Ok(Shown { plain, json, status: String::new(), errno: 0 })
}

/// The value alone, whatever the format.
fn value_of(c: &Context<'_>, options: &DaemonOptions, key: &str) -> Outcome {
    let fsid = || (key == "fsid").then(|| c.osdmap.fsid.to_string());
    let set = || Some(line(options, key)?.value.to_owned());
    let value = fsid().or_else(set).or_else(|| options.defaults.get(key).cloned());
    let value = value.ok_or((ENOENT, String::new()))?;
    Ok(Shown { plain: format!("{value}\n"), json: None, status: String::new(), errno: 0 })
}

fn line<'a>(options: &'a DaemonOptions, name: &str) -> Option<Line<'a>> {
    let (name, levels) = options.config.values.get_key_value(name)?;
    let mut highest_first = levels.iter().rev().map(|(level, value)| (*level, value.as_str()));
    let (level, value) = highest_first.next()?;
    let is_ignored = options.config.ignored.contains_key(name);
    Some(Line { name, value, level, overrides: highest_first.collect(), is_ignored })
}

fn plain_default<'a>(name: &'a str, value: &'a str) -> Line<'a> {
    Line { name, value, level: config_level::DEFAULT, overrides: Vec::new(), is_ignored: false }
}

fn json(line: &Line<'_>) -> Json {
    let mut json = obj! {
        "name" => line.name,
        "value" => line.value,
        "source" => config_level::name(line.level),
    };
    if !line.overrides.is_empty() {
        let lowest_first = line.overrides.iter().rev();
        let each = lowest_first
            .map(|(level, v)| obj! { "source" => config_level::name(*level), "value" => *v });
        json = json.with("overrides", Json::Arr(each.collect()));
    }
    if line.is_ignored { json.with("ignores", "mon") } else { json }
}

fn table(lines: &[Line<'_>]) -> String {
    let mut table = TextTable::default();
    for heading in ["NAME", "VALUE", "SOURCE", "OVERRIDES", "IGNORES"] {
        table.column(heading, Align::Left, Align::Left);
    }
    for line in lines {
        let overridden = |(level, value): &(i32, &str)| {
            let text = format!("{}[{value}]", config_level::name(*level));
            // In brackets what made no difference.
            if *value == line.value { format!("({text})") } else { text }
        };
        table.row(vec![
            line.name.into(),
            line.value.into(),
            config_level::name(line.level).into(),
            line.overrides.iter().map(overridden).collect::<Vec<_>>().join(","),
            if line.is_ignored { "mon".into() } else { String::new() },
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use spirula_maps::OsdMap;
    use spirula_wire::msg::mgr::{DaemonConfig, MgrCommandReply};

    use super::*;
    use crate::command::{View, answer};
    use crate::daemons::Daemons;
    use crate::pgmap::PgMap;

    fn daemons() -> Daemons {
        let set = |levels: &[(i32, &str)]| -> BTreeMap<i32, String> {
            levels.iter().map(|(level, value)| (*level, (*value).to_owned())).collect()
        };
        let values = [
            ("debug_osd", set(&[(config_level::MON, "3/5"), (config_level::OVERRIDE, "20/20")])),
            ("osd_size", set(&[(config_level::FILE, "1"), (config_level::MON, "1")])),
        ];
        let config = DaemonConfig {
            values: values.map(|(name, levels)| (name.to_owned(), levels)).into(),
            ignored: [("osd_size".to_owned(), "1".to_owned())].into(),
        };
        let defaults = [("debug_ms", "0/5"), ("debug_osd", "1/5"), ("osd_size", "3")];
        let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut daemons = Daemons::default();
        daemons.set("osd.0".into(), DaemonOptions { config, defaults });
        daemons.set("osd.1".into(), DaemonOptions::default());
        daemons
    }

    fn ask(args: serde_json::Value) -> MgrCommandReply {
        let (pgmap, osdmap) = (PgMap::default(), OsdMap::default());
        let view = View {
            pgmap: &pgmap,
            osdmap: &osdmap,
            daemons: &daemons(),
            stuck: std::time::Duration::ZERO,
            fsid: Default::default(),
            connected: &Default::default(),
        };
        answer(&[args.to_string()], view, |_| true).reply
    }

    fn check(args: serde_json::Value, want: &str) {
        let reply = ask(args);
        assert_eq!((reply.r, reply.rs.as_str()), (0, ""));
        assert_eq!(String::from_utf8_lossy(&reply.outbl), want);
    }

    #[test]
    fn options_are_shown_with_their_source() {
        check(
            json!({ "prefix": "config show", "who": "osd.0" }),
            "NAME       VALUE  SOURCE    OVERRIDES  IGNORES\n\
             debug_osd  20/20  override  mon[3/5]          \n\
             osd_size   1      file      (mon[1])   mon    \n",
        );
        check(
            json!({ "prefix": "config show-with-defaults", "who": "osd.0", "format": "json" }),
            "[{\"name\":\"debug_ms\",\"value\":\"0/5\",\"source\":\"default\"},\
             {\"name\":\"debug_osd\",\"value\":\"20/20\",\"source\":\"override\",\
             \"overrides\":[{\"source\":\"mon\",\"value\":\"3/5\"}]},\
             {\"name\":\"osd_size\",\"value\":\"1\",\"source\":\"file\",\
             \"overrides\":[{\"source\":\"mon\",\"value\":\"1\"}],\"ignores\":\"mon\"}]",
        );
        check(json!({ "prefix": "config show", "who": "osd.1" }), "");
    }

    #[test]
    fn one_option_is_shown_alone() {
        let key = |key: &str| json!({ "prefix": "config show", "who": "osd.0", "key": key });
        check(key("debug_osd"), "20/20\n");
        check(key("debug_ms"), "0/5\n");
        check(key("fsid"), "00000000-0000-0000-0000-000000000000\n");
        let absent = ask(key("nope"));
        assert_eq!((absent.r, absent.rs.as_str()), (-ENOENT, ""));
    }

    #[test]
    fn daemons_are_named_by_type_and_id() {
        for bad in ["osd", "0", ""] {
            let reply = ask(json!({ "prefix": "config show", "who": bad }));
            assert_eq!(reply.r, -EINVAL, "{bad}");
            assert_eq!(reply.rs, "invalid daemon name: use <type>.<id>");
        }
        let reply = ask(json!({ "prefix": "config show", "who": "osd.7" }));
        assert_eq!((reply.r, reply.rs.as_str()), (-ENOENT, "no config state for daemon osd.7"));
    }
}
