//! How far another OSD's monotonic clock may be ahead of this one's, from heartbeats (Ceph's
//! `HeartbeatStamps`).
//!
//! Who hears what was sent at a time of the sender's clock knows that it is at least that late there; what
//! it knows of the other's it tells with the next ping, which gives the other bound.
//!
//! Invariant: only clocks of one life of the peer are compared.

use std::time::Duration;

use spirula_wire::types::TimeSpan;

/// Bounds of how many nanoseconds the peer's clock is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HeartbeatStamps {
    up_from: u32,
    pub delta_lb: Option<i64>,
    pub delta_ub: Option<i64>,
    heard: Duration,
}

impl HeartbeatStamps {
    /// For the `delta_ub` of a ping or its reply; what was heard longer ago than `max_age` says nothing.
    pub fn to_send(&self, now: Duration, max_age: Duration) -> Option<TimeSpan> {
        let fresh = now.saturating_sub(self.heard) <= max_age;
        self.delta_lb.filter(|_| fresh).map(|lb| signed_span(lb.saturating_neg()))
    }

    /// A ping or a reply came, with what the peer sent of its own clock.
    pub fn got(&mut self, up_from: u32, now: Duration, sent: TimeSpan, delta_ub: Option<TimeSpan>) {
        if up_from < self.up_from {
            return;
        }
        let delta_lb = Some(nanos(sent).saturating_sub(signed(now)));
        *self = Self { up_from, delta_lb, delta_ub: delta_ub.map(nanos), heard: now };
    }
}

/// What a copy goes by, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockDelta {
    pub(crate) lb: Option<i64>,
    pub(crate) ub: Option<i64>,
    pub(crate) at: Duration,
}

impl ClockDelta {
    /// Both cannot be true of clocks that run alike.
    pub(crate) fn contradicts(&self, later: &Self, tolerance: Duration) -> bool {
        let tolerance = signed(tolerance);
        let apart = |low: Option<i64>, high: Option<i64>| {
            low.zip(high).is_some_and(|(low, high)| low > high.saturating_add(tolerance))
        };
        apart(later.lb, self.ub) || apart(self.lb, later.ub)
    }
}

pub(crate) fn signed(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn nanos(span: TimeSpan) -> i64 {
    i64::from(span.sec) * 1_000_000_000 + i64::from(span.nsec)
}

fn signed_span(nanos: i64) -> TimeSpan {
    let sec = i32::try_from(nanos / 1_000_000_000).unwrap_or(i32::MAX);
    TimeSpan { sec, nsec: (nanos % 1_000_000_000) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::span;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn both_bounds_come_with_a_round_trip() {
        // b's clock is 500 ms ahead of a's; each way takes 3 ms.
        let (mut a, mut b) = (HeartbeatStamps::default(), HeartbeatStamps::default());
        let max_age = ms(1000);
        assert_eq!(a.to_send(ms(100), max_age), None);
        b.got(1, ms(603), span(ms(100)), None);
        a.got(1, ms(106), span(ms(603)), b.to_send(ms(603), max_age));
        assert_eq!((a.delta_lb, a.delta_ub), (Some(497_000_000), Some(503_000_000)));
        b.got(1, ms(703), span(ms(200)), a.to_send(ms(200), max_age));
        assert_eq!((b.delta_lb, b.delta_ub), (Some(-503_000_000), Some(-497_000_000)));
        assert_eq!(a.to_send(ms(1107), max_age), None, "it may have changed since");
        b.got(0, ms(900), span(ms(0)), None);
        assert!(b.delta_ub.is_some(), "an earlier life of the peer");
        b.got(2, ms(900), span(ms(0)), None);
        assert_eq!(b.delta_ub, None);
        let back = signed_span(-1_500_000_000);
        assert_eq!((back.sec, back.nsec, nanos(back)), (-1, -500_000_000, -1_500_000_000));
    }

    #[test]
    fn a_jump_shows() {
        let at = |lb, ub| ClockDelta { lb: Some(lb), ub: Some(ub), at: ms(0) };
        let old = at(100, 200);
        let tolerance = Duration::from_nanos(10);
        for (later, jumped) in
            [(at(150, 300), false), (at(210, 300), false), (at(211, 300), true), (at(0, 89), true)]
        {
            assert_eq!(old.contradicts(&later, tolerance), jumped, "{later:?}");
        }
        assert!(!old.contradicts(&ClockDelta { lb: None, ub: None, at: ms(0) }, tolerance));
    }
}
