//! A backtracking scanner for the capability grammars: each rule either consumes its text or
//! leaves the position where it was.

use crate::caps::{CapError, Network};

/// How the words of a grammar are separated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// Blank, tab, newline.
    Plain,
    /// All of ASCII white space.
    Ascii,
}

pub struct Scan<'a> {
    text: &'a str,
    at: usize,
    space: Space,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str, space: Space) -> Self {
        Self { text, at: 0, space }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Runs a rule; on `None` the position is restored.
    pub(super) fn attempt<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let at = self.at;
        let found = rule(self);
        if found.is_none() {
            self.at = at;
        }
        found
    }

    pub(super) fn lit(&mut self, word: &str) -> Option<()> {
        self.rest().starts_with(word).then(|| self.at += word.len())
    }

    /// One or more separators.
    pub(super) fn spaces(&mut self) -> Option<()> {
        let space = self.space;
        self.take_while(|c| is_space(space, c)).map(drop)
    }

    /// Any number of separators.
    pub(super) fn skip_spaces(&mut self) {
        self.skip(self.space);
    }

    /// Any amount of white space of this kind, whatever separates the words.
    pub(super) fn skip(&mut self, space: Space) {
        self.take_while(|c| is_space(space, c));
    }

    /// Any number of blanks and, if `tabs`, tabs.
    pub(super) fn skip_blanks(&mut self, tabs: bool) {
        self.take_while(|c| c == ' ' || (tabs && c == '\t'));
    }

    /// `=` or separators, as between an option and its value.
    pub(super) fn equals_or_spaces(&mut self) -> Option<()> {
        self.lit("=").or_else(|| self.spaces())
    }

    pub(super) fn take_while(&mut self, accept: impl Fn(char) -> bool) -> Option<&'a str> {
        let rest = self.rest();
        let len = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += len;
        (len > 0).then(|| &rest[..len])
    }

    /// A quoted string or a bare word.
    pub(super) fn word(&mut self) -> Option<String> {
        self.quoted(false).or_else(|| self.bare_word())
    }

    /// Like [`word`](Self::word), where quotes may hold nothing.
    pub(super) fn word_or_empty(&mut self) -> Option<String> {
        self.quoted(true).or_else(|| self.bare_word())
    }

    /// `network` and its prefix, behind separators; absent is fine.
    pub(super) fn network(&mut self) -> Option<Network> {
        self.attempt(|s| {
            s.spaces()?;
            s.lit("network")?;
            s.spaces()?;
            let accept = |c: char| c.is_ascii_hexdigit() || "/.:[]".contains(c);
            s.take_while(accept).map(Network::parse)
        })
    }

    fn bare_word(&mut self) -> Option<String> {
        self.take_while(|c| c.is_ascii_alphanumeric() || "_./-".contains(c)).map(str::to_owned)
    }

    fn quoted(&mut self, may_be_empty: bool) -> Option<String> {
        ['"', '\''].into_iter().find_map(|quote| {
            let inner = self.rest().strip_prefix(quote)?;
            let len = inner.find(quote)?;
            if len == 0 && !may_be_empty {
                return None;
            }
            self.at += len + 2;
            Some(inner[..len].to_owned())
        })
    }
}

/// Grants separated by `;` or `,`. Returns them with the text that is left over.
pub(super) fn grants<'a, T>(
    s: &mut Scan<'a>,
    separated: impl Fn(&mut Scan<'a>) -> Option<()>,
    grant: impl Fn(&mut Scan<'a>) -> Option<T>,
) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(one) = s.attempt(|s| {
        if !all.is_empty() {
            separated(s)?;
        }
        grant(s)
    }) {
        all.push(one);
    }
    all
}

pub(super) fn stopped(kind: &str, rest: &str, text: &str) -> CapError {
    CapError(format!("{kind} capability parse failed, stopped at '{rest}' of '{text}'"))
}

pub(super) fn stopped_at_end(kind: &str, text: &str) -> CapError {
    CapError(format!("{kind} capability parse failed, stopped at end of '{text}'"))
}

fn is_space(space: Space, c: char) -> bool {
    match space {
        Space::Plain => matches!(c, ' ' | '\n' | '\t'),
        Space::Ascii => c.is_ascii_whitespace() || c == '\x0b',
    }
}
