//! Messages to and from the manager, and the manager's to the monitor.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::message::{PRIO_HIGH, check_compat};
use crate::msg::perf::{
    DaemonHealthMetric, MetricMessage, OsdPerfQueries, OsdPerfReports, PerfCounterType,
};
use crate::msg::{Paxos, types};
use crate::types::{EntityAddrVec, Uuid};
use crate::{Decode, DecodeError, Denc, Encode, Features, Header, Message, Payload, Reader};

/// `mgrmap`: an encoded MgrMap.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_MAP, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct MgrMapMsg {
    #[message(rest)]
    pub map: Bytes,
}

/// `service_map`: an encoded ServiceMap.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::SERVICE_MAP, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct ServiceMapMsg {
    #[message(rest)]
    pub map: Bytes,
}

/// `MgrMap::ModuleOption`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct ModuleOption {
    pub name: String,
    pub type_: u8,
    pub level: u8,
    pub flags: u32,
    pub default_value: String,
    pub min: String,
    pub max: String,
    pub enum_allowed: BTreeSet<String>,
    pub desc: String,
    pub long_desc: String,
    pub tags: BTreeSet<String>,
    pub see_also: BTreeSet<String>,
}

/// `MgrMap::ModuleInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 2, compat = 1)]
pub struct ModuleInfo {
    pub name: String,
    pub can_run: bool,
    pub error_string: String,
    #[denc(since = 2)]
    pub module_options: BTreeMap<String, ModuleOption>,
}

/// `MonCommand` (the description, not the message): a command that the manager can answer.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct CommandDescription {
    pub cmdstring: String,
    pub helpstring: String,
    pub module: String,
    pub req_perms: String,
    /// Unused; Ceph sends `cli,rest`.
    pub availability: String,
    pub flags: u64,
}

/// `mgrbeacon`: a manager says that it lives and, once active, what it offers.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_BEACON, version = 11, compat = 8, oldest = 8)]
pub struct MgrBeacon {
    pub paxos: Paxos,
    pub server_addrs: EntityAddrVec,
    pub gid: u64,
    pub available: bool,
    pub name: String,
    pub fsid: Uuid,
    /// The names in `modules`, for old monitors.
    pub module_names: BTreeSet<String>,
    pub command_descs: Vec<CommandDescription>,
    pub metadata: BTreeMap<String, String>,
    pub services: BTreeMap<String, String>,
    pub modules: Vec<ModuleInfo>,
    #[message(since = 9)]
    pub mgr_features: u64,
    #[message(since = 10)]
    pub clients: Vec<EntityAddrVec>,
    /// Of the same clients, in the same order.
    #[message(since = 11)]
    pub client_names: Vec<String>,
}

/// `mgropen`: a daemon or service introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MgrOpen {
    pub daemon_name: String,
    /// Empty for OSDs and such, whose kind is that of the session.
    pub service_name: String,
    /// Metadata and status of a service that registers itself.
    pub service: Option<ServiceDaemon>,
    /// An encoded [`DaemonConfig`].
    pub config: Bytes,
    /// Encoded map of option name -> compiled-in default.
    pub config_defaults: Bytes,
}

/// What a service daemon says in its [`MgrOpen`].
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct ServiceDaemon {
    pub metadata: BTreeMap<String, String>,
    pub status: BTreeMap<String, String>,
}

/// What `config` of [`MgrOpen`] and [`MgrReport`] holds: the options a daemon has set.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct DaemonConfig {
    /// By option, the values by their source ([`config_level`]); the highest is in force.
    pub values: BTreeMap<String, BTreeMap<i32, String>>,
    /// Values of the monitors that the daemon does not take.
    pub ignored: BTreeMap<String, String>,
}

/// Where the value of an option comes from (`CONF_*`); the higher wins.
pub mod config_level {
    pub const DEFAULT: i32 = 0;
    pub const MON: i32 = 1;
    pub const FILE: i32 = 2;
    pub const OVERRIDE: i32 = 5;

    /// Ceph's word for it.
    pub fn name(level: i32) -> &'static str {
        match level {
            DEFAULT => "default",
            MON => "mon",
            FILE => "file",
            3 => "env",
            4 => "cmdline",
            OVERRIDE => "override",
            6 => "final",
            _ => "???",
        }
    }
}

impl Message for MgrOpen {
    const TYPE: u16 = types::MGR_OPEN;
    const VERSION: u16 = 3;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, f: Features) -> Payload {
        let mut out = Vec::new();
        self.daemon_name.encode(&mut out, f);
        self.service_name.encode(&mut out, f);
        // A presence byte and the contents: just what an option is.
        self.service.encode(&mut out, f);
        self.config.encode(&mut out, f);
        self.config_defaults.encode(&mut out, f);
        Payload { front: out.into(), ..Payload::default() }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        check_compat::<Self>("MgrOpen", header)?;
        let r = &mut Reader::new(&payload.front);
        let mut open = Self { daemon_name: String::decode(r)?, ..Self::default() };
        if header.version >= 2 {
            open.service_name = String::decode(r)?;
            open.service = Option::decode(r)?;
        }
        if header.version >= 3 {
            open.config = Bytes::decode(r)?;
            open.config_defaults = Bytes::decode(r)?;
        }
        Ok(open)
    }
}

/// `mgrconfigure`: how often to report, and what.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_CONFIGURE, version = 4, compat = 1)]
pub struct MgrConfigure {
    pub stats_period: u32,
    /// Counters of a lower priority are not wanted.
    #[message(since = 2)]
    pub stats_threshold: u32,
    #[message(since = 3)]
    pub osd_perf_metric_queries: OsdPerfQueries,
    #[message(since = 4)]
    pub metric_config: Option<MetricMessage>,
}

/// `mgrreport`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_REPORT, version = 9, compat = 1)]
pub struct MgrReport {
    pub daemon_name: String,
    pub declare_types: Vec<PerfCounterType>,
    /// See [`PerfValue`](crate::msg::perf::PerfValue).
    pub packed: Bytes,
    #[message(since = 2)]
    pub undeclare_types: Vec<String>,
    #[message(since = 3)]
    pub service_name: String,
    #[message(since = 3)]
    pub daemon_status: Option<BTreeMap<String, String>>,
    #[message(since = 5)]
    pub daemon_health_metrics: Vec<DaemonHealthMetric>,
    /// An encoded [`DaemonConfig`] if it changed, else empty.
    #[message(since = 6)]
    pub config: Bytes,
    #[message(since = 7)]
    pub osd_perf_metric_reports: OsdPerfReports,
    #[message(since = 8)]
    pub task_status: Option<BTreeMap<String, String>>,
    #[message(since = 9)]
    pub metric_report: Option<MetricMessage>,
}

/// `mgrclose`: goodbye; the manager answers with the same.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_CLOSE, version = 1, compat = 1)]
pub struct MgrClose {
    pub daemon_name: String,
    pub service_name: String,
}

/// `mgr_command`: a CLI command that the manager answers.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_COMMAND, version = 1, compat = 1)]
pub struct MgrCommand {
    pub fsid: Uuid,
    pub cmd: Vec<String>,
    #[message(data)]
    pub inbl: Bytes,
}

/// `mgr_command_reply`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_COMMAND_REPLY, version = 1, compat = 1)]
pub struct MgrCommandReply {
    pub r: i32,
    pub rs: String,
    #[message(data)]
    pub outbl: Bytes,
}

/// Severity of a [`HealthCheck`] (`health_status_t`).
pub mod health {
    pub const ERR: u8 = 0;
    pub const WARN: u8 = 1;
    pub const OK: u8 = 2;
}

/// `health_check_t`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 2, compat = 1)]
pub struct HealthCheck {
    pub severity: u8,
    pub summary: String,
    pub detail: Vec<String>,
    #[denc(since = 2)]
    pub count: i64,
}

/// `health_check_map_t`: by code, such as `OSD_DOWN`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct HealthChecks {
    pub checks: BTreeMap<String, HealthCheck>,
}

/// `ProgressEvent`: progress from 0 to 1.
#[derive(Clone, Debug, PartialEq, Default, Denc)]
#[denc(version = 2, compat = 1)]
pub struct ProgressEvent {
    pub message: String,
    pub progress: f32,
    #[denc(since = 2)]
    pub add_to_ceph_s: bool,
}

/// `monmgrreport`: what the manager knows and the monitor shows; `digest` is an encoded
/// PGMapDigest.
#[derive(Clone, Debug, PartialEq, Default, Message)]
#[message(ty = types::MON_MGR_REPORT, version = 3, compat = 1)]
pub struct MonMgrReport {
    pub paxos: Paxos,
    pub health_checks: HealthChecks,
    pub service_map: Bytes,
    #[message(since = 2)]
    pub progress_events: BTreeMap<String, ProgressEvent>,
    #[message(since = 3)]
    pub gid: u64,
    #[message(data)]
    pub digest: Bytes,
}

/// `mgrdigest`: what the manager has no map for, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MGR_DIGEST, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct MgrDigest {
    pub mon_status_json: Bytes,
    pub health_json: Bytes,
}
