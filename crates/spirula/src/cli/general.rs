//! What all of Ceph's tools take: the words of `CEPH_ARGS`, and `--OPTION VALUE` for every
//! configuration option.

use std::ffi::OsString;

use spirula_mon::options::{self, Kind};

/// The command line with the words of `CEPH_ARGS` where Ceph's tool of that name has them: for `ceph`
/// behind its own, so that they win; for others before them.
pub(crate) fn with_ceph_args(mut args: Vec<OsString>, ceph_args: &str) -> Vec<OsString> {
    let words = ceph_args.split_whitespace().map(str::to_owned);
    match args.get(1).and_then(|tool| tool.to_str()) {
        Some("ceph") => {
            // What follows `injectargs` is for the daemon.
            let end = args.iter().position(|arg| arg == "injectargs").unwrap_or(args.len());
            args.splice(end..end, words.map(OsString::from));
        }
        Some("rados" | "load") => {
            args.splice(2..2, as_settings(words).map(OsString::from));
        }
        _ => {}
    }
    args
}

/// Configuration options as `--set` takes them; what else there is stays.
fn as_settings(mut words: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        match config_option(&word, || words.next()) {
            _ if is_no_mon_config(&word) => {}
            Some((name, value)) => out.extend(["--set".to_owned(), format!("{name}={value}")]),
            None => out.push(word),
        }
    }
    out.into_iter()
}

/// Our clients take no options from the monitors, so there is nothing to leave out.
pub(super) fn is_no_mon_config(word: &str) -> bool {
    matches!(word, "--no-mon-config" | "--no_mon_config")
}

/// Name and value, if `word` is `--OPTION`, of an option that is in Ceph's configuration; `next` gives
/// the word behind it. One that is true or false needs none: `--OPTION`, `--no-OPTION`.
pub(super) fn config_option(
    word: &str,
    next: impl FnOnce() -> Option<String>,
) -> Option<(String, String)> {
    let word = word.strip_prefix("--")?;
    let (name, inline) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    let name = name.replace('-', "_");
    let flag = |name: &str| options::find(name).filter(|o| o.kind == Kind::Bool);
    if inline.is_none() {
        if let Some(opt) = flag(&name) {
            return Some((opt.name.to_owned(), "true".to_owned()));
        }
        if let Some(opt) = name.strip_prefix("no_").and_then(flag) {
            return Some((opt.name.to_owned(), "false".to_owned()));
        }
    }
    let opt = options::find(&name)?;
    Some((opt.name.to_owned(), inline.or_else(next)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, ceph_args: &str, want: &str) {
        let args = line.split(' ').map(OsString::from).collect();
        let got = with_ceph_args(args, ceph_args);
        let got: Vec<_> = got.iter().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(got.join(" "), want);
    }

    #[test]
    fn each_tool_has_its_place_for_ceph_args() {
        check("spirula ceph -s", "", "spirula ceph -s");
        check("spirula ceph -s --id a", " --id  b", "spirula ceph -s --id a --id b");
        check(
            "spirula ceph tell osd.0 injectargs --debug-osd 1",
            "--id b",
            "spirula ceph tell osd.0 --id b injectargs --debug-osd 1",
        );
        check("spirula rados --id a ls", "--id b", "spirula rados --id b --id a ls");
        check("spirula vstart", "--id b", "spirula vstart");
    }

    #[test]
    fn configuration_options_are_settings() {
        check(
            "spirula rados ls",
            "--rados-osd-op-timeout 5 --debug_ms=1 -p x --no-mon-config --no-rbd-cache",
            "spirula rados --set rados_osd_op_timeout=5 --set debug_ms=1 -p x --set \
             rbd_cache=false ls",
        );
        check("spirula load", "--log-to-stderr -c x", "spirula load --set log_to_stderr=true -c x");
        check("spirula load", "--bulk --debug_ms", "spirula load --bulk --debug_ms");
    }
}
