//! The options this target knows: their defaults, where their values come from, and what takes
//! effect at run time.

use std::collections::BTreeMap;
use std::time::Duration;

use spirula_wire::msg::mgr::{DaemonConfig, config_level};

use crate::admit::AdmitLimits;
use crate::plan::Limits;

/// One row of the option table.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    pub name: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}

macro_rules! options {
    ($($name:literal = $default:literal, $help:literal;)*) => {
        /// All options, by name.
        pub const OPTIONS: &[OptionInfo] =
            &[$(OptionInfo { name: $name, default: $default, help: $help }),*];
    };
}

options! {
    "bdev_enable_discard" = "false", "tell the device of large free space (TRIM)";
    "bluestore_block_db_size" = "0", "bytes of a device for metadata made with the OSD, 0 for none";
    "bluestore_block_wal_size" = "100663296", "bytes of a device for the WAL, made with the OSD if it is set";
    "debug_auth" = "1/5", "debug level of authentication";
    "debug_bluestore" = "1/5", "debug level of the store";
    "debug_monc" = "0/10", "debug level of the monitor client";
    "debug_ms" = "0/0", "debug level of the messenger";
    "debug_osd" = "1/5", "debug level of the OSD";
    "debug_tp" = "0/5", "debug level of the xstream";
    "osd_beacon_report_interval" = "300", "seconds between beacons to the monitor";
    "osd_client_message_cap" = "256", "requests of one client taken in at a time";
    "osd_client_message_size_cap" = "524288000", "bytes of requests taken in at a time";
    "osd_client_watch_timeout" = "30", "seconds without a sign of life after which a watch ends";
    "osd_deep_scrub_interval" = "604800.000000", "seconds from one deep scrub of a PG, and of the store, to the next, 0 for none";
    "osd_default_notify_timeout" = "30", "seconds that a notify waits for its watchers";
    "osd_failsafe_full_ratio" = "0.970000", "part of space in use from which no writes are taken at all";
    "mon_osd_min_down_reporters" = "2", "OSDs of other subtrees that watch this one, at least";
    "mon_osd_reporter_subtree_level" = "host", "CRUSH level at which OSDs that watch this one count as different";
    "osd_fast_fail_on_connection_refused" = "true", "report an OSD at once if its address refuses connections";
    "osd_heartbeat_grace" = "20", "seconds without an answer after which an OSD is reported";
    "osd_heartbeat_interval" = "6", "most seconds between pings of the other OSDs";
    "osd_heartbeat_min_peers" = "10", "OSDs that are pinged, if there are as many";
    "osd_heartbeat_min_size" = "2000", "bytes that a ping is padded to";
    "osd_max_backfills" = "1", "PGs that recover or are filled at a time, here and for others";
    "osd_max_attr_name_len" = "100", "longest name of an extended attribute";
    "osd_max_attr_size" = "0", "largest extended attribute, 0 for any";
    "osd_max_markdown_count" = "5", "times that the map may call this OSD dead while it lives";
    "osd_max_markdown_period" = "600", "seconds in which those are counted";
    "osd_max_object_name_len" = "2048", "longest object name and locator key";
    "osd_max_object_namespace_len" = "256", "longest namespace";
    "osd_max_object_size" = "134217728", "largest object in bytes";
    "osd_max_omap_bytes_per_request" = "1073741824", "most omap bytes in one answer";
    "osd_max_omap_entries_per_request" = "1024", "most omap entries in one answer";
    "osd_max_scrubs" = "1", "PGs that are scrubbed at a time, here and for others";
    "osd_max_trimming_pgs" = "2", "PGs that trim snapshots at a time";
    "osd_max_write_op_reply_len" = "64", "most bytes that one operation of a write may return";
    "osd_max_write_size" = "90", "largest write request in MiB";
    "osd_memory_target" = "4294967296", "memory the OSD is meant to use; a sixteenth of it caches data";
    "osd_op_history_duration" = "600", "seconds that finished requests are kept for";
    "osd_op_history_size" = "20", "finished requests kept for dump_historic_ops";
    "osd_pool_default_read_lease_ratio" = "0.800000", "part of the heartbeat grace for which a primary may answer reads unasked";
    "osd_pg_max_concurrent_snap_trims" = "2", "objects that a PG takes a snapshot out of at a time";
    "osd_scrub_chunk_max" = "25", "objects that a scrub compares at a time";
    "osd_scrub_chunk_min" = "5", "the same of a deep scrub";
    "osd_scrub_min_interval" = "86400.000000", "seconds from one scrub of a PG to the next, 0 for none";
    "osd_scrub_sleep" = "0.000000", "seconds that a scrub pauses after each comparison";
    "osd_snap_trim_sleep" = "0.000000", "seconds that a PG pauses after these, 0 for the next option";
    "osd_snap_trim_sleep_ssd" = "0.000000", "the same, as devices count as SSDs";
}

impl OptionInfo {
    /// A value in the form it is stored in; `None` if it is not one. All options are whole numbers, but
    /// for debug levels, which are `N` or `N/M`, those that are `true` or `false`, those whose
    /// default has a point, and one that is a name.
    pub fn normalize(&self, text: &str) -> Option<String> {
        if parse_bool(self.default).is_some() {
            return parse_bool(text).map(|on| on.to_string());
        }
        if self.default.contains('.') {
            return parse_float(text).map(|n| format!("{n:.6}"));
        }
        if self.name == "mon_osd_reporter_subtree_level" {
            return Some(text.trim().to_owned());
        }
        if !self.name.starts_with("debug_") {
            return parse_size(text).map(|n| n.to_string());
        }
        let (log, gather) = text.split_once('/').unwrap_or((text, text));
        let level = |t: &str| t.trim().parse().ok().filter(|n: &u8| *n <= 99);
        Some(format!("{}/{}", level(log)?, level(gather)?))
    }
}

/// Values by source; later sources win.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The cluster's, from the monitor.
    pub mon: BTreeMap<String, String>,
    /// The configuration file's.
    pub file: BTreeMap<String, String>,
    /// Set by hand in this process.
    pub overrides: BTreeMap<String, String>,
}

impl Options {
    /// The value in force, or `None` for an option this target does not know.
    pub fn get(&self, name: &str) -> Option<&str> {
        let set = [&self.overrides, &self.file, &self.mon]
            .into_iter()
            .find_map(|source| source.get(name).map(String::as_str));
        set.or_else(|| info(name).map(|o| o.default))
    }

    /// All options with their values.
    pub fn all(&self) -> BTreeMap<&str, &str> {
        let sources = [&self.mon, &self.file, &self.overrides];
        let mut all: BTreeMap<&str, &str> = OPTIONS.iter().map(|o| (o.name, o.default)).collect();
        for source in sources {
            all.extend(source.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        }
        all
    }

    /// The options that are set, as the manager is told of them.
    pub fn report(&self) -> DaemonConfig {
        let sources = [
            (config_level::MON, &self.mon),
            (config_level::FILE, &self.file),
            (config_level::OVERRIDE, &self.overrides),
        ];
        let mut values: BTreeMap<String, BTreeMap<i32, String>> = BTreeMap::new();
        for (level, set) in sources {
            for (name, value) in set {
                values.entry(name.clone()).or_default().insert(level, value.clone());
            }
        }
        DaemonConfig { values, ignored: BTreeMap::new() }
    }

    pub fn limits(&self) -> Limits {
        Limits {
            max_object_size: self.number("osd_max_object_size"),
            max_attr_size: self.number("osd_max_attr_size"),
            max_attr_name_len: self.number("osd_max_attr_name_len"),
            max_omap_entries_per_request: self.number("osd_max_omap_entries_per_request"),
            max_omap_bytes_per_request: self.number("osd_max_omap_bytes_per_request"),
            max_write_op_reply_len: self.number("osd_max_write_op_reply_len"),
            watch_timeout_seconds: self.number("osd_client_watch_timeout") as u32,
            notify_timeout_seconds: self.number("osd_default_notify_timeout") as u32,
        }
    }

    pub fn beacon_interval(&self) -> Duration {
        Duration::from_secs(self.number("osd_beacon_report_interval"))
    }

    /// Bytes of data to cache.
    pub fn cache_bytes(&self) -> usize {
        self.number("osd_memory_target") as usize / 16
    }

    pub fn admit_limits(&self) -> AdmitLimits {
        AdmitLimits {
            object_name_len_max: self.number("osd_max_object_name_len") as usize,
            namespace_len_max: self.number("osd_max_object_namespace_len") as usize,
            write_size_max: self.number("osd_max_write_size") << 20,
        }
    }

    /// Whether an option is on.
    pub fn flag(&self, name: &str) -> bool {
        let default = info(name).and_then(|o| parse_bool(o.default));
        self.get(name).and_then(parse_bool).or(default).unwrap_or(false)
    }

    /// A number, with Ceph's suffixes for powers of 1024; the default if it does not parse.
    pub fn number(&self, name: &str) -> u64 {
        self.get(name)
            .and_then(parse_size)
            .or_else(|| info(name).and_then(|o| parse_size(o.default)))
            .unwrap_or(0)
    }

    /// A number with a fraction; the default if it does not parse.
    pub fn float(&self, name: &str) -> f64 {
        let value = self.get(name).and_then(parse_float);
        value.or_else(|| info(name).and_then(|o| parse_float(o.default))).unwrap_or(0.0)
    }

    /// A time in seconds with a fraction; the default if it does not parse.
    pub fn seconds(&self, name: &str) -> Duration {
        Duration::try_from_secs_f64(self.float(name)).unwrap_or_default()
    }
}

fn parse_float(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.trim() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

pub fn info(name: &str) -> Option<&'static OptionInfo> {
    OPTIONS.iter().find(|o| o.name == name)
}

pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.trim().to_ascii_lowercase().trim_end_matches(['b', 'i']) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_limits() {
        let options = Options::default();
        assert_eq!(options.limits(), Limits::default());
        assert_eq!(options.admit_limits(), AdmitLimits::default());
    }

    #[test]
    fn values_are_checked() {
        let check = |name: &str, text: &str, want: Option<&str>| {
            assert_eq!(info(name).unwrap().normalize(text).as_deref(), want, "{name} = {text}");
        };
        check("debug_osd", "7", Some("7/7"));
        check("debug_osd", "1/5", Some("1/5"));
        check("debug_osd", "100", None);
        check("debug_osd", "abc", None);
        check("osd_max_object_size", "5M", Some("5242880"));
        check("osd_max_object_size", "zzz", None);
        check("osd_deep_scrub_interval", "0.5", Some("0.500000"));
        check("osd_deep_scrub_interval", "-1", None);
        check("bdev_enable_discard", "true", Some("true"));
        check("bdev_enable_discard", "maybe", None);
        for option in OPTIONS {
            assert_eq!(option.normalize(option.default).as_deref(), Some(option.default));
        }
    }

    #[test]
    fn the_manager_is_told_of_all_sources() {
        let mut options = Options::default();
        options.file.insert("a".into(), "1".into());
        options.mon.insert("a".into(), "2".into());
        options.overrides.insert("b".into(), "3".into());
        let values = options.report().values;
        let a = [(config_level::MON, "2".to_owned()), (config_level::FILE, "1".to_owned())];
        assert_eq!(values["a"], a.into());
        assert_eq!(values["b"], [(config_level::OVERRIDE, "3".to_owned())].into());
    }

    #[test]
    fn later_sources_win_and_junk_does_not_count() {
        let mut options = Options::default();
        let name = "osd_max_object_size";
        options.mon.insert(name.into(), "1 KiB".into());
        assert_eq!(options.number(name), 1024);
        options.file.insert(name.into(), "4M".into());
        assert_eq!(options.number(name), 4 << 20);
        options.mon.insert("osd_beacon_report_interval".into(), "7".into());
        assert_eq!(options.beacon_interval(), Duration::from_secs(7));
        options.overrides.insert(name.into(), "many".into());
        assert_eq!(options.number(name), 128 << 20);
        assert_eq!(options.get("nonsense"), None);
    }
}
