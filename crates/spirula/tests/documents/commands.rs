//! Commands of the cluster and of its daemons, and the options that those act on.

use std::collections::{BTreeMap, BTreeSet};

use spirula_mon::options;

use crate::list::item;
use crate::pacific;

/// How a command that Ceph has is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Served,
    ModuleOff,
    Unknown,
    Obsolete,
}

impl State {
    fn head(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::ModuleOff => "answered as with the module off (EOPNOTSUPP)",
            Self::Unknown => "not there (EINVAL)",
            Self::Obsolete => "not there, and obsolete in Ceph",
        }
    }
}

/// `ceph COMMAND`, by the first word, of the OSDs' many by the first two.
pub(crate) fn cluster() -> String {
    let (by_mgr, off) = spirula_mgr::command::prefixes();
    let served: BTreeSet<&str> = spirula_mon::cluster_commands().chain(by_mgr).collect();
    let off: BTreeSet<&str> = off.into_iter().collect();
    let mut families: BTreeMap<&str, BTreeMap<State, Vec<String>>> = BTreeMap::new();
    let known = pacific::commands("ceph");
    for command in &known {
        let state = match command.name {
            name if served.contains(name) => State::Served,
            name if off.contains(name) => State::ModuleOff,
            _ if command.remark == "obsolete" => State::Obsolete,
            _ => State::Unknown,
        };
        let family = family(command.name);
        let alone = known.iter().filter(|other| self::family(other.name) == family).count() == 1;
        let family = families.entry(if alone { "others" } else { family }).or_default();
        family.entry(state).or_default().push(command.name.to_owned());
    }
    let ceph_s: BTreeSet<&str> = known.iter().map(|command| command.name).collect();
    let ours: Vec<_> = served.union(&off).filter(|name| !ceph_s.contains(*name)).collect();
    assert!(ours.is_empty(), "commands that Ceph does not have: {ours:?}");
    let mut out = String::new();
    for (family, states) in families {
        out += &match family {
            "others" => "- others\n".to_owned(),
            family => format!("- `{family}`\n"),
        };
        for (state, names) in states {
            out += &item(1, state.head(), names);
        }
    }
    out
}

fn family(name: &str) -> &str {
    let (first, rest) = name.split_once(' ').unwrap_or((name, ""));
    match rest.split_once(' ') {
        Some((second, _)) if first == "osd" => &name[..first.len() + 1 + second.len()],
        _ => first,
    }
}

/// What each kind of daemon answers about itself.
pub(crate) fn daemons() -> String {
    let osd = spirula_osd::admin::signatures().map(osd_command).collect();
    let mon = spirula_mon::own_commands().map(str::to_owned).collect();
    let mgr = spirula_mgr::admin::prefixes().map(str::to_owned).collect();
    let each: [(&str, &str, BTreeSet<String>); 3] =
        [("mon", "the monitor", mon), ("osd", "an OSD", osd), ("mgr", "the manager", mgr)];
    let mut out = String::new();
    for (place, who, served) in each {
        let known = pacific::commands(place).into_iter().map(|command| command.name.to_owned());
        let known: BTreeSet<String> = known.collect();
        out += &format!("- {who}\n");
        out += &item(1, "served", served.intersection(&known).cloned());
        out += &item(1, "not there (EINVAL)", known.difference(&served).cloned());
        out += &item(1, "here only", served.difference(&known).cloned());
    }
    out
}

/// The words of a signature, and the choice that tells commands of the same words apart.
fn osd_command(signature: &'static str) -> String {
    let words = signature.split(' ').map(|word| match word.strip_prefix('<') {
        None => word,
        Some(argument) => argument.split_once(":CephChoices:").map_or("", |(_, choice)| choice),
    });
    let words: Vec<&str> = words.map(|word| word.trim_end_matches('>')).collect();
    // Where there is a choice to make it is an argument.
    words
        .into_iter()
        .filter(|word| !word.is_empty() && !word.contains('|'))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The options that have an effect, by what acts on them.
pub(crate) fn options() -> String {
    let groups = [
        ("mon", "the monitor"),
        ("osd", "the OSDs"),
        ("mgr", "the manager"),
        ("new", "what a new cluster begins with"),
        ("log", "the log of every daemon (N of N/M is the level; M is kept and not used)"),
    ];
    let acting = |option: &&options::Opt| !option.acts.is_empty();
    for option in options::all().iter().filter(acting) {
        let known = |who: &str| groups.iter().any(|(group, _)| *group == who);
        assert!(option.acts.split(',').all(known), "{}: {}", option.name, option.acts);
    }
    let mut out = String::new();
    for (who, head) in groups {
        let all = options::all().iter();
        let theirs = all.filter(|option| option.acts.split(',').any(|acts| acts == who));
        out += &item(0, head, theirs.map(|option| option.name.to_owned()));
    }
    out
}
