//! What monitor and manager capabilities have in common: grants for services and commands, with
//! constraints on a command's arguments.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::{BitOr, BitOrAssign};

use regex_lite::Regex;
use spirula_wire::types::EntityNameStr;

use crate::caps::Network;
use crate::caps::scan::{Scan, Space, stopped, stopped_at_end};
use crate::caps::{CapError, scan};
use crate::handshake::AuthenticatedPeer;

/// Read, write and execute, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Perm(u8);

impl Perm {
    pub const NONE: Self = Self(0);
    pub const R: Self = Self(2);
    pub const W: Self = Self(4);
    pub const X: Self = Self(8);
    pub const RW: Self = Self(6);
    /// All three.
    pub const RWX: Self = Self(14);
    /// `*`: more than the sum, since some services yield to nothing less.
    pub const ANY: Self = Self(0xff);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Perm {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Perm {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// One thing that somebody wants to do at a monitor or manager.
#[derive(Clone, Copy, Debug)]
pub struct CommandAccess<'a> {
    pub name: &'a EntityNameStr,
    /// `mon`, `osd`, `pg`, `config-key`, ..: the module that the command table names.
    pub service: &'a str,
    /// The manager module that serves the command; empty at a monitor.
    pub module: &'a str,
    /// The command's prefix; empty for what is no command.
    pub command: &'a str,
    pub args: &'a BTreeMap<String, String>,
    pub need: Perm,
    pub addr: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Constraint {
    Equal(String),
    Prefix(String),
    Regex(String),
}

impl Constraint {
    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Equal(v) => v == value,
            Self::Prefix(v) => value.starts_with(v.as_str()),
            // The whole value has to match; a pattern that does not compile matches nothing.
            Self::Regex(v) => {
                Regex::new(&format!("^(?:{v})$")).is_ok_and(|pattern| pattern.is_match(value))
            }
        }
    }
}

pub(super) type Constraints = BTreeMap<String, Constraint>;

/// A grant; of service, module, profile and command at most one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub(super) service: String,
    pub(super) module: String,
    pub(super) profile: String,
    pub(super) command: String,
    pub(super) args: Constraints,
    pub(super) allow: Perm,
    pub(super) network: Option<Network>,
    pub(super) fs_name: String,
}

impl Grant {
    pub(super) fn blanket(allow: Perm) -> Self {
        Self { allow, ..Self::default() }
    }

    pub(super) fn service(service: &str, allow: Perm) -> Self {
        Self { service: service.to_owned(), allow, ..Self::default() }
    }

    pub(super) fn command(command: &str) -> Self {
        Self { command: command.to_owned(), ..Self::default() }
    }

    pub(super) fn with(mut self, arg: &str, constraint: Constraint) -> Self {
        self.args.insert(arg.to_owned(), constraint);
        self
    }

    pub(super) fn is_allow_all(&self) -> bool {
        self.allow == Perm::ANY
            && [&self.service, &self.module, &self.profile, &self.command, &self.fs_name]
                .iter()
                .all(|s| s.is_empty())
    }

    pub(super) fn accepts_args(&self, args: &BTreeMap<String, String>) -> bool {
        self.args.iter().all(|(k, c)| args.get(k).is_some_and(|v| c.accepts(v)))
    }
}

/// In what the capabilities of one kind of service differ from those of another.
pub trait Rules {
    /// The service, as error texts name it.
    const KIND: &'static str;

    /// One grant at the scanner's position.
    fn grant(s: &mut Scan<'_>) -> Option<Grant>;

    /// What one grant gives of `access`.
    fn allowed(grant: &Grant, access: &CommandAccess<'_>) -> Perm;

    /// Refuses grants that have the grammar's form and yet no meaning.
    fn validate(_grants: &[Grant]) -> Result<(), CapError> {
        Ok(())
    }
}

/// Capabilities for services and commands: [`MonCap`](super::MonCap), [`MgrCap`](super::MgrCap).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandCap<R> {
    text: String,
    grants: Vec<Grant>,
    rules: PhantomData<R>,
}

impl<R: Rules> CommandCap<R> {
    pub fn parse(text: &str) -> Result<Self, CapError> {
        let grants = parse_list(R::KIND, text, R::grant)?;
        R::validate(&grants)?;
        Ok(Self { text: text.to_owned(), grants, rules: PhantomData })
    }

    pub fn allow_all() -> Self {
        let grants = vec![Grant::blanket(Perm::ANY)];
        Self { text: "allow *".to_owned(), grants, rules: PhantomData }
    }

    /// What a session's peer may do; nothing if its text does not parse.
    pub fn of_peer(peer: &AuthenticatedPeer) -> Self {
        let none = || Self { text: String::new(), grants: Vec::new(), rules: PhantomData };
        let parsed = || Self::parse(&peer.caps).unwrap_or_else(|_| none());
        if peer.allow_all { Self::allow_all() } else { parsed() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether there is nothing to check per access.
    pub fn is_allow_all(&self) -> bool {
        self.grants.iter().any(|g| g.network.is_none() && g.is_allow_all())
    }

    /// Sums up the grants that apply until they suffice.
    pub fn is_capable(&self, access: &CommandAccess<'_>) -> bool {
        let in_network = |g: &&Grant| g.network.as_ref().is_none_or(|n| n.contains(access.addr));
        let mut sum = Perm::NONE;
        self.grants.iter().filter(in_network).any(|g| {
            sum |= R::allowed(g, access);
            g.is_allow_all() || sum.has(access.need)
        })
    }
}

/// The list of grants of a whole capability text.
fn parse_list(
    kind: &str,
    text: &str,
    grant: impl Fn(&mut Scan<'_>) -> Option<Grant>,
) -> Result<Vec<Grant>, CapError> {
    let mut s = Scan::new(text, Space::Plain);
    let separated = |s: &mut Scan<'_>| {
        s.skip_blanks(false);
        s.lit(";").or_else(|| s.lit(","))?;
        s.skip_blanks(false);
        Some(())
    };
    let grants = scan::grants(&mut s, separated, |s| {
        s.skip_spaces();
        let grant = grant(s)?;
        s.skip_spaces();
        Some(grant)
    });
    match s.rest() {
        "" if grants.is_empty() => Err(stopped_at_end(kind, text)),
        "" => Ok(grants),
        rest => Err(stopped(kind, rest, text)),
    }
}

/// `*`, `all`, or `r`, `w` and `x` in this order.
pub(super) fn perm(s: &mut Scan<'_>) -> Option<Perm> {
    if s.lit("*").or_else(|| s.lit("all")).is_some() {
        return Some(Perm::ANY);
    }
    let mut perm = Perm::NONE;
    for (letter, bit) in [("r", Perm::R), ("w", Perm::W), ("x", Perm::X)] {
        if s.lit(letter).is_some() {
            perm |= bit;
        }
    }
    (perm != Perm::NONE).then_some(perm)
}

/// `allow` and what separates it.
pub(super) fn allow(s: &mut Scan<'_>) -> Option<()> {
    s.lit("allow")?;
    s.spaces()
}

/// `keyword=value` or `keyword value`.
pub(super) fn named(s: &mut Scan<'_>, keyword: &str) -> Option<String> {
    s.lit(keyword)?;
    s.equals_or_spaces()?;
    s.word()
}

/// ` with k=v k prefix v k regex v`, if present.
pub(super) fn with_constraints(s: &mut Scan<'_>, loose_equals: bool) -> Constraints {
    s.attempt(|s| {
        s.spaces()?;
        s.lit("with")?;
        constraints(s, loose_equals)
    })
    .unwrap_or_default()
}

/// One or more constraints, each behind separators.
pub(super) fn constraints(s: &mut Scan<'_>, loose_equals: bool) -> Option<Constraints> {
    let mut all = Constraints::new();
    while let Some((key, constraint)) = s.attempt(|s| {
        s.spaces()?;
        let key = s.word()?;
        Some((key, constraint(s, loose_equals)?))
    }) {
        // The first of a repeated key counts.
        all.entry(key).or_insert(constraint);
    }
    (!all.is_empty()).then_some(all)
}

fn constraint(s: &mut Scan<'_>, loose_equals: bool) -> Option<Constraint> {
    let equal = s.attempt(|s| {
        if loose_equals {
            s.skip_spaces();
        }
        s.lit("=")?;
        if loose_equals {
            s.skip_spaces();
        }
        s.word()
    });
    if let Some(value) = equal {
        return Some(Constraint::Equal(value));
    }
    let mut keyword = |word| {
        s.attempt(|s| {
            s.spaces()?;
            s.lit(word)?;
            s.spaces()?;
            s.word()
        })
    };
    keyword("prefix").map(Constraint::Prefix).or_else(|| keyword("regex").map(Constraint::Regex))
}
