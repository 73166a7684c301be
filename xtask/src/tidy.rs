//! Rules of the tree that neither rustfmt nor clippy knows: every file says what it is for, files
//! and functions stay small, dependencies point downward, and `unsafe` stays in its crates.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run;

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;

/// Crates that may contain `unsafe`.
const UNSAFE_CRATES: &[&str] = &["xstream", "bio"];

/// Crates that decode what others sent: nothing there may panic on input.
const DECODER_CRATES: &[&str] = &["wire", "crush", "maps", "auth", "msgr-core", "pg", "cls"];

/// Text that never enters the tree, with what to do instead.
const BANNED: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "open an issue, or mend it"),
    (concat!("XX", "X:"), "open an issue, or mend it"),
    (concat!("todo", "!("), "build it, or answer with a clear error"),
    (concat!("unimplemented", "!("), "build it, or answer with a clear error"),
    (concat!("dbg", "!("), "use tracing"),
];

/// The layers of ARCHITECTURE.md from the bottom: a crate depends only on crates listed before it.
const LAYERS: &[&str] = &[
    "crc",
    "wire-derive",
    "wire",
    "crush",
    "maps",
    "auth",
    "msgr-core",
    "monc",
    "pg",
    "vos",
    "xstream",
    "bio",
    "msgr",
    "store",
    "cls",
    "osd",
    "mon",
    "mgr",
    "client",
    "spirula",
    "sim",
];

pub(crate) fn run() -> Result<()> {
    let mut problems = Vec::new();
    for file in run::output("git", &["ls-files", "*.rs"])?.lines() {
        let path = run::root().join(file);
        // A file deleted in the work tree but not yet in the index.
        if !path.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| file.to_owned())?;
        check_file(file, &text, &mut problems);
    }
    check_layers(&mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    bail!("tidy found {} problem(s):\n{}", problems.len(), problems.join("\n"));
}

fn check_file(file: &str, text: &str, problems: &mut Vec<String>) {
    if !text.starts_with("//!") {
        problems.push(format!("{file}:1: must begin with `//!` saying its purpose"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        problems.push(format!("{file}: {lines} lines, at most {FILE_LINES_MAX}: split it"));
    }
    for (n, line) in text.lines().enumerate() {
        for (banned, instead) in BANNED {
            if line.contains(banned) {
                problems.push(format!("{file}:{}: `{banned}`: {instead}", n + 1));
            }
        }
    }
    check_functions(file, text, problems);
    let krate = file.strip_prefix("crates/").and_then(|f| f.split('/').next()).unwrap_or("");
    if file.starts_with("crates/")
        && file.contains("/src/")
        && !UNSAFE_CRATES.contains(&krate)
        && uses_unsafe(text)
    {
        problems.push(format!("{file}: `unsafe` belongs to {UNSAFE_CRATES:?} only"));
    }
    if file.contains("/src/") && DECODER_CRATES.contains(&krate) {
        check_panics(file, text, problems);
    }
}

fn uses_unsafe(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|l| {
        !l.starts_with("//")
            && ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|u| l.contains(u))
    })
}

/// Panicking calls in a decoder crate, tests apart.
fn check_panics(file: &str, text: &str, problems: &mut Vec<String>) {
    // A test module in a file of its own says so at its top.
    if text.contains("#![cfg(test)]") {
        return;
    }
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    for (n, line) in code.lines().enumerate() {
        let line_code = line.split("//").next().unwrap_or(line);
        if [".unwrap()", ".expect(", "panic!(", "unreachable!("]
            .iter()
            .any(|p| line_code.contains(p))
        {
            problems.push(format!("{file}:{}: a decoder crate must not panic", n + 1));
        }
    }
}

/// Finds functions by their `fn` line and the closing brace at the same indentation.
fn check_functions(file: &str, text: &str, problems: &mut Vec<String>) {
    // Tests may be as long as the story they tell.
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines: Vec<&str> = code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        // The line that ends the signature tells a declaration in a trait from a function.
        let mut signature = lines[start..].iter();
        let declared =
            signature.find(|l| l.ends_with([';', '{'])).is_some_and(|l| l.ends_with(';'));
        if !is_function(body) || declared {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - body.len()]);
        let Some(length) = lines[start..].iter().position(|l| *l == close) else {
            continue;
        };
        if length + 1 > FUNCTION_LINES_MAX {
            problems.push(format!(
                "{file}:{}: function of {} lines, at most {FUNCTION_LINES_MAX}",
                start + 1,
                length + 1
            ));
        }
    }
}

fn is_function(line: &str) -> bool {
    let mut rest = line;
    for qualifier in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(qualifier).unwrap_or(rest);
    }
    rest.starts_with("fn ")
}

/// Every `spirula-x` dependency (dev-dependencies apart) of a crate stands before it in [`LAYERS`].
fn check_layers(problems: &mut Vec<String>) -> Result<()> {
    for (height, krate) in LAYERS.iter().enumerate() {
        let manifest = run::root().join("crates").join(krate).join("Cargo.toml");
        if !Path::new(&manifest).exists() {
            continue;
        }
        let text = std::fs::read_to_string(&manifest)?;
        let wanted = text.split("[dev-dependencies]").next().unwrap_or(&text);
        for line in wanted.lines().filter(|l| l.starts_with("spirula-")) {
            let name =
                line.trim_start_matches("spirula-").split(['.', ' ', '=']).next().unwrap_or("");
            match LAYERS.iter().position(|l| *l == name) {
                Some(below) if below < height => {}
                _ => problems.push(format!("crates/{krate}: must not depend on {name}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        check_file("crates/wire/src/a.rs", text, &mut out);
        out
    }

    #[test]
    fn a_clean_file_passes() {
        assert_eq!(problems("//! Purpose.\nfn a() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn a_missing_purpose_a_long_function_and_a_panic_are_found() {
        let long = format!("fn a() {{\n{}}}\n", "    b();\n".repeat(FUNCTION_LINES_MAX));
        assert_eq!(problems(&long).len(), 2);
        assert_eq!(problems("//! P.\nfn a() { b().unwrap() }\n").len(), 1);
        assert_eq!(problems("//! P.\n#[cfg(test)]\nmod t { fn a() { b().unwrap() } }\n").len(), 0);
    }
}
