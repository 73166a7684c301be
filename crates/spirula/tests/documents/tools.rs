//! Commands of Debian's tools and features of images, with the scripts in `tests/clients` that use them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use spirula_cls::Settable;

use crate::{pacific, repository};

pub(crate) fn rbd() -> String {
    table("rbd")
}

pub(crate) fn rados() -> String {
    table("rados")
}

/// Every command of a tool, with the scripts that run it.
fn table(tool: &str) -> String {
    let known = pacific::commands(tool);
    let mut spellings: BTreeMap<&str, &str> = known.iter().map(|c| (c.name, c.name)).collect();
    spellings.extend(known.iter().filter(|c| !c.remark.is_empty()).map(|c| (c.remark, c.name)));
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (script, text) in scripts(&["sh", "py"]) {
        let callers = callers(&text, tool);
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            for command in commands_of(line, &callers, &spellings) {
                used.entry(command).or_default().insert(script.clone());
            }
        }
    }
    let mut out = format!("| `{tool}` | run by |\n| --- | --- |\n");
    for command in known {
        let scripts = used.remove(command.name).unwrap_or_default();
        out += &format!("| `{}` | {} |\n", command.name, join(scripts));
    }
    out
}

/// The tool itself and what a script defines as a shorter word for it: `r() { rados -p pool "$@"; }`.
fn callers<'t>(text: &'t str, tool: &'t str) -> Vec<&'t str> {
    let short = text.lines().filter_map(|line| {
        let (name, body) = line.split_once("() { ")?;
        let body = body.strip_prefix(tool)?;
        (body.starts_with(' ') && body.contains("\"$@\"")).then_some(name)
    });
    short.chain([tool]).collect()
}

/// The commands that a line of a script runs, whichever way it spells them.
fn commands_of<'n>(
    line: &str,
    callers: &[&str],
    spellings: &BTreeMap<&str, &'n str>,
) -> Vec<&'n str> {
    let within = |c: char| c.is_ascii_alphanumeric() || "-_./$=".contains(c);
    let words: Vec<&str> = line.split(|c| !within(c)).filter(|word| !word.is_empty()).collect();
    let calls = words.iter().enumerate().filter(|(_, word)| callers.contains(word));
    let commands = calls.map(|(at, _)| {
        let mut rest = &words[at + 1..];
        while let [option, more @ ..] = rest
            && option.starts_with('-')
        {
            let has_value = option.len() == 2 && !more.is_empty();
            rest = if has_value { &more[1..] } else { more };
        }
        longest(rest, spellings)
    });
    commands.flatten().collect()
}

/// The longest spelling that `words` begin with.
fn longest<'n>(words: &[&str], spellings: &BTreeMap<&str, &'n str>) -> Option<&'n str> {
    let mut lengths = (1..=words.len().min(5)).rev();
    lengths.find_map(|length| spellings.get(words[..length].join(" ").as_str()).copied())
}

/// The files of `tests/clients` by name without its ending, with their text.
fn scripts(endings: &[&str]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(repository().join("tests/clients")).expect("tests/clients") {
        let path = entry.expect("an entry").path();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if endings.contains(&ending) {
            let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
            all.push((name.to_owned(), fs::read_to_string(&path).expect(name)));
        }
    }
    all.sort_unstable();
    all
}

/// In the order of their names; files that scripts share begin with an underscore.
fn join(names: BTreeSet<String>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The features of images, with the scripts whose transcripts show them.
pub(crate) fn image_features() -> String {
    let transcripts = scripts(&["want"]);
    let mut out = "| feature | given or taken | shown by |\n| --- | --- | --- |\n".to_owned();
    for (name, settable) in spirula_cls::image_features() {
        let settable = match settable {
            Settable::AtCreation => "when the image is made",
            Settable::AtCreationAndOff => "given when the image is made, taken at any time",
            Settable::Always => "at any time",
            Settable::Never => "by methods alone",
        };
        let shown = transcripts.iter().filter(|(_, text)| text.lines().any(|l| shows(l, name)));
        let shown = join(shown.map(|(script, _)| script.clone()).collect());
        out += &format!("| `{name}` | {settable} | {shown} |\n");
    }
    out
}

/// Whether a line of `rbd info` names a feature.
fn shows(line: &str, feature: &str) -> bool {
    let named = line.trim_start().strip_prefix("features: ");
    named.is_some_and(|named| named.split(", ").any(|name| name == feature))
}

#[test]
fn commands_are_found_in_scripts() {
    let spellings = BTreeMap::from([
        ("snap create", "snap create"),
        ("snap add", "snap create"),
        ("cp", "copy"),
        ("deep cp", "deep copy"),
        ("ls", "list"),
    ]);
    for (line, want) in [
        ("t rbd snap create p/a@s", &["snap create"][..]),
        ("x=$(rbd -p pool snap add a@s) && rbd ls", &["snap create", "list"]),
        ("rbd deep cp --no-progress a b", &["deep copy"]),
        (r#"run(["rbd", "cp", a])"#, &["copy"]),
        ("on --log=x -p pool ls", &["list"]),
        ("rados -p rbd.x ls", &[]),
        ("rbd other ls", &[]),
    ] {
        assert_eq!(commands_of(line, &["rbd", "on"], &spellings), want, "{line}");
    }
    assert_eq!(
        callers("on() { rbd -p p \"$@\"; }\nsame() { rbd export x; }", "rbd"),
        ["on", "rbd"]
    );
}
