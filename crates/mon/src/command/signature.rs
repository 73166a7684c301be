//! The signature language of the command table, and the JSON description made from it.
//!
//! A signature is words, then parameters; a parameter is `key=value` pairs joined by commas, of
//! which Ceph knows `name`, `type`, `n` (`N` = repeated), `req`, `range`, `strings`, `goodchars`.

use spirula_wire::msg::mgr::CommandDescription;

use super::{Args, Command, Refusal, errno, refuse};
use crate::json::Json;

pub(crate) const FLAG_NOFORWARD: u32 = 1;
pub(crate) const FLAG_DEPRECATED: u32 = 4;
/// Answered by the active manager.
pub(crate) const FLAG_MGR: u32 = 8;
pub(crate) const FLAG_HIDDEN: u32 = 32;
/// Answered by one daemon for itself (`ceph tell`).
pub(crate) const FLAG_TELL: u32 = FLAG_NOFORWARD | FLAG_HIDDEN;

/// The words that select a command.
pub(crate) fn words(signature: &str) -> &str {
    let end = params_at(signature);
    signature[..end].trim_end()
}

/// The `sig`, `help`, `module`, `perm` and `flags` of `commands` as the `ceph` tool reads them.
pub(crate) fn describe(commands: impl Iterator<Item = Described>) -> Json {
    let each = commands.enumerate().map(|(i, c)| {
        let members = crate::obj! {
            "sig" => Json::Arr(sig(&c.signature)),
            "help" => c.help,
            "module" => c.module,
            "perm" => c.perm,
            "flags" => c.flags,
        };
        (format!("cmd{i:03}"), members)
    });
    Json::obj(each.collect::<Vec<_>>())
}

/// What a description needs; rows of the table and commands reported by the manager both have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) signature: String,
    pub(crate) help: String,
    pub(crate) module: String,
    pub(crate) perm: String,
    pub(crate) flags: u32,
}

impl From<&Command> for Described {
    fn from(c: &Command) -> Self {
        Self {
            signature: c.signature.to_owned(),
            help: c.help.to_owned(),
            module: c.module.to_owned(),
            perm: c.perm.to_owned(),
            flags: c.flags,
        }
    }
}

impl From<&CommandDescription> for Described {
    fn from(c: &CommandDescription) -> Self {
        Self {
            signature: c.cmdstring.clone(),
            help: c.helpstring.clone(),
            module: c.module.clone(),
            perm: c.req_perms.clone(),
            flags: c.flags as u32,
        }
    }
}

/// What a manager with these commands answers to `get_command_descriptions`.
pub fn describe_commands(commands: &[CommandDescription]) -> Json {
    describe(commands.iter().map(Described::from))
}

/// Commands as [`describe`] wrote them; what cannot be read is left out.
pub(crate) fn described_from_json(text: &str) -> Vec<Described> {
    let Ok(serde_json::Value::Object(commands)) = serde_json::from_str(text) else {
        return Vec::new();
    };
    let text = |v: &serde_json::Value, key: &str| {
        v.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
    };
    let word = |v: &serde_json::Value| match v {
        serde_json::Value::String(word) => word.clone(),
        serde_json::Value::Object(param) => {
            let pairs =
                param.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
            pairs.collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    };
    let one = |v: &serde_json::Value| {
        let words: Vec<String> = v.get("sig")?.as_array()?.iter().map(word).collect();
        Some(Described {
            signature: words.join(" "),
            help: text(v, "help"),
            module: text(v, "module"),
            perm: text(v, "perm"),
            flags: v.get("flags")?.as_u64()? as u32,
        })
    };
    commands.values().filter_map(one).collect()
}

/// A manager's command as it stands among the monitor's.
pub(crate) fn described_for_mgr(mut command: Described) -> Described {
    command.flags |= FLAG_MGR;
    command
}

/// How a command is shown to people: `osd find <id>`.
pub(crate) fn shape(signature: &str) -> String {
    let mut out = words(signature).to_owned();
    for param in params(signature) {
        let (mut name, mut strings, mut optional, mut many) = ("", "", false, false);
        for (key, value) in pairs(param) {
            match key {
                "name" => name = value,
                "strings" => strings = value,
                "req" => optional = value == "false",
                "n" => many = value == "N",
                _ => {}
            }
        }
        let inner = if strings.is_empty() { format!("<{name}>") } else { strings.to_owned() };
        let dots = if many { "..." } else { "" };
        out += &if optional { format!(" [{inner}{dots}]") } else { format!(" {inner}{dots}") };
    }
    out
}

/// Refuses arguments that lack a required parameter or a listed choice.
pub(crate) fn check(signature: &str, args: &Args) -> Result<(), Refusal> {
    for param in params(signature) {
        let find = |wanted| pairs(param).find(|(k, _)| *k == wanted).map(|(_, v)| v);
        let name = find("name").unwrap_or_default();
        let required =
            !find("req").is_some_and(|v| v.eq_ignore_ascii_case("false") || v == "fasle");
        if !args.has(name) {
            if required {
                return refuse(errno::EINVAL, format!("missing required parameter {name}"));
            }
            continue;
        }
        let Some(choices) = find("strings") else {
            continue;
        };
        if find("type") != Some("CephChoices") {
            continue;
        }
        for value in args.strs(name)? {
            if !choices.split('|').any(|c| c == value) {
                return refuse(errno::EINVAL, format!("{value} not in {choices}"));
            }
        }
    }
    Ok(())
}

/// The names of the parameters.
pub(crate) fn names(signature: &str) -> impl Iterator<Item = &str> {
    params(signature).filter_map(|param| Some(pairs(param).find(|(key, _)| *key == "name")?.1))
}

fn params_at(signature: &str) -> usize {
    let mut at = 0;
    for word in signature.split(' ') {
        if word.contains('=') {
            break;
        }
        at += word.len() + 1;
    }
    at.min(signature.len())
}

fn params(signature: &str) -> impl Iterator<Item = &str> {
    signature[params_at(signature)..].split(' ').filter(|p| !p.is_empty())
}

/// Values may contain anything but a comma and a blank.
fn pairs(param: &str) -> impl Iterator<Item = (&str, &str)> {
    param.split(',').filter_map(|pair| pair.split_once('='))
}

fn sig(signature: &str) -> Vec<Json> {
    let words = words(signature).split(' ').map(Json::from);
    let params = params(signature).map(|param| {
        let mut members: Vec<_> = pairs(param).collect();
        members.sort_unstable();
        Json::obj(members.into_iter().map(|(k, v)| (k, Json::from(v))))
    });
    words.chain(params).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_becomes_ceph_s_json() {
        let sig = sig(
            "osd tree name=epoch,type=CephInt,range=0,req=false name=states,type=CephChoices,strings=up|down,n=N,req=false",
        );
        assert_eq!(
            Json::Arr(sig).compact(),
            r#"["osd","tree",{"name":"epoch","range":"0","req":"false","type":"CephInt"},{"n":"N","name":"states","req":"false","strings":"up|down","type":"CephChoices"}]"#
        );
        assert_eq!(words("fsid"), "fsid");
        assert_eq!(shape("osd find name=id,type=CephOsdName"), "osd find <id>");
    }

    #[test]
    fn missing_and_wrong_arguments_are_refused() {
        let sig = "osd set name=key,type=CephChoices,strings=noout|noup";
        let check = |text: &str| check(sig, &Args::parse(text).unwrap()).is_ok();
        assert!(check(r#"{"key":"noup"}"#));
        assert!(!check(r#"{"key":"nope"}"#));
        assert!(!check(r#"{"prefix":"osd set"}"#));
    }
}
