//! What the owner of a monitor client decides.

use std::net::SocketAddr;
use std::time::Duration;

use spirula_auth::{ConMode, METHOD_CEPHX, Principal};
use spirula_wire::types::{EntityNameStr, EntityType};

#[derive(Clone, Debug)]
pub struct Config {
    pub principal: Principal,
    /// Monitors to begin with (`mon_host`); the monmap takes over once there is one.
    pub mons: Vec<SocketAddr>,
    /// Services to hold tickets for, as `EntityType` bits; AUTH is implied.
    pub want: u32,
    /// Preferred first (`auth_client_required`).
    pub methods: Vec<u32>,
    /// Preferred first (`ms_mon_client_mode`).
    pub mon_modes: Vec<ConMode>,
    /// Preferred first (`ms_client_mode`).
    pub service_modes: Vec<ConMode>,
    /// Told to the monitor with the subscriptions; it selects options by it.
    pub hostname: String,
    /// Keeps the own service's rotating secrets, to accept sessions with.
    pub keep_rotating: bool,
    pub timing: Timing,
}

impl Config {
    /// Cephx with Ceph's defaults, and tickets for what such an entity talks to.
    pub fn new(principal: Principal, mons: Vec<SocketAddr>) -> Self {
        let EntityNameStr { type_, .. } = principal.name;
        let daemon = [EntityType::OSD, EntityType::MDS, EntityType::MGR].contains(&type_);
        let services =
            [EntityType::MON, EntityType::OSD, EntityType::MGR, EntityType::AUTH].map(|t| t.0);
        let mut want = services.into_iter().map(u32::from).sum();
        if type_ == EntityType::MGR || type_ == EntityType::MDS {
            want |= u32::from(EntityType::MDS.0);
        }
        Self {
            principal,
            mons,
            want,
            methods: vec![METHOD_CEPHX],
            mon_modes: vec![ConMode::Secure, ConMode::Crc],
            service_modes: vec![ConMode::Crc, ConMode::Secure],
            hostname: String::new(),
            keep_rotating: daemon,
            timing: Timing::default(),
        }
    }
}

/// Ceph's `mon_client_*` intervals.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long one monitor may take to let us in (`mon_client_hunt_interval`).
    pub connect_timeout: Duration,
    /// The first pause after a whole round of monitors failed; it doubles up to `backoff_max`.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// `mon_client_ping_interval`.
    pub keepalive: Duration,
    /// Without an answer for so long the session is given up (`mon_client_ping_timeout`).
    pub keepalive_timeout: Duration,
    /// Pause before an unanswered or refused `auth` message is sent again.
    pub auth_retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_millis(3200),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(30),
            auth_retry: Duration::from_secs(5),
        }
    }
}
