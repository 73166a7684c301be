//! Configuration files in Ceph's format: where they are, what they say, and what an option means to
//! one entity.
//!
//! Invariants: spaces, dashes and underscores in option names are the same; the most special
//! section wins (`[client.admin]`, `[client]`, `[global]`); in one section the last line wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spirula_wire::types::EntityNameStr;

use crate::limits::META_DEPTH_MAX;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    #[error("line {line}: expected `[section]` or `option = value`")]
    Syntax { line: usize },
    #[error("line {line}: the quotation does not end")]
    Quotation { line: usize },
    #[error("{path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: String },
    #[error("{path}: {error}")]
    In { path: PathBuf, error: Box<ConfError> },
}

/// A parsed configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Conf {
    pub fn parse(text: &str) -> Result<Self, ConfError> {
        let mut conf = Self::default();
        let mut section = "global".to_owned();
        for (line, content) in logical_lines(text) {
            let content = content.trim();
            if content.is_empty() || content.starts_with(['#', ';']) {
                continue;
            }
            if let Some(rest) = content.strip_prefix('[') {
                let (name, _) = rest.split_once(']').ok_or(ConfError::Syntax { line })?;
                section = name.trim().to_owned();
                continue;
            }
            let (key, value) = content.split_once('=').ok_or(ConfError::Syntax { line })?;
            let value = clean_value(value.trim()).ok_or(ConfError::Quotation { line })?;
            let options = conf.sections.entry(section.clone()).or_default();
            options.insert(normal_key(key), value);
        }
        Ok(conf)
    }

    pub fn load(path: &Path) -> Result<Self, ConfError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfError::Unreadable { path: path.to_owned(), error: e.to_string() })?;
        Self::parse(&text)
            .map_err(|error| ConfError::In { path: path.to_owned(), error: Box::new(error) })
    }

    /// The file to read: the one asked for (`-c`, else `CEPH_CONF`), or the first that exists where
    /// Ceph looks. What was asked for need not exist; that is an error of [`Conf::load`].
    pub fn find(asked: Option<&Path>, cluster: &str) -> Option<PathBuf> {
        if let Some(path) = asked {
            return Some(path.to_owned());
        }
        if let Some(path) = std::env::var_os("CEPH_CONF").filter(|p| !p.is_empty()) {
            return Some(path.into());
        }
        let file = format!("{cluster}.conf");
        let etc = Path::new("/etc/ceph").join(&file);
        let home = std::env::var_os("HOME").map(|h| Path::new(&h).join(".ceph").join(&file));
        let here = PathBuf::from(&file);
        [Some(etc), home, Some(here)].into_iter().flatten().find(|p| p.is_file())
    }

    /// Sets an option as if it were the last line of `[section]`: what command lines do.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        let options = self.sections.entry(section.to_owned()).or_default();
        options.insert(normal_key(key), value.to_owned());
    }

    /// The options as `name` sees them.
    pub fn of<'a>(&'a self, name: &'a EntityNameStr, cluster: &'a str) -> Options<'a> {
        Options { conf: self, name, cluster }
    }

    /// Names of all sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }
}

/// A configuration from one entity's point of view.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    conf: &'a Conf,
    name: &'a EntityNameStr,
    cluster: &'a str,
}

impl Options<'_> {
    /// The value of an option, with `$name` and its like filled in.
    pub fn get(&self, key: &str) -> Option<String> {
        self.raw(key).map(|value| self.expand(value))
    }

    /// Fills in `$cluster`, `$name`, `$type`, `$id`, `$host`, `$pid`, `$home`, and other options by
    /// name. What is not known stays as it is.
    pub fn expand(&self, text: &str) -> String {
        self.expand_to(text, META_DEPTH_MAX)
    }

    fn raw(&self, key: &str) -> Option<&str> {
        let key = normal_key(key);
        let special = self.name.to_string();
        [special.as_str(), self.name.type_.name(), "global"]
            .into_iter()
            .find_map(|section| self.conf.sections.get(section)?.get(&key))
            .map(String::as_str)
    }

    fn expand_to(&self, text: &str, depth: u32) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let (variable, after) = split_variable(&rest[at + 1..]);
            match self.variable(variable, depth) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..rest.len() - after.len()]),
            }
            rest = after;
        }
        out + rest
    }

    fn variable(&self, name: &str, depth: u32) -> Option<String> {
        Some(match name {
            "" => return None,
            "cluster" => self.cluster.to_owned(),
            "name" => self.name.to_string(),
            "type" => self.name.type_.name().to_owned(),
            "id" | "num" => self.name.id.clone(),
            "host" => hostname(),
            "pid" => std::process::id().to_string(),
            "home" => std::env::var("HOME").ok()?,
            option => self.expand_to(self.raw(option)?, depth.checked_sub(1)?),
        })
    }
}

/// The short name of this host; empty if it has none.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// `Mon-Host`, `mon host` and `mon_host` are one option.
fn normal_key(key: &str) -> String {
    let words = key.split(|c: char| c.is_whitespace() || c == '_' || c == '-');
    words.filter(|w| !w.is_empty()).collect::<Vec<_>>().join("_")
}

/// Lines with their numbers; one that ends in a backslash goes on in the next.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (i, line) in text.lines().enumerate() {
        let (number, mut content) = open.take().unwrap_or((i + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                content.push_str(part);
                open = Some((number, content));
            }
            None => {
                content.push_str(line);
                lines.push((number, content));
            }
        }
    }
    lines.extend(open);
    lines
}

/// Takes quotation marks and a comment off a value; `None` if a quotation does not end.
fn clean_value(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = value.chars();
    if let Some(quote @ ('"' | '\'')) = value.chars().next() {
        chars.next();
        loop {
            match chars.next()? {
                '\\' => out.push(chars.next()?),
                c if c == quote => return Some(out),
                c => out.push(c),
            }
        }
    }
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            '#' | ';' => break,
            c => out.push(c),
        }
    }
    Some(out.trim_end().to_owned())
}

/// Splits what follows a `$` into the variable's name and the rest.
fn split_variable(text: &str) -> (&str, &str) {
    if let Some(inner) = text.strip_prefix('{')
        && let Some((name, rest)) = inner.split_once('}')
    {
        return (name, rest);
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        fsid = 1
        [global]   ; everybody
        mon host = [v2:127.0.0.1:3300,v1:127.0.0.1:6789] # where
        log_file = \"/var/log/$cluster-$name.log\"
        run dir = /run/$type
        admin socket = ${run_dir}/$cluster-$name.asok
        quoted = 'a # b'
        long = one \\
two
        [client]
        Mon-Max = x
        keyring = /k/$cluster.$name.keyring
        [client.admin]
        keyring = /special/$id
    ";

    fn get(name: &str, key: &str) -> Option<String> {
        let conf = Conf::parse(TEXT).unwrap();
        let name = name.parse().unwrap();
        conf.of(&name, "ceph").get(key)
    }

    #[test]
    fn the_most_special_section_wins() {
        assert_eq!(get("client.admin", "keyring").unwrap(), "/special/admin");
        assert_eq!(get("client.bob", "keyring").unwrap(), "/k/ceph.client.bob.keyring");
        assert_eq!(get("osd.1", "keyring"), None);
        assert_eq!(get("osd.1", "fsid").unwrap(), "1");
    }

    #[test]
    fn option_names_have_many_spellings() {
        for key in ["mon_host", "mon host", "mon-host", " mon  host "] {
            assert_eq!(get("client.admin", key).unwrap(), "[v2:127.0.0.1:3300,v1:127.0.0.1:6789]");
        }
    }

    #[test]
    fn quotations_continuations_and_variables() {
        assert_eq!(get("osd.1", "quoted").unwrap(), "a # b");
        assert_eq!(get("osd.1", "long").unwrap(), "one two");
        assert_eq!(get("client.admin", "log file").unwrap(), "/var/log/ceph-client.admin.log");
        assert_eq!(get("osd.1", "admin_socket").unwrap(), "/run/osd/ceph-osd.1.asok");
    }

    #[test]
    fn unknown_and_circular_variables_do_no_harm() {
        let conf = Conf::parse("a = $b\nb = $a\nc = $nosuch/$\n").unwrap();
        let name = "client.x".parse().unwrap();
        let options = conf.of(&name, "ceph");
        assert!(options.get("a").unwrap().starts_with('$'));
        assert_eq!(options.get("c").unwrap(), "$nosuch/$");
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(Conf::parse("[global]\nnonsense"), Err(ConfError::Syntax { line: 2 }));
        assert_eq!(Conf::parse("a = \"x"), Err(ConfError::Quotation { line: 1 }));
        assert_eq!(Conf::parse("[x"), Err(ConfError::Syntax { line: 1 }));
    }
}
