//! Subsystems and their debug levels: Ceph's names and numbers on one side, `tracing`'s targets and
//! levels on the other.
//!
//! Ceph's number | `tracing`'s level | written as
//! ---|---|---
//! always | error | -1
//! 0 | warn | 0
//! 1 | info | 1
//! 10 | debug | 10
//! 20 | trace | 20

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::{Level, level_filters::LevelFilter};

const LEVEL_MAX: u8 = 99;

/// A part of the program with a level of its own.
#[derive(Debug)]
pub(crate) struct Subsystem {
    /// As in `debug_NAME` and in the lines.
    pub(crate) name: &'static str,
    /// Ceph's names for the same work; `debug_ALIAS` sets this subsystem too.
    aliases: &'static [&'static str],
    /// First parts of the `tracing` targets that belong here.
    targets: &'static [&'static str],
    default: u8,
}

macro_rules! subsystems {
    ($($name:literal [$($alias:literal)*] [$($target:literal)*] = $default:literal;)*) => {
        /// All subsystems; the last one takes every target that no other names.
        pub(crate) const SUBSYSTEMS: &[Subsystem] = &[$(Subsystem {
            name: $name,
            aliases: &[$($alias),*],
            targets: &[$($target),*],
            default: $default,
        }),*];
    };
}

subsystems! {
    "ms" [] ["spirula_msgr" "spirula_msgr_core" "spirula_wire"] = 0;
    "osd" ["optracker"] ["spirula_osd"] = 1;
    "mon" ["paxos"] ["spirula_mon"] = 1;
    "mgr" [] ["spirula_mgr"] = 1;
    "auth" [] ["spirula_auth"] = 1;
    "monc" [] ["spirula_monc"] = 0;
    "client" ["objecter" "rados"] ["spirula_client"] = 0;
    "crush" [] ["spirula_crush" "spirula_maps"] = 1;
    "store" ["bluestore" "bdev" "filestore" "objectstore"]
        ["spirula_store" "spirula_vos" "spirula_bio"] = 1;
    "xstream" ["tp"] ["spirula_xstream"] = 1;
    "asok" [] ["spirula::admin_socket"] = 1;
    "none" [] [] = 1;
}

/// Index into [`SUBSYSTEMS`] of a `tracing` target such as `spirula_osd::target`.
pub(crate) fn subsystem_of(target: &str) -> usize {
    let belongs = |prefix: &str| {
        target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let found = SUBSYSTEMS.iter().position(|s| s.targets.iter().any(|p| belongs(p)));
    found.unwrap_or(SUBSYSTEMS.len() - 1)
}

/// Index into [`SUBSYSTEMS`] of an option such as `debug_osd` or `debug osd`.
pub(crate) fn subsystem_of_option(option: &str) -> Option<usize> {
    let name = option.strip_prefix("debug")?.strip_prefix(['_', ' ', '-'])?;
    SUBSYSTEMS.iter().position(|s| s.name == name || s.aliases.contains(&name))
}

/// The first number of `N` or `N/M`: what is logged. (M, what Ceph gathers in memory beyond that,
/// is checked and not used.)
pub(crate) fn parse_level(text: &str) -> Option<u8> {
    let (log, gather) = text.split_once('/').unwrap_or((text, text));
    let number = |t: &str| t.trim().parse().ok().filter(|n: &u8| *n <= LEVEL_MAX);
    number(gather)?;
    number(log)
}

/// The number that a line of this level carries.
pub(crate) fn number_of(level: Level) -> i8 {
    match level {
        Level::ERROR => -1,
        Level::WARN => 0,
        Level::INFO => 1,
        Level::DEBUG => 10,
        Level::TRACE => 20,
    }
}

/// What a Ceph level lets through.
pub(crate) fn filter_of(level: u8) -> LevelFilter {
    match level {
        0 => LevelFilter::WARN,
        1..=9 => LevelFilter::INFO,
        10..=19 => LevelFilter::DEBUG,
        20.. => LevelFilter::TRACE,
    }
}

/// The levels of one daemon.
#[derive(Debug)]
pub(crate) struct Levels([AtomicU8; SUBSYSTEMS.len()]);

impl Levels {
    /// Whether that is a change.
    pub(crate) fn set(&self, subsystem: usize, level: u8) -> bool {
        self.0[subsystem].swap(level, Ordering::Relaxed) != level
    }

    pub(crate) fn filter(&self, subsystem: usize) -> LevelFilter {
        filter_of(self.0[subsystem].load(Ordering::Relaxed))
    }

    pub(crate) fn filter_max(&self) -> LevelFilter {
        let levels = self.0.iter().map(|level| level.load(Ordering::Relaxed));
        filter_of(levels.max().unwrap_or(0))
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self(std::array::from_fn(|i| AtomicU8::new(SUBSYSTEMS[i].default)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(target: &str) -> &'static str {
        SUBSYSTEMS[subsystem_of(target)].name
    }

    #[test]
    fn targets_have_subsystems() {
        assert_eq!(name_of("spirula_osd"), "osd");
        assert_eq!(name_of("spirula_osd::target"), "osd");
        assert_eq!(name_of("spirula_mon::service"), "mon");
        assert_eq!(name_of("spirula_monc::client"), "monc");
        assert_eq!(name_of("spirula_msgr_core"), "ms");
        assert_eq!(name_of("spirula_vos"), "store");
        assert_eq!(name_of("spirula::admin_socket"), "asok");
        assert_eq!(name_of("spirula_osdx"), "none");
        assert_eq!(name_of("redb"), "none");
    }

    #[test]
    fn options_have_subsystems() {
        let name = |option: &str| subsystem_of_option(option).map(|i| SUBSYSTEMS[i].name);
        assert_eq!(name("debug_osd"), Some("osd"));
        assert_eq!(name("debug ms"), Some("ms"));
        assert_eq!(name("debug_bluestore"), Some("store"));
        assert_eq!(name("debug_rocksdb"), None);
        assert_eq!(name("osd"), None);
        assert_eq!(name("debugosd"), None);
    }

    /// As the documents list them.
    #[test]
    fn options_that_act_on_the_log_are_those_with_a_subsystem() {
        for option in spirula_mon::options::all() {
            let has_subsystem = subsystem_of_option(option.name).is_some();
            assert_eq!(option.acts == "log", has_subsystem, "{}", option.name);
        }
    }

    #[test]
    fn levels_are_read_as_in_ceph() {
        assert_eq!(parse_level("20"), Some(20));
        assert_eq!(parse_level("1/5"), Some(1));
        assert_eq!(parse_level("0/0"), Some(0));
        for bad in ["", "/", "1/", "100", "-1", "1/100", "x", "1/2/3"] {
            assert_eq!(parse_level(bad), None, "{bad}");
        }
    }
}
