//! Read leases: until when a copy may answer reads without asking anybody.
//!
//! A primary serves only while every acting copy has acknowledged a bound on how long it may; a later
//! interval serves nothing before the bounds of earlier ones have passed. Nobody's clock is compared
//! with another's: a copy that hears of a lease counts its whole length from then on, which is never
//! too early.
//!
//! Invariants: `readable_until` of a primary never exceeds what each acting copy was told; all times
//! are this OSD's monotonic clock, given as arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spirula_wire::types::{PgLease, PgLeaseAck, TimeSpan};

use crate::history::{duration, span};

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Lease {
    /// Of one lease; zero: reads are not bound.
    pub interval: Duration,
    readable_until: Duration,
    /// Some copy of this interval may be read until then.
    readable_until_ub: Duration,
    /// What the copies were told (primary).
    sent: Duration,
    acks: BTreeMap<i32, Duration>,
    /// What the primary said, by its clock (copy).
    from_primary: Duration,
    /// Copies of earlier intervals may be read until then.
    prior_until: Duration,
    /// Those who may: they took part in earlier intervals and cannot be asked.
    prior_down: BTreeSet<i32>,
}

impl Lease {
    pub fn new(interval: Duration) -> Self {
        Self { interval, ..Self::default() }
    }

    /// The interval ended: its bound now is an earlier one's.
    pub fn end_interval(&mut self) {
        let prior_until = self.prior_until.max(self.readable_until_ub);
        *self = Self { interval: self.interval, prior_until, ..Self::default() };
    }

    /// Heard from another copy: earlier intervals may be read for that long.
    pub fn learn_prior(&mut self, left: Duration, now: Duration) {
        if !left.is_zero() {
            self.prior_until = self.prior_until.max(now + left);
        }
    }

    /// How long earlier intervals may still be read, as it is told to others.
    pub fn prior_left(&self, now: Duration) -> Duration {
        self.prior_until.saturating_sub(now)
    }

    /// Who of the earlier intervals could not be asked; if all could, nobody else serves any more.
    pub fn set_prior_down(&mut self, down: BTreeSet<i32>) {
        self.prior_down = down;
        self.check_prior();
    }

    /// Whoever is known to be dead serves nobody. Before it is known who could not be asked, that says
    /// nothing.
    pub fn drop_dead(&mut self, is_dead: impl Fn(i32) -> bool) {
        if self.prior_down.is_empty() {
            return;
        }
        self.prior_down.retain(|&osd| !is_dead(osd));
        self.check_prior();
    }

    /// Now all who could be asked have answered, so serve nobody by an earlier interval any more. If
    /// those are all there are, what they told of earlier leases says nothing.
    pub fn check_prior(&mut self) {
        if self.prior_down.is_empty() {
            self.prior_until = Duration::ZERO;
        }
    }

    /// Whether somebody of an earlier interval may still answer reads.
    pub fn waits_for_prior(&self, now: Duration) -> bool {
        now < self.prior_until
    }

    /// When that ends.
    pub fn prior_until(&self) -> Duration {
        self.prior_until
    }

    pub fn is_readable(&self, now: Duration) -> bool {
        self.interval.is_zero() || now < self.readable_until
    }

    /// A primary begins or renews the lease: what the copies are told.
    pub fn renew(&mut self, now: Duration, others: &BTreeSet<i32>) -> PgLease {
        self.acks.retain(|osd, _| others.contains(osd));
        self.sent = now + self.interval;
        self.readable_until_ub = self.sent;
        self.recalculate(others);
        self.current()
    }

    pub fn current(&self) -> PgLease {
        PgLease {
            readable_until: span(self.readable_until),
            readable_until_ub: span(self.sent),
            interval: span(self.interval),
        }
    }

    /// When a primary should renew.
    pub fn next_renewal(&self) -> Duration {
        self.sent.saturating_sub(self.interval / 2)
    }

    pub fn acknowledged(&mut self, from: i32, ack: &PgLeaseAck, others: &BTreeSet<i32>) {
        if others.contains(&from) {
            let until = duration(ack.readable_until_ub).min(self.sent);
            let known = self.acks.entry(from).or_default();
            *known = until.max(*known);
        }
        self.recalculate(others);
    }

    fn recalculate(&mut self, others: &BTreeSet<i32>) {
        let told = |osd: &i32| self.acks.get(osd).copied().unwrap_or_default();
        self.readable_until = others.iter().map(told).min().unwrap_or(self.sent);
    }

    /// A copy hears of the lease; the acknowledgement names the primary's own time again.
    pub fn heard(&mut self, lease: &PgLease, now: Duration) -> PgLeaseAck {
        self.interval = duration(lease.interval);
        self.from_primary = duration(lease.readable_until_ub).max(self.from_primary);
        self.readable_until_ub = self.readable_until_ub.max(now + self.interval);
        PgLeaseAck { readable_until_ub: self.acknowledgement() }
    }

    /// What a copy has heard of, in the primary's own time.
    pub fn acknowledgement(&self) -> TimeSpan {
        span(self.from_primary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_primary_reads_as_long_as_all_copies_know() {
        let others = BTreeSet::from([1, 2]);
        let (mut a, mut b, mut c) = (Lease::new(ms(1000)), Lease::default(), Lease::default());
        let lease = a.renew(ms(100), &others);
        assert!(!a.is_readable(ms(100)));
        a.acknowledged(1, &b.heard(&lease, ms(50_000)), &others);
        assert!(!a.is_readable(ms(100)));
        a.acknowledged(2, &c.heard(&lease, ms(7)), &others);
        assert!(a.is_readable(ms(1099)) && !a.is_readable(ms(1100)));
        assert_eq!(a.next_renewal(), ms(600));
        let lease = a.renew(ms(600), &others);
        assert!(!a.is_readable(ms(1100)), "not before both have heard");
        a.acknowledged(1, &b.heard(&lease, ms(50_500)), &others);
        a.acknowledged(3, &c.heard(&lease, ms(8)), &others);
        assert!(!a.is_readable(ms(1100)));
        b.end_interval();
        assert!(b.waits_for_prior(ms(51_499)) && !b.waits_for_prior(ms(51_500)));
        assert_eq!(b.prior_left(ms(51_000)), ms(500));
    }

    #[test]
    fn the_wait_ends_when_all_are_heard_of_or_dead() {
        let mut a = Lease::new(ms(1000));
        a.learn_prior(ms(5000), ms(100));
        a.drop_dead(|_| true);
        assert!(a.waits_for_prior(ms(200)), "nobody was asked yet");
        a.set_prior_down([4, 5].into());
        assert!(a.waits_for_prior(ms(200)));
        a.drop_dead(|osd| osd == 4);
        assert!(a.waits_for_prior(ms(200)));
        a.drop_dead(|osd| osd == 5);
        assert!(!a.waits_for_prior(ms(200)));
        a.learn_prior(ms(5000), ms(100));
        a.set_prior_down(BTreeSet::new());
        assert!(!a.waits_for_prior(ms(200)));
        assert!(Lease::new(Duration::ZERO).is_readable(ms(9)));
    }

    #[test]
    fn alone_it_reads_by_itself() {
        let mut a = Lease::new(ms(1000));
        a.renew(ms(0), &BTreeSet::new());
        assert!(a.is_readable(ms(999)) && !a.is_readable(ms(1000)));
    }
}
