//! The state as `ceph pg` shows it.

use std::time::Duration;

use spirula_wire::types::pg_state;

use super::{Peering, State};

impl Peering {
    /// The bits of [`pg_state`], whose names are joined by `+`.
    pub fn state_bits(&self, now: Duration) -> u64 {
        let mut bits = match self.state {
            State::Down => pg_state::DOWN,
            State::Incomplete => pg_state::INCOMPLETE,
            State::Activating => pg_state::ACTIVATING,
            State::Active | State::Clean if self.is_premerge() => {
                pg_state::PEERED | pg_state::PREMERGE
            }
            State::Active | State::Clean if self.mapping.is_writeable() => pg_state::ACTIVE,
            State::Active | State::Clean => pg_state::PEERED,
            _ => pg_state::PEERING,
        };
        if self.mapping.up != self.mapping.acting {
            bits |= pg_state::REMAPPED;
        }
        if self.state == State::Clean {
            return bits | pg_state::CLEAN | self.lease_bits(now);
        }
        if matches!(self.state, State::Activating | State::Active) {
            bits |= self.recovery_bits() | self.lease_bits(now);
        }
        bits
    }

    fn recovery_bits(&self) -> u64 {
        let short = self.mapping.acting_set().len() < self.mapping.size;
        let mut bits = if short { pg_state::UNDERSIZED } else { 0 };
        if self.is_degraded() {
            bits |= pg_state::DEGRADED;
        }
        let reserving = self.reserving_bits();
        // As long as others are recovered, that is what is said.
        let recovers = reserving & !(pg_state::FORCED_RECOVERY | pg_state::FORCED_BACKFILL) != 0;
        if !recovers && !self.missing.is_empty() && !self.unfound().is_empty() {
            bits |= pg_state::RECOVERY_UNFOUND;
        }
        bits | reserving
    }

    /// Some objects have fewer copies than the pool asks for.
    pub(super) fn is_degraded(&self) -> bool {
        let short = self.mapping.acting_set().len() < self.mapping.size;
        !self.info.is_empty() && (short || self.recovers_by_log())
    }

    pub(super) fn needs_backfill(&self) -> bool {
        let unfilled = |osd: &i32| self.peers.get(osd).is_some_and(|p| p.info.is_incomplete());
        self.backfill_targets.iter().any(unfilled)
    }

    fn lease_bits(&self, now: Duration) -> u64 {
        if self.lease.waits_for_prior(now) {
            pg_state::WAIT
        } else if !self.lease.is_readable(now) {
            pg_state::LAGGY
        } else {
            0
        }
    }
}
