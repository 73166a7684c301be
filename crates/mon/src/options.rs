//! Configuration options: the known ones, how their values are written, and the values that hold
//! for the monitor itself.
//!
//! Invariant: a value that is stored has passed [`Opt::normalize`], so readers may rely on its form.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_wire::msg::mgr::{DaemonConfig, config_level};
use spirula_wire::types::{EntityAddrVec, EntityNameStr, EntityType, Uuid};

use crate::state::ConfigDb;

/// A configuration option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opt {
    pub name: &'static str,
    pub kind: Kind,
    pub level: Level,
    pub default: &'static str,
    /// Default in daemons, where it differs.
    pub daemon_default: &'static str,
    pub min: &'static str,
    pub max: &'static str,
    /// Allowed values, joined by `|`; empty for any.
    pub choices: &'static str,
    /// Whether a change takes effect in a running daemon.
    pub runtime: bool,
    pub services: &'static str,
    pub desc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Str,
    Bool,
    Int,
    Uint,
    Float,
    Size,
    Secs,
    Addr,
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
            Self::Str => "str",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Float => "float",
            Self::Size => "size",
            Self::Secs => "secs",
            Self::Addr => "addr",
            Self::Uuid => "uuid",
        }
    }
}

/// Every known option, sorted by name.
pub fn all() -> &'static [Opt] {
    table::OPTIONS
}

/// The option called `name`; blanks and dashes count as underscores.
pub fn find(name: &str) -> Option<&'static Opt> {
    let name = name.trim().replace([' ', '-'], "_");
    table::OPTIONS.iter().find(|o| o.name == name)
}

impl Opt {
    /// Checks `text` and brings it into the stored form; the error is Ceph's text.
    pub fn normalize(&self, text: &str) -> Result<String, String> {
        let value = match self.kind {
            Kind::Str if self.name.starts_with("debug_") => debug_levels(text)?,
            Kind::Str => text.to_owned(),
            Kind::Bool => {
                parse_bool(text).ok_or_else(|| format!("'{text}' is not a valid bool"))?.to_string()
            }
            Kind::Int | Kind::Uint | Kind::Size => self.integer(text)?.to_string(),
            Kind::Secs => match crate::text::parse_age(text) {
                Some(span) => span.as_secs().to_string(),
                None => return Err(format!("invalid timespan '{text}'")),
            },
            Kind::Float => {
                let value: f64 = text
                    .trim()
                    .parse()
                    .map_err(|_| format!("Expected option value to be a number, got '{text}'"))?;
                crate::json::float(value, 6)
            }
            Kind::Addr => text
                .parse::<EntityAddrVec>()
                .map(|a| a.to_string())
                .map_err(|_| format!("invalid address '{text}'"))?,
            Kind::Uuid => text
                .parse::<Uuid>()
                .map(|u| u.to_string())
                .map_err(|_| "invalid uuid".to_owned())?,
        };
        if !self.choices.is_empty() && !self.choices.split('|').any(|c| c == value) {
            return Err(format!(
                "'{value}' is not one of the permitted values: {}",
                self.choices.replace('|', ", ")
            ));
        }
        Ok(value)
    }

    fn integer(&self, text: &str) -> Result<i64, String> {
        let value = parse_size(text).ok_or("strict_si_cast: unit prefix not recognized")?;
        let bound = |b: &str| b.parse::<i64>().ok();
        if let Some(min) = bound(self.min).filter(|min| value < *min) {
            return Err(format!("Value '{value}' is below minimum {min}"));
        }
        if let Some(max) = bound(self.max).filter(|max| value > *max) {
            return Err(format!("Value '{value}' exceeds maximum {max}"));
        }
        if self.kind != Kind::Int && value < 0 {
            return Err("strict_sistrtoll: value should not be negative".to_owned());
        }
        Ok(value)
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

/// A number with an optional binary suffix (`10G`, `4Ki`).
pub fn parse_size(text: &str) -> Option<i64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let shift = match text[split..].trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    text[..split].trim().parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// `N` or `N/M`, both 0 to 99; `N` alone means both.
fn debug_levels(text: &str) -> Result<String, String> {
    let (log, gather) = text.split_once('/').unwrap_or((text, text));
    let level = |t: &str| t.trim().parse::<u8>().ok().filter(|n| *n <= 99);
    match (level(log), level(gather)) {
        (Some(log), Some(gather)) => Ok(format!("{log}/{gather}")),
        _ => Err("value must take the form N or N/M, where N and M are integers".to_owned()),
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
            let opt = find(k)?;
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
        parse_size(self.str(name)).unwrap_or(0)
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
    all().iter().map(|opt| (opt.name.to_owned(), default_of(opt.name).to_owned())).collect()
}

fn default_of(name: &str) -> &'static str {
    let Some(opt) = find(name) else { return "" };
    if opt.daemon_default.is_empty() { opt.default } else { opt.daemon_default }
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

    fn check(name: &str, text: &str, want: Result<&str, &str>) {
        let got = find(name).unwrap().normalize(text);
        assert_eq!(got.as_deref().map_err(String::as_str), want, "{name} = {text}");
    }

    #[test]
    fn values_are_checked_and_normalized() {
        check("debug_ms", "1", Ok("1/1"));
        check("debug_ms", "2/5", Ok("2/5"));
        check("osd_pool_default_size", "22", Err("Value '22' exceeds maximum 10"));
        check("osd_pool_default_size", "x", Err("strict_si_cast: unit prefix not recognized"));
        check("rbd_cache", "off", Ok("false"));
        check("rbd_cache_size", "32M", Ok("33554432"));
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(all().windows(2).all(|w| w[0].name < w[1].name));
        for opt in all().iter().filter(|o| !o.default.is_empty() && o.kind != Kind::Addr) {
            assert!(opt.normalize(opt.default).is_ok(), "{}", opt.name);
        }
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
