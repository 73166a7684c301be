//! Read leases: until when a copy may answer reads without asking anybody.
//!
//! A primary serves only while every acting copy has acknowledged a bound on how long it may; a later
//! interval serves nothing before the bounds of earlier ones have passed. For these bounds nobody's clock
//! is compared with another's: a copy that hears of a lease counts its whole length from then on, which
//! is never too early. To serve reads itself it compares clocks by the stamps of heartbeats
//! ([`crate::stamps`]), and without them it does not.
//!
//! Clocks that run apart by less than a 64th are allowed for. Where heartbeats show that one jumped, all
//! is counted anew: nothing is read before the lease was renewed and acknowledged, and bounds that may
//! have passed too early last for a whole lease again.
//!
//! Invariants: `readable_until` of a primary never exceeds what each acting copy was told, that of a copy
//! never the primary's; all times are this OSD's monotonic clock, given as arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spirula_wire::types::{PgLease, PgLeaseAck, TimeSpan};

use crate::history::{duration, span};
use crate::stamps::signed;

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

    /// By how much clocks may differ within a lease.
    pub fn slack(&self) -> Duration {
        self.interval / 64
    }

    /// A whole lease of somebody else's, from now on.
    fn whole(&self, now: Duration) -> Duration {
        now + self.interval + self.slack()
    }

    /// The clock of this OSD or of another one jumped, since `since`: who, and where to, is not known.
    pub fn clock_jumped(&mut self, since: Duration, now: Duration) {
        self.readable_until = Duration::ZERO;
        self.acks.clear();
        let whole = self.whole(now);
        if !self.readable_until_ub.is_zero() {
            self.readable_until_ub = self.readable_until_ub.max(whole);
        }
        if self.prior_until > since {
            self.prior_until = self.prior_until.max(whole);
        }
    }

    /// This OSD's clock went back from `old` to `now`: what is left of each time is left still.
    pub fn clock_went_back(&mut self, old: Duration, now: Duration) {
        self.clock_jumped(old, old);
        self.sent = Duration::ZERO;
        for time in [&mut self.prior_until, &mut self.readable_until_ub] {
            *time = match time.checked_sub(old) {
                Some(left) => now + left,
                None => (*time).min(now),
            };
        }
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
        self.readable_until_ub = self.whole(now);
        self.recalculate(others);
        self.current(now)
    }

    /// As it is told to copies: they read nothing while the primary does not.
    pub fn current(&self, now: Duration) -> PgLease {
        let waits = self.waits_for_prior(now);
        let readable_until = if waits { Duration::ZERO } else { self.readable_until };
        PgLease {
            readable_until: span(readable_until),
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
            let until = duration(ack.readable_until_ub);
            let known = self.acks.entry(from).or_default();
            // What is later is of a lease from before this clock went back.
            if until <= self.sent {
                *known = until.max(*known);
            }
        }
        self.recalculate(others);
    }

    fn recalculate(&mut self, others: &BTreeSet<i32>) {
        let told = |osd: &i32| self.acks.get(osd).copied().unwrap_or_default();
        self.readable_until = others.iter().map(told).min().unwrap_or(self.sent);
    }

    /// A copy hears of the lease; the acknowledgement names the primary's own time again. `ahead`: so many
    /// nanoseconds at most the primary's clock is ahead.
    pub fn heard(&mut self, lease: &PgLease, now: Duration, ahead: Option<i64>) -> PgLeaseAck {
        self.interval = duration(lease.interval);
        self.from_primary = duration(lease.readable_until_ub);
        self.readable_until_ub = self.readable_until_ub.max(self.whole(now));
        if let Some(until) = ahead.and_then(|ahead| readable_here(lease, now, ahead)) {
            self.readable_until = self.readable_until.max(until);
        }
        PgLeaseAck { readable_until_ub: self.acknowledgement() }
    }

    /// Whether a copy may answer reads.
    pub fn is_readable_here(&self, now: Duration) -> bool {
        now < self.readable_until
    }

    /// What a copy has heard of, in the primary's own time.
    pub fn acknowledgement(&self) -> TimeSpan {
        span(self.from_primary)
    }
}

/// Until when a copy that hears of the lease now may read: by both clocks, and not longer than what
/// was left of it when it was sent.
fn readable_here(lease: &PgLease, now: Duration, ahead: i64) -> Option<Duration> {
    let sent = duration(lease.readable_until_ub).checked_sub(duration(lease.interval))?;
    let until = duration(lease.readable_until).min(duration(lease.readable_until_ub));
    let by_stamps = u64::try_from(signed(until).checked_sub(ahead)?).ok()?;
    Some(Duration::from_nanos(by_stamps).min(now + until.checked_sub(sent)?))
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
        a.acknowledged(1, &b.heard(&lease, ms(50_000), None), &others);
        assert!(!a.is_readable(ms(100)));
        a.acknowledged(2, &c.heard(&lease, ms(7), None), &others);
        assert!(a.is_readable(ms(1099)) && !a.is_readable(ms(1100)));
        assert_eq!(a.next_renewal(), ms(600));
        let lease = a.renew(ms(600), &others);
        assert!(!a.is_readable(ms(1100)), "not before both have heard");
        a.acknowledged(1, &b.heard(&lease, ms(50_500), None), &others);
        a.acknowledged(3, &c.heard(&lease, ms(8), None), &others);
        assert!(!a.is_readable(ms(1100)));
        b.end_interval();
        assert!(b.waits_for_prior(ms(51_515)) && !b.waits_for_prior(ms(51_516)));
        assert_eq!(b.prior_left(ms(51_000)), ms(500) + ms(1000) / 64);
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

    /// A primary whose clock shows 10 s more than the copy's renews at its 20 s and 28 s.
    #[test]
    fn a_copy_reads_by_both_clocks() {
        let others = BTreeSet::from([1]);
        let (second, ahead) = (ms(1000), 10_000_000_000);
        // By how much the primary's clock jumped between, by how much the bound is too high, how late the
        // second lease came, until when the copy reads.
        for (jump, over, late, until) in [
            (0, 0, 0, Some(26_000)),
            (0, 7, 0, Some(25_993)),
            (0, 0, 50, Some(26_000)),
            (3000, 0, 0, Some(23_000)),
            (3000, 0, 50, Some(23_050)),
            (20_000, 0, 0, None),
        ] {
            let (mut a, mut b) = (Lease::new(16 * second), Lease::default());
            let ahead = Some(ahead + over * 1_000_000);
            let lease = a.renew(ms(20_000), &others);
            a.acknowledged(1, &b.heard(&lease, ms(10_000), ahead), &others);
            assert!(
                !b.is_readable_here(ms(10_000)),
                "the primary does not know that all have heard"
            );
            let lease = a.renew(ms(28_000 + jump), &others);
            b.heard(&lease, ms(18_000 + late), ahead);
            let last = until.unwrap_or(18_000);
            assert_eq!(b.is_readable_here(ms(last - 1)), until.is_some(), "{jump} {over} {late}");
            assert!(!b.is_readable_here(ms(last)), "{jump} {over} {late}");
            assert_eq!(b.readable_until_ub, ms(18_000 + late) + 16 * second + 16 * second / 64);
        }
        let (mut a, mut b) = (Lease::new(16 * second), Lease::default());
        let lease = a.renew(ms(20_000), &others);
        a.acknowledged(1, &b.heard(&lease, ms(10_000), None), &others);
        a.learn_prior(second, ms(28_000));
        for ahead in [None, Some(ahead)] {
            b.heard(&a.renew(ms(28_000), &others), ms(18_000), ahead);
            assert!(!b.is_readable_here(ms(18_000)), "the primary itself waits");
        }
    }

    #[test]
    fn times_that_may_have_passed_too_early_count_anew() {
        let (mut a, others) = (Lease::new(ms(6400)), BTreeSet::from([1]));
        a.learn_prior(ms(2000), ms(100));
        a.clock_jumped(ms(2100), ms(9000));
        assert!(!a.waits_for_prior(ms(9000)), "it had passed before");
        a.clock_jumped(ms(2099), ms(9000));
        assert!(a.waits_for_prior(ms(15_499)) && !a.waits_for_prior(ms(15_500)));

        let old = a.renew(ms(9000), &others);
        let late = PgLeaseAck { readable_until_ub: old.readable_until_ub };
        a.acknowledged(1, &late, &others);
        assert!(a.is_readable(ms(9000)));
        a.clock_went_back(ms(9000), ms(1000));
        assert!(!a.is_readable(ms(1000)) && a.next_renewal() <= ms(1000));
        assert!(a.waits_for_prior(ms(7499)) && !a.waits_for_prior(ms(7500)));
        a.renew(ms(1000), &others);
        a.acknowledged(1, &late, &others);
        assert!(!a.is_readable(ms(1000)), "of a lease from before");
    }

    #[test]
    fn alone_it_reads_by_itself() {
        let mut a = Lease::new(ms(1000));
        a.renew(ms(0), &BTreeSet::new());
        assert!(a.is_readable(ms(999)) && !a.is_readable(ms(1000)));
    }
}
