//! Commands that show and change options.

use serde_json::{Map, Value, json};

use super::{Args, Failure, text_arg};
use crate::errno::*;
use crate::options::{self, OptionInfo, Options};
use crate::target::Target;

type Shown = Result<Value, Failure>;

const INVALID: &str = "(22) Invalid argument";
const ABSENT: &str = "(2) No such file or directory";

pub(super) fn get(target: &Target, args: &Args) -> Shown {
    let var = text_arg(args, "var");
    match target.with_options(|o| o.get(&var).map(str::to_owned)) {
        Some(value) => Ok(json!({ var: value })),
        None => Err(Failure(ENOENT, format!("error getting '{var}': {ABSENT}"))),
    }
}

pub(super) fn set(target: &Target, args: &Args) -> Shown {
    let (var, val) = (text_arg(args, "var"), text_arg(args, "val"));
    let value = change(target, &var, &val)?;
    // Of what is in force at once Ceph says nothing.
    let said =
        if var.starts_with("debug_") { String::new() } else { format!("{var} = '{value}' ") };
    Ok(json!({ "success": said }))
}

/// `--name=value`, or `--name value`, any number of them.
pub(super) fn inject(target: &Target, args: &Args) -> Shown {
    let text = text_arg(args, "injected_args");
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let invalid = || Failure(EINVAL, format!("failed to parse arguments: {word}"));
        let option = word.strip_prefix("--").ok_or_else(invalid)?;
        let (name, value) = match option.split_once('=') {
            Some(pair) => pair,
            None => (option, words.next().ok_or_else(invalid)?),
        };
        change(target, &name.replace('-', "_"), value)?;
    }
    Ok(json!({}))
}

pub(super) fn unset(target: &Target, args: &Args) -> Shown {
    let var = text_arg(args, "var");
    if options::info(&var).is_none() {
        return Err(Failure(EINVAL, format!("error unsetting '{var}': {INVALID}")));
    }
    target.change_options(|o| drop(o.overrides.remove(&var)));
    Ok(json!({}))
}

pub(super) fn show(target: &Target, _: &Args) -> Shown {
    Ok(target.with_options(|o| json!(o.all())))
}

pub(super) fn diff(target: &Target, _: &Args) -> Shown {
    Ok(json!({ "diff": target.with_options(|o| differences(o, None)) }))
}

pub(super) fn diff_get(target: &Target, args: &Args) -> Shown {
    let var = text_arg(args, "var");
    Ok(json!({ "diff": target.with_options(|o| differences(o, Some(&var))) }))
}

pub(super) fn help(_: &Target, args: &Args) -> Shown {
    let var = text_arg(args, "var");
    if var.is_empty() {
        return Ok(
            json!({ "options": options::OPTIONS.iter().map(description).collect::<Vec<_>>() }),
        );
    }
    match options::info(&var) {
        Some(option) => Ok(json!({ "option": description(option) })),
        None => Err(Failure(ENOENT, format!("Setting not found: '{var}'"))),
    }
}

/// Debug levels are text and change at once; everything else is a number.
fn description(option: &OptionInfo) -> Value {
    let is_level = option.name.starts_with("debug_");
    let mut all = json!({
        "name": option.name,
        "type": if is_level { "str" } else { "size" },
        "level": "advanced",
        "desc": option.help,
        "long_desc": "",
        "default": option.default,
        "daemon_default": "",
        "tags": [],
        "services": [],
        "see_also": [],
        "enum_values": [],
        "min": "",
        "max": "",
        "can_update_at_runtime": true,
        "flags": ["runtime"],
    });
    if let Some(fields) = all.as_object_mut().filter(|_| !is_level) {
        fields.shift_remove("enum_values");
    }
    all
}

/// Sets an option and answers with its value in the stored form.
fn change(target: &Target, var: &str, val: &str) -> Result<String, Failure> {
    let failed = |errno, why| Failure(errno, format!("error setting '{var}' to '{val}': {why}"));
    let option = options::info(var).ok_or_else(|| failed(ENOENT, ABSENT))?;
    let value = option.normalize(val).ok_or_else(|| failed(EINVAL, INVALID))?;
    target.change_options(|o| drop(o.overrides.insert(var.to_owned(), value.clone())));
    Ok(value)
}

/// Where the value of each changed option comes from.
fn differences(options: &Options, only: Option<&str>) -> Value {
    let mut diff = Map::new();
    for (name, last) in options.all() {
        let default = options::info(name).map_or("", |i| i.default);
        if last == default || only.is_some_and(|only| only != name) {
            continue;
        }
        let mut row = Map::new();
        row.insert("default".into(), json!(default));
        let sources =
            [("mon", &options.mon), ("file", &options.file), ("override", &options.overrides)];
        for (source, values) in sources {
            row.extend(values.get(name).map(|value| (source.to_owned(), json!(value))));
        }
        row.insert("final".into(), json!(last));
        diff.insert(name.to_owned(), Value::Object(row));
    }
    Value::Object(diff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_ceph_s_fields() {
        let level = description(options::info("debug_osd").unwrap());
        assert_eq!((&level["type"], &level["default"]), (&json!("str"), &json!("1/5")));
        assert_eq!(level.as_object().unwrap().len(), 15);
        let size = description(options::info("osd_max_write_size").unwrap());
        assert!(size.get("enum_values").is_none());
    }

    #[test]
    fn a_difference_names_its_sources() {
        let mut options = Options::default();
        options.mon.insert("debug_osd".into(), "5/5".into());
        options.overrides.insert("debug_osd".into(), "20/20".into());
        options.overrides.insert("debug_ms".into(), "0/0".into());
        let want = json!({ "debug_osd": {
            "default": "1/5", "mon": "5/5", "override": "20/20", "final": "20/20",
        }});
        assert_eq!(differences(&options, None), want);
        assert_eq!(differences(&options, Some("debug_ms")), json!({}));
    }
}
