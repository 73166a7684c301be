//! From the words of a command line to a command: what daemons say about their commands
//! (`get_command_descriptions`), and which of them is meant.
//!
//! Invariant: what one description cannot take is never sent; the daemon's own tables decide, not a
//! list of ours.

mod kinds;

use serde_json::{Map, Value};

use kinds::{Kind, Refused};

/// What the monitors say about a command, as bits of its `flags`.
pub mod flag {
    pub const OBSOLETE: u32 = 2;
    pub const DEPRECATED: u32 = 4;
    /// The active manager answers it.
    pub const MGR: u32 = 8;
    pub const HIDDEN: u32 = 32;
}

/// Close matches named in an error.
const CLOSEST_MAX: usize = 10;

/// The commands of one daemon.
#[derive(Clone, Debug, Default)]
pub struct Descriptions {
    commands: Vec<Signature>,
}

#[derive(Clone, Debug)]
struct Signature {
    params: Vec<Param>,
    help: String,
    flags: u32,
}

#[derive(Clone, Debug)]
struct Param {
    name: String,
    kind: Kind,
    /// Takes all words that fit, and is an array.
    many: bool,
    /// How many words it takes unless `many`.
    count: usize,
    required: bool,
}

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Matched {
    /// `prefix` and the arguments by name.
    pub args: Map<String, Value>,
    pub flags: u32,
}

impl Matched {
    pub fn is_for_mgr(&self) -> bool {
        self.flags & flag::MGR != 0
    }
}

/// Why no command came of the words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMatch {
    #[error("no valid command found; {} closest matches:\n{}", .closest.len(), .closest.join("\n"))]
    Unknown { closest: Vec<String> },
    #[error("Invalid command: {reason}\n{usage} :  {help}")]
    Wrong { reason: String, usage: String, help: String },
}

/// The daemon's answer is not a table of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the descriptions of commands cannot be read")]
pub struct BadDescriptions;

/// How binding words to a signature ended.
enum Mismatch {
    /// Another command is meant.
    Prefix,
    Missing(String),
    TooFew,
    Wrong(String),
}

impl Descriptions {
    /// From the JSON of `get_command_descriptions`. Parameters of kinds that are not known take any
    /// word.
    pub fn parse(json: &[u8]) -> Result<Self, BadDescriptions> {
        let table: Map<String, Value> =
            serde_json::from_slice(json).map_err(|_| BadDescriptions)?;
        let commands = table.values().map(Signature::parse);
        Ok(Self { commands: commands.collect::<Option<_>>().ok_or(BadDescriptions)? })
    }

    /// Finds the command that fits the words best.
    pub fn resolve(&self, words: &[String]) -> Result<Matched, NoMatch> {
        let best = self.best(words);
        let mut failure = None;
        for signature in &best {
            match signature.bind(words) {
                Ok(args) => {
                    let flags = signature.flags;
                    return Ok(Matched { args, flags });
                }
                Err(Mismatch::Prefix | Mismatch::TooFew) => {}
                Err(Mismatch::Missing(reason)) => {
                    failure = (best.len() == 1).then_some((reason, *signature));
                    break;
                }
                Err(Mismatch::Wrong(reason)) => {
                    failure = Some((reason, *signature));
                    break;
                }
            }
        }
        Err(match failure {
            Some((reason, signature)) => {
                NoMatch::Wrong { reason, usage: signature.usage(), help: signature.help.clone() }
            }
            None => NoMatch::Unknown {
                closest: best
                    .iter()
                    .filter(|s| s.flags & (flag::DEPRECATED | flag::HIDDEN) == 0)
                    .take(CLOSEST_MAX)
                    .map(|s| s.usage())
                    .collect(),
            },
        })
    }

    /// One line for each command whose usage begins so.
    pub fn help(&self, beginning: &str) -> String {
        let unlisted = flag::OBSOLETE | flag::DEPRECATED | flag::HIDDEN;
        let listed = self.commands.iter().filter(|s| s.flags & unlisted == 0);
        let mut lines: Vec<String> = listed
            .map(|s| (s.usage(), &s.help))
            .filter(|(usage, help)| usage.starts_with(beginning) && !help.is_empty())
            .map(|(usage, help)| format!("{usage}\n    {help}\n"))
            .collect();
        lines.sort();
        lines.concat()
    }

    /// Those that the most words fit, fewest required parameters first.
    fn best(&self, words: &[String]) -> Vec<&Signature> {
        let mut best = Vec::new();
        let mut best_score = 0;
        for signature in &self.commands {
            if signature.flags & flag::OBSOLETE != 0 {
                continue;
            }
            // A command that fits word by word beats one whose beginning does.
            let matched = signature.matching(words, true);
            let whole = matched == signature.matching(words, false);
            let score = 2 * matched + usize::from(whole && 2 * matched + 1 >= best_score);
            if score > best_score {
                best.clear();
                best_score = score;
            }
            if score == best_score {
                best.push(signature);
            }
        }
        best.sort_by_key(|s| s.required());
        best
    }
}

impl Signature {
    fn parse(value: &Value) -> Option<Self> {
        let params = value.get("sig")?.as_array()?.iter().map(Param::parse);
        let flags = value.get("flags").and_then(Value::as_u64).unwrap_or(0);
        Some(Self {
            params: params.collect::<Option<_>>()?,
            help: value.get("help")?.as_str()?.to_owned(),
            flags: u32::try_from(flags).ok()?,
        })
    }

    fn required(&self) -> usize {
        self.params.iter().filter(|p| p.required).count()
    }

    fn usage(&self) -> String {
        let parts: Vec<String> = self.params.iter().map(Param::usage).collect();
        parts.join(" ")
    }

    /// How many required parameters find their words before one does not.
    fn matching(&self, words: &[String], partial: bool) -> usize {
        let mut rest = words;
        let mut matched = 0;
        for param in &self.params {
            let mut seen = 0;
            while param.many || seen < param.count {
                let Some((word, after)) = rest.split_first() else {
                    return matched + usize::from(param.many && seen > 0 && param.required);
                };
                if param.take(word, partial && after.is_empty()).is_err() {
                    if param.required && seen == 0 {
                        return matched;
                    }
                    break;
                }
                rest = after;
                seen += 1;
            }
            matched += usize::from(param.required);
        }
        matched
    }

    /// Gives each parameter its words.
    fn bind(&self, words: &[String]) -> Result<Map<String, Value>, Mismatch> {
        let mut rest: std::collections::VecDeque<&str> = words.iter().map(String::as_str).collect();
        let mut args = Map::new();
        let mut bound = 0;
        let mut refused: Option<String> = None;
        for param in &self.params {
            let mut seen = 0;
            while param.many || seen < param.count {
                let Some(word) = rest.pop_front() else {
                    if param.required && seen == 0 && !args.contains_key(&param.name) {
                        return Err(Mismatch::Missing(format!(
                            "missing required parameter {}",
                            param.describe()
                        )));
                    }
                    break;
                };
                if let Some((keyword, value)) = self.keyword(word, &mut rest) {
                    keyword.store(value, true, &mut args)?;
                    bound += 1;
                    continue;
                }
                if word.starts_with("--") && !is_value(word, &param.kind) {
                    let reason = format!("Unexpected argument '{word}'");
                    return Err(Mismatch::Wrong(reason));
                }
                match param.store(word, false, &mut args) {
                    Ok(()) => {
                        seen += 1;
                        bound += 1;
                        refused = None;
                    }
                    Err(Mismatch::Wrong(reason)) if !param.required || seen > 0 => {
                        refused = Some(format!("{word} not valid: {reason}"));
                        rest.push_front(word);
                        break;
                    }
                    Err(mismatch) => return Err(mismatch),
                }
            }
        }
        if bound < self.required() {
            return Err(Mismatch::TooFew);
        }
        if rest.is_empty() {
            return Ok(args);
        }
        let unused: Vec<&str> = rest.into_iter().collect();
        let reason = format!("unused arguments: {unused:?}");
        Err(Mismatch::Wrong(match refused {
            Some(why) => format!("{why}; {reason}"),
            None => reason,
        }))
    }

    /// `--name=value`, `--name value`, or `--switch`, if there is such a parameter.
    fn keyword<'a>(
        &self,
        word: &'a str,
        rest: &mut std::collections::VecDeque<&'a str>,
    ) -> Option<(&Param, &'a str)> {
        let text = word.strip_prefix("--")?;
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let name = name.replace('-', "_");
        let is_it = |p: &&Param| p.name == name && !p.kind.is_prefix();
        let param = self.params.iter().find(is_it)?;
        let value = match value {
            Some(value) => value,
            None if param.kind.is_switch() => "true",
            None => rest.pop_front()?,
        };
        Some((param, value))
    }
}

impl Param {
    fn parse(value: &Value) -> Option<Self> {
        if let Some(word) = value.as_str() {
            return Some(Self {
                name: "prefix".to_owned(),
                kind: Kind::Prefix(word.to_owned()),
                many: false,
                count: 1,
                required: true,
            });
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let (many, count) = match value.get("n") {
            None => (false, 1),
            Some(Value::Number(n)) => (false, usize::try_from(n.as_u64()?).ok()?),
            Some(Value::String(n)) => match n.parse() {
                Ok(n) => (false, n),
                Err(_) => (true, 1),
            },
            Some(_) => return None,
        };
        let required = match value.get("req") {
            None => true,
            Some(Value::Bool(b)) => *b,
            Some(other) => matches!(other.as_str(), Some("true" | "True")),
        };
        Some(Self {
            name: text("name")?.to_owned(),
            kind: Kind::parse(text("type")?, &text),
            many,
            count,
            required,
        })
    }

    fn take(&self, word: &str, partial: bool) -> Result<Value, Refused> {
        self.kind.take(word, partial)
    }

    fn store(
        &self,
        word: &str,
        keyword: bool,
        args: &mut Map<String, Value>,
    ) -> Result<(), Mismatch> {
        let take = |word: &str| {
            self.take(word, false).map_err(|refused| match refused {
                Refused::Prefix => Mismatch::Prefix,
                Refused::Because(reason) => Mismatch::Wrong(reason),
            })
        };
        if self.many {
            // A plain string may hold commas.
            let parts: Vec<&str> = match keyword || !self.kind.is_string() {
                true => word.split(',').collect(),
                false => vec![word],
            };
            let values = parts.into_iter().map(take).collect::<Result<Vec<_>, _>>()?;
            match args.get_mut(&self.name) {
                Some(Value::Array(array)) => array.extend(values),
                _ => {
                    args.insert(self.name.clone(), Value::Array(values));
                }
            }
            return Ok(());
        }
        let value = take(word)?;
        match (args.get_mut(&self.name), &self.kind) {
            (Some(Value::String(prefix)), Kind::Prefix(word)) => {
                prefix.push(' ');
                prefix.push_str(word);
            }
            _ => {
                args.insert(self.name.clone(), value);
            }
        }
        Ok(())
    }

    fn usage(&self) -> String {
        self.decorate(self.kind.usage(&self.name))
    }

    /// As [`Self::usage`], with more about its kind.
    fn describe(&self) -> String {
        match self.kind.describe() {
            text if self.kind.is_prefix() => self.decorate(text),
            text => self.decorate(format!("{}({text})", self.name)),
        }
    }

    fn decorate(&self, mut text: String) -> String {
        if self.many {
            text.push_str("...");
        }
        match self.required {
            true => text,
            false => format!("[{text}]"),
        }
    }
}

/// Words that look like switches but are values: confirmations that old daemons describe as such.
fn is_value(word: &str, kind: &Kind) -> bool {
    let confirmations = [
        "--yes-i-really-mean-it",
        "--yes-i-really-really-mean-it",
        "--yes-i-really-really-mean-it-not-faking",
        "--force",
    ];
    kind.is_choices() || confirmations.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &[u8] = include_bytes!("argparse/fixture.json");

    fn resolve(line: &str) -> Result<Matched, NoMatch> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Descriptions::parse(FIXTURE).unwrap().resolve(&words)
    }

    /// The command as it is sent.
    fn check(line: &str, want: &str) {
        let matched = resolve(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(Value::Object(matched.args).to_string(), want, "{line}");
    }

    #[test]
    fn plain_commands() {
        check("status", r#"{"prefix":"status"}"#);
        check("osd tree", r#"{"prefix":"osd tree"}"#);
        check("df detail", r#"{"prefix":"df","detail":"detail"}"#);
        check("osd pool create p1 32", r#"{"prefix":"osd pool create","pool":"p1","pg_num":32}"#);
        check("osd pool get p1 all", r#"{"prefix":"osd pool get","pool":"p1","var":"all"}"#);
        check("osd set noout", r#"{"prefix":"osd set","key":"noout"}"#);
    }

    #[test]
    fn keywords_switches_and_confirmations() {
        check(
            "osd pool create p1 --pg-num 8 --bulk",
            r#"{"prefix":"osd pool create","pool":"p1","pg_num":8,"bulk":true}"#,
        );
        check(
            "osd pool rm p1 p1 --yes-i-really-really-mean-it",
            r#"{"prefix":"osd pool rm","pool":"p1","pool2":"p1","yes_i_really_really_mean_it":true}"#,
        );
    }

    #[test]
    fn lists_and_typed_words() {
        check("osd out 1 2", r#"{"prefix":"osd out","ids":["1","2"]}"#);
        check("osd find osd.1", r#"{"prefix":"osd find","id":1}"#);
        check("osd reweight 0 0.5", r#"{"prefix":"osd reweight","id":0,"weight":0.5}"#);
        check(
            "auth get-or-create client.ro mon x osd y",
            r#"{"prefix":"auth get-or-create","entity":"client.ro","caps":["mon","x","osd","y"]}"#,
        );
    }

    #[test]
    fn the_manager_answers_what_is_flagged_so() {
        assert!(resolve("pg dump").unwrap().is_for_mgr());
        assert!(!resolve("status").unwrap().is_for_mgr());
    }

    #[test]
    fn errors_help() {
        let error = resolve("osd pool create").unwrap_err().to_string();
        assert!(error.starts_with("Invalid command: missing required parameter pool("));
        assert!(error.contains("\nosd pool create <pool> [<pg_num:int>]"), "{error}");
        let error = resolve("osd reweight 0 heavy").unwrap_err();
        assert!(matches!(error, NoMatch::Wrong { .. }), "{error}");
        let NoMatch::Unknown { closest } = resolve("osd nonsense").unwrap_err() else {
            panic!("not unknown");
        };
        assert!(closest.iter().any(|c| c.starts_with("osd tree")), "{closest:?}");
        assert!(resolve("osd tree --nonsense").is_err());
        assert!(resolve("status now").is_err());
    }

    #[test]
    fn bad_tables_are_refused() {
        for text in ["", "[]", r#"{"c":{}}"#, r#"{"c":{"sig":[1],"help":""}}"#] {
            assert!(Descriptions::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
