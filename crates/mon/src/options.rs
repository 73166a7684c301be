//! Configuration options: the known ones, how their values are written, and the values that hold
//! for the monitor itself.
//!
//! Invariant: a value that is stored has passed [`Opt::normalize`], so readers may rely on its form.

mod schema;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_wire::msg::mgr::{DaemonConfig, config_level};
use spirula_wire::types::{EntityNameStr, EntityType};

pub use value::Invalid;
pub(crate) use value::{iec_bytes, iec_signed, si_count, strict_float};

use crate::state::ConfigDb;

/// A configuration option.
#[derive(Clone, Debug, PartialEq)]
pub struct Opt {
    pub name: &'static str,
    pub kind: Kind,
    pub level: Level,
    pub default: String,
    /// Default in daemons, where it differs.
    pub daemon_default: String,
    pub min: &'static str,
    pub max: &'static str,
    /// Allowed values, joined by `|`; empty for any.
    pub choices: &'static str,
    /// Joined by commas, as the next three.
    pub services: &'static str,
    pub flags: &'static str,
    pub tags: &'static str,
    pub see_also: &'static str,
    /// What of this cluster does anything with it: `mon`, `osd`, `mgr`, `log` (that of every daemon) or
    /// `new` (a cluster that is made). Joined by commas; empty for nothing.
    pub acts: &'static str,
    pub desc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Str,
    /// What `debug_SUBSYSTEM` takes; to users it is text.
    DebugLevel,
    Bool,
    Int,
    Uint,
    Float,
    Size,
    Secs,
    Millisecs,
    Addr,
    AddrVec,
    Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Basic,
    Advanced,
    Dev,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Advanced => "advanced",
            Self::Dev => "dev",
        }
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Str | Self::DebugLevel => "str",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Float => "float",
            Self::Size => "size",
            Self::Secs => "secs",
            Self::Millisecs => "millisecs",
            Self::Addr => "addr",
            Self::AddrVec => "addrvec",
            Self::Uuid => "uuid",
        }
    }
}

/// Every known option, in Ceph's order.
pub fn all() -> &'static [Opt] {
    schema::all()
}

/// The option called `name`; blanks count as underscores.
pub fn find(name: &str) -> Option<&'static Opt> {
    schema::find(name).or_else(|| schema::find(&name.trim().replace(' ', "_")))
}

impl Opt {
    /// Checks `text` and brings it into the stored form; the error is Ceph's.
    pub fn normalize(&self, text: &str) -> Result<String, Invalid> {
        value::normalize(self, text)
    }

    /// Whether a change takes effect in a running daemon, as far as Ceph's act on it.
    pub fn runtime(&self) -> bool {
        let has = |flags: &[&str]| self.flags.split(',').any(|f| flags.contains(&f));
        let text = [Kind::Str, Kind::DebugLevel, Kind::Addr, Kind::AddrVec, Kind::Uuid];
        has(&["runtime"])
            || !text.contains(&self.kind) && !has(&["startup", "create", "cluster_create"])
    }

    /// What is needed to reach the monitors at all cannot come from them.
    pub fn is_special(&self) -> bool {
        self.flags.split(',').any(|f| f == "no_mon_update")
    }

    pub fn default_in_daemons(&self) -> &str {
        if self.daemon_default.is_empty() { &self.default } else { &self.daemon_default }
    }

    /// Shown with its description.
    pub fn note(&self) -> &'static str {
        match self.acts {
            "" => "No daemon of this cluster acts on it. It is kept, and handed out to clients.",
            _ => "",
        }
    }
}

/// Ceph's spellings of a boolean.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The values in force for the monitor: what was set by hand, else its configuration file, else the
/// cluster's configuration for `mon.NAME`, else the default.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Set by hand in this process.
    here: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    cluster: BTreeMap<String, String>,
}

impl Settings {
    /// `file`: what the configuration file says, in any spelling of the names.
    pub fn new(file: &BTreeMap<String, String>) -> Self {
        let normal = |(k, v): (&String, &String)| {
            let opt = find(&k.replace('-', "_"))?;
            Some((opt.name.to_owned(), opt.normalize(v).ok()?))
        };
        Self { file: file.iter().filter_map(normal).collect(), ..Self::default() }
    }

    /// Takes over what the cluster's configuration says for `mon.name`.
    pub fn refresh(&mut self, config: &ConfigDb, name: &str) {
        let entity = EntityNameStr::new(EntityType::MON, name);
        self.cluster = config.effective(&entity, None, &[]);
    }

    /// Sets an option in this process alone, or with `None` ends that.
    pub fn set_here(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => _ = self.here.insert(name.to_owned(), value),
            None => _ = self.here.remove(name),
        }
    }

    /// The value of `name`; empty if there is no such option.
    pub fn str(&self, name: &str) -> &str {
        let set = self.here.get(name).or_else(|| self.file.get(name));
        let set = set.or_else(|| self.cluster.get(name));
        set.map_or_else(|| default_of(name), String::as_str)
    }

    /// Where a value comes from: `file`, `mon` or `default`.
    pub fn source(&self, name: &str) -> &'static str {
        match () {
            () if self.here.contains_key(name) => "override",
            () if self.file.contains_key(name) => "file",
            () if self.cluster.contains_key(name) => "mon",
            () => "default",
        }
    }

    /// The options that are set, as the manager is told of them.
    pub fn report(&self) -> DaemonConfig {
        let sources = [
            (config_level::MON, &self.cluster),
            (config_level::FILE, &self.file),
            (config_level::OVERRIDE, &self.here),
        ];
        let mut values: BTreeMap<String, BTreeMap<i32, String>> = BTreeMap::new();
        for (level, set) in sources {
            for (name, value) in set {
                values.entry(name.clone()).or_default().insert(level, value.clone());
            }
        }
        DaemonConfig { values, ignored: BTreeMap::new() }
    }

    /// Names that are set anywhere.
    pub fn set_names(&self) -> impl Iterator<Item = &str> {
        let names: std::collections::BTreeSet<&str> = self
            .file
            .keys()
            .chain(self.cluster.keys())
            .chain(self.here.keys())
            .map(String::as_str)
            .collect();
        names.into_iter()
    }

    pub fn bool(&self, name: &str) -> bool {
        parse_bool(self.str(name)).unwrap_or(false)
    }

    pub fn int(&self, name: &str) -> i64 {
        let number = self.str(name).parse::<i128>().unwrap_or(0);
        number.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    pub fn float(&self, name: &str) -> f64 {
        self.str(name).parse().unwrap_or(0.0)
    }

    pub fn secs(&self, name: &str) -> Duration {
        Duration::try_from_secs_f64(self.float(name)).unwrap_or_default()
    }
}

/// The defaults of all options, as the manager is told of them.
pub fn defaults() -> BTreeMap<String, String> {
    all().iter().map(|opt| (opt.name.to_owned(), opt.default_in_daemons().to_owned())).collect()
}

fn default_of(name: &str) -> &'static str {
    find(name).map_or("", Opt::default_in_daemons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told_of_all_sources() {
        let file = [("debug mon".to_owned(), "2".to_owned())].into();
        let mut settings = Settings::new(&file);
        settings.set_here("debug_ms", Some("1/1".into()));
        settings.set_here("debug_mon", Some("20/20".into()));
        let values = settings.report().values;
        let of =
            |name: &str| values[name].iter().map(|(l, v)| (*l, v.as_str())).collect::<Vec<_>>();
        assert_eq!(of("debug_ms"), [(config_level::OVERRIDE, "1/1")]);
        let both = [(config_level::FILE, "2/2"), (config_level::OVERRIDE, "20/20")];
        assert_eq!(of("debug_mon"), both);
        assert_eq!(defaults().len(), all().len());
    }

    #[test]
    fn the_file_wins_over_the_default() {
        let file = [("osd pool default size".to_owned(), "1".to_owned())].into();
        let settings = Settings::new(&file);
        assert_eq!(settings.int("osd_pool_default_size"), 1);
        assert_eq!(settings.int("osd_pool_default_pg_num"), 32);
        assert_eq!(settings.secs("mon_mgr_beacon_grace"), Duration::from_secs(30));
    }
}
