//! OSD capabilities: permissions and class methods, limited by pool, namespace, application tag,
//! object prefix or network, and profiles for RBD.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::caps::scan::{self, Scan, Space, stopped};
use crate::caps::{CapError, Network};
use crate::handshake::AuthenticatedPeer;

/// Application name to its keys and values, as a pool carries them.
pub type AppMetadata = BTreeMap<String, BTreeMap<String, String>>;

const R: u8 = 2;
const W: u8 = 4;
const CLASS_R: u8 = 8;
const CLASS_W: u8 = 16;
const ANY: u8 = 0xff;

/// A class method that an operation calls.
#[derive(Clone, Copy, Debug)]
pub struct ClassCall<'a> {
    pub class: &'a str,
    pub method: &'a str,
    pub reads: bool,
    pub writes: bool,
    /// Whether `x` reaches the class, or only an explicit `class` grant
    /// (`osd_class_default_list`).
    pub in_default_list: bool,
}

/// One thing that somebody wants to do to an object.
#[derive(Clone, Copy, Debug)]
pub struct OsdAccess<'a> {
    pub pool: &'a str,
    pub namespace: &'a str,
    pub applications: &'a AppMetadata,
    pub object: &'a str,
    pub reads: bool,
    pub writes: bool,
    pub classes: &'a [ClassCall<'a>],
    pub addr: Option<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsdCap {
    grants: Vec<Grant>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Grant {
    scope: Scope,
    spec: Spec,
    network: Option<Network>,
    /// What a profile expands to; then scope and spec are unused.
    profile: Option<Vec<Grant>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scope {
    pool: String,
    namespace: Option<String>,
    tag: Option<Tag>,
    object_prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    application: String,
    key: String,
    value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spec {
    allow: u8,
    class: String,
    method: String,
}

impl OsdCap {
    pub fn parse(text: &str) -> Result<Self, CapError> {
        let mut s = Scan::new(text, Space::Ascii);
        s.skip_spaces();
        let separated = |s: &mut Scan<'_>| s.lit(";").or_else(|| s.lit(","));
        let grants = scan::grants(&mut s, separated, grant);
        s.skip_spaces();
        if grants.is_empty() || !s.rest().is_empty() {
            return Err(stopped("osd", s.rest(), text));
        }
        Ok(Self { grants })
    }

    pub fn allow_all() -> Self {
        let spec = Spec { allow: ANY, ..Spec::default() };
        Self { grants: vec![Grant { spec, ..Grant::default() }] }
    }

    /// What a session's peer may do; nothing if its text does not parse.
    pub fn of_peer(peer: &AuthenticatedPeer) -> Self {
        if peer.allow_all { Self::allow_all() } else { Self::parse(&peer.caps).unwrap_or_default() }
    }

    /// Whether there is nothing to check per operation.
    pub fn is_allow_all(&self) -> bool {
        self.grants.iter().any(Grant::is_allow_all)
    }

    /// Whether snapshot ids of `pool` may be had: for writes to that pool by name, whatever limits
    /// them further, or for writes without limit. `None` is a pool that is not there.
    pub fn may_manage_snaps(&self, pool: Option<&str>) -> bool {
        self.is_allow_all() || self.grants.iter().any(|grant| grant.writes_pool(pool))
    }

    pub fn is_capable(&self, access: &OsdAccess<'_>) -> bool {
        // A class call may be granted by an earlier grant than the one that grants the rest.
        let mut classes = vec![false; access.classes.len()];
        self.grants.iter().any(|g| g.is_capable(access, &mut classes))
    }
}

impl Grant {
    fn is_allow_all(&self) -> bool {
        if self.network.is_some() {
            return false;
        }
        match &self.profile {
            Some(grants) => grants.iter().any(Self::is_allow_all),
            None => self.spec.allow == ANY && self.scope == Scope::default(),
        }
    }

    fn writes_pool(&self, pool: Option<&str>) -> bool {
        if let Some(grants) = &self.profile {
            return grants.iter().any(|grant| grant.writes_pool(pool));
        }
        let scope = &self.scope;
        let named = !scope.pool.is_empty() && pool == Some(scope.pool.as_str());
        self.spec.allow & W != 0 && (named || *scope == Scope::default())
    }

    fn is_capable(&self, access: &OsdAccess<'_>, classes: &mut [bool]) -> bool {
        if self.network.as_ref().is_some_and(|n| !n.contains(access.addr)) {
            return false;
        }
        if let Some(grants) = &self.profile {
            return grants.iter().any(|g| g.is_capable(access, classes));
        }
        let lacks = |needed: bool, bit: u8| needed && self.spec.allow & bit == 0;
        if !self.scope.contains(access) || lacks(access.reads, R) || lacks(access.writes, W) {
            return false;
        }
        if self.spec.allow == ANY {
            return true;
        }
        for (call, granted) in access.classes.iter().zip(classes.iter_mut()) {
            let by_bits =
                call.in_default_list && !lacks(call.reads, CLASS_R) && !lacks(call.writes, CLASS_W);
            *granted |= by_bits || self.spec.names(call);
        }
        classes.iter().all(|granted| *granted)
    }
}

impl Spec {
    fn names(&self, call: &ClassCall<'_>) -> bool {
        !self.class.is_empty()
            && self.class == call.class
            && (self.method.is_empty() || self.method == call.method)
    }
}

impl Scope {
    fn contains(&self, access: &OsdAccess<'_>) -> bool {
        let namespace = self.namespace.as_ref().is_none_or(|ns| {
            let prefix = ns.strip_suffix('*');
            ns == access.namespace || prefix.is_some_and(|p| access.namespace.starts_with(p))
        });
        (self.pool.is_empty() || self.pool == access.pool)
            && namespace
            && self.tag.as_ref().is_none_or(|tag| tag.matches(access.applications))
            && access.object.starts_with(&self.object_prefix)
    }
}

impl Tag {
    fn matches(&self, applications: &AppMetadata) -> bool {
        let Some(metadata) = applications.get(&self.application) else {
            return false;
        };
        let value_fits = |v: &String| self.value == "*" || self.value == *v;
        match self.key.as_str() {
            "*" => self.value == "*" || metadata.values().any(value_fits),
            key => metadata.get(key).is_some_and(value_fits),
        }
    }
}

fn grant(s: &mut Scan<'_>) -> Option<Grant> {
    s.skip_blanks(true);
    let plain = |s: &mut Scan<'_>, spec_first: bool| {
        s.attempt(|s| {
            s.lit("allow")?;
            let early = if spec_first { Some(spec(s)?) } else { None };
            let scope = scope(s);
            let spec = match early {
                Some(spec) => spec,
                None => spec(s)?,
            };
            Some(Grant { scope, spec, network: s.network(), profile: None })
        })
    };
    let found = plain(s, true).or_else(|| plain(s, false)).or_else(|| s.attempt(profile))?;
    s.skip_blanks(true);
    Some(found)
}

fn scope(s: &mut Scan<'_>) -> Scope {
    if let Some(tag) = s.attempt(tag) {
        return Scope { tag: Some(tag), ..Scope::default() };
    }
    let tagged_namespace = s.attempt(|s| {
        let namespace = Some(namespace(s)?);
        Some(Scope { namespace, tag: Some(tag(s)?), ..Scope::default() })
    });
    if let Some(scope) = tagged_namespace {
        return scope;
    }
    let pool = pool(s);
    let namespace = s.attempt(namespace);
    let object_prefix = s.attempt(|s| {
        s.spaces()?;
        s.lit("object_prefix")?;
        s.spaces()?;
        s.word()
    });
    Scope { pool, namespace, tag: None, object_prefix: object_prefix.unwrap_or_default() }
}

fn pool(s: &mut Scan<'_>) -> String {
    let found = s.attempt(|s| {
        s.spaces()?;
        s.lit("pool")?;
        s.equals_or_spaces()?;
        s.word()
    });
    found.unwrap_or_default()
}

fn namespace(s: &mut Scan<'_>) -> Option<String> {
    s.spaces()?;
    s.lit("namespace")?;
    s.equals_or_spaces()?;
    let mut name = s.word_or_empty()?;
    if s.lit("*").is_some() {
        name.push('*');
    }
    Some(name)
}

fn tag(s: &mut Scan<'_>) -> Option<Tag> {
    let word = |s: &mut Scan<'_>| {
        if wildcard(s).is_some() { Some("*".to_owned()) } else { s.word() }
    };
    s.spaces()?;
    s.lit("tag")?;
    s.spaces()?;
    let application = s.word()?;
    s.spaces()?;
    let key = word(s)?;
    s.skip_spaces();
    s.lit("=")?;
    s.skip_spaces();
    let value = word(s)?;
    Some(Tag { application, key, value })
}

fn wildcard(s: &mut Scan<'_>) -> Option<()> {
    s.lit("*").or_else(|| s.lit("all"))
}

fn spec(s: &mut Scan<'_>) -> Option<Spec> {
    if let Some(allow) = permissions(s) {
        return Some(Spec { allow, ..Spec::default() });
    }
    s.attempt(|s| {
        s.spaces()?;
        s.lit("class")?;
        s.spaces()?;
        let class = s.word()?;
        let method = s.attempt(|s| {
            s.spaces()?;
            s.word()
        });
        Some(Spec { allow: 0, class, method: method.unwrap_or_default() })
    })
}

/// `*`, `all`, or letters, then `class-read` and `class-write`.
fn permissions(s: &mut Scan<'_>) -> Option<u8> {
    let all = s.attempt(|s| {
        s.spaces()?;
        wildcard(s)
    });
    if all.is_some() {
        return Some(ANY);
    }
    let letters = s.attempt(|s| {
        s.spaces()?;
        let mut allow = 0;
        for (letter, bits) in [("r", R), ("w", W), ("x", CLASS_R | CLASS_W)] {
            if s.lit(letter).is_some() {
                allow |= bits;
            }
        }
        (allow != 0).then_some(allow)
    });
    let mut allow = letters.unwrap_or(0);
    for (word, bit) in [("class-read", CLASS_R), ("class-write", CLASS_W)] {
        let found = s.attempt(|s| {
            s.spaces()?;
            s.lit(word)
        });
        if found.is_some() {
            allow |= bit;
        }
    }
    (allow != 0).then_some(allow)
}

fn profile(s: &mut Scan<'_>) -> Option<Grant> {
    s.lit("profile")?;
    s.equals_or_spaces()?;
    let name = s.word()?;
    let pool = pool(s);
    let namespace = s.attempt(namespace);
    let scope = Scope { pool, namespace, ..Scope::default() };
    let network = s.network();
    Some(Grant { network, profile: Some(expand(&name, &scope)), ..Grant::default() })
}

/// The grants that a profile stands for. An unknown profile grants nothing.
fn expand(name: &str, scope: &Scope) -> Vec<Grant> {
    let bits = |scope: Scope, allow| {
        let spec = Spec { allow, ..Spec::default() };
        Grant { scope, spec, ..Grant::default() }
    };
    let method = |scope: Scope, method: &str| {
        let spec = Spec { allow: 0, class: "rbd".to_owned(), method: method.to_owned() };
        Grant { scope, spec, ..Grant::default() }
    };
    let everywhere = |object: &str| Scope { object_prefix: object.to_owned(), ..Scope::default() };
    let pool_info = || Scope {
        pool: scope.pool.clone(),
        namespace: Some(String::new()),
        ..everywhere("rbd_info")
    };
    let header = || Scope { object_prefix: "rbd_header.".to_owned(), ..scope.clone() };
    match name {
        "read-only" => vec![bits(scope.clone(), R)],
        "read-write" => vec![bits(scope.clone(), R | W)],
        "rbd" => vec![
            bits(everywhere("rbd_info"), R),
            bits(everywhere("rbd_children"), CLASS_R),
            bits(everywhere("rbd_mirroring"), CLASS_R),
            method(pool_info(), "metadata_list"),
            bits(scope.clone(), R | W | CLASS_R | CLASS_W),
        ],
        "rbd-read-only" => vec![
            method(pool_info(), "metadata_list"),
            bits(scope.clone(), R | CLASS_R),
            method(header(), "child_attach"),
            method(header(), "child_detach"),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
