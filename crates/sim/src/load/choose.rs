//! What a worker asks next.

use bytes::Bytes;
use spirula_xstream::random_u64;

use super::{LOGS, Load, REGISTERS};
use crate::check::{Request, Snaps, Step};

/// Snapshots of a run at most.
pub const SNAPS_MAX: u64 = 10;
/// The attribute that guarded requests look at.
const GUARD: &str = "guard";
const KEYS: u64 = 6;

impl Load {
    pub(super) fn choose(&self, random: u64) -> (String, Request) {
        let kind = random % 100;
        let which = (random >> 8) % (REGISTERS + LOGS);
        if which < LOGS {
            let step = match kind {
                0..70 => Step::Append(self.mark()),
                _ => Step::Read,
            };
            let request = Request { snaps: Self::plain(&step), steps: vec![step] };
            return (format!("log.{which}"), request);
        }
        if kind == 0 && self.0.snap.get() < SNAPS_MAX {
            self.0.snap.set(self.0.snap.get() + 1);
        }
        let snap = self.0.snap.get();
        let steps = self.steps(kind, random >> 16);
        let snaps = match steps.iter().any(Step::writes) {
            true => Snaps::Context { seq: snap, snaps: (1..=snap).rev().collect() },
            false if kind % 4 == 3 && snap > 0 => Snaps::At(1 + (random >> 40) % snap),
            false => Snaps::Head,
        };
        (format!("register.{}", which - LOGS), Request { steps, snaps })
    }

    /// One request to a register.
    fn steps(&self, kind: u64, random: u64) -> Vec<Step> {
        let name = |bits: u32| format!("k{}", (random >> bits) % KEYS);
        let pair = |bits: u32| (name(bits), self.mark());
        let set = || Step::OmapSet([pair(3), pair(9), pair(17)].into());
        match kind {
            0..26 => vec![Step::Read, Step::Stat],
            26..31 => vec![Step::GetXattrs],
            31..38 => vec![Step::GetOmap, Step::Read],
            38..48 => vec![Step::Write(random % 30_000, self.data(random, 12_000))],
            48..56 => vec![Step::WriteFull(self.data(random, 20_000))],
            56..58 => vec![Step::WriteFull(self.data(random, 140_000))],
            58..68 => vec![Step::Append(self.data(random, 3000))],
            68..71 => vec![Step::Truncate(random % 20_000)],
            71..73 => vec![Step::Create],
            73..78 => vec![Step::Delete],
            78..81 => vec![Step::SetXattr(name(0), self.mark())],
            81..85 => vec![set()],
            85..87 => vec![Step::OmapRemove(vec![name(0), name(5)])],
            87 => vec![Step::OmapClear],
            88..90 if self.0.snap.get() > 0 => {
                vec![Step::Rollback(1 + random % self.0.snap.get())]
            }
            // Compare and swap among few values, so that it often succeeds.
            88..95 => {
                let value = |bits: u32| Bytes::from(format!("{}", (random >> bits) % 3));
                let next = Step::SetXattr(GUARD.into(), value(4));
                vec![Step::Guard(GUARD.into(), value(0)), Step::Append(self.mark()), next]
            }
            95..97 => vec![Step::SetXattr(GUARD.into(), Bytes::new()), set()],
            _ => vec![Step::Write(random % 5000, self.data(random, 5000)), set()],
        }
    }

    /// Unlike any other.
    fn mark(&self) -> Bytes {
        self.0.marks.set(self.0.marks.get() + 1);
        format!("{};", self.0.marks.get()).into()
    }

    /// Bytes that tell which request wrote them.
    fn data(&self, random: u64, max: u64) -> Bytes {
        let mark = self.mark();
        let size = match random_u64() % 8 {
            0 => max,
            1 => 4096.min(max),
            _ => 1 + (random >> 20) % max,
        };
        mark.iter().copied().cycle().take(size as usize).collect()
    }

    fn plain(step: &Step) -> Snaps {
        if step.writes() { Snaps::default() } else { Snaps::Head }
    }
}
