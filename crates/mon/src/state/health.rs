//! Muted health checks.

use spirula_wire::Denc;

/// One muted check.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct Mute {
    /// Nanoseconds since the epoch after which it ends; 0 for never.
    pub until_nanos: u64,
    /// Stays although the check is gone meanwhile.
    pub sticky: bool,
    /// As the check said when it was muted.
    pub summary: String,
    /// Things counted by the check then: more of them end the mute.
    pub count: u64,
}
