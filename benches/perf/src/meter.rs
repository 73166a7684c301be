//! CPU, time, memory and latencies of one phase.
//!
//! Invariant: CPU is that of the whole process, user and system, threads that have ended included.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::Report;

/// Longer latencies count as this, ten minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Latencies of one phase, in nanoseconds.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Latencies {
        Latencies(Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("its bounds are sound"))
    }

    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    fn us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies::new()
    }
}

/// Takes the numbers of operations of one phase, until all are done or its time is over.
pub struct Progress {
    next: u64,
    ops: u64,
    end: Option<Instant>,
}

impl Progress {
    pub fn new(ops: u64, time: Option<Duration>) -> Progress {
        Progress { next: 0, ops, end: time.map(|t| Instant::now() + t) }
    }

    /// The number of the next operation.
    pub fn take(&mut self) -> Option<u64> {
        if self.next == self.ops || self.end.is_some_and(|end| Instant::now() >= end) {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Operations taken.
    pub fn taken(&self) -> u64 {
        self.next
    }
}

/// Measures one phase from its making on.
pub struct Meter {
    cpu: Duration,
    start: Instant,
    io_bytes: u64,
    elapsed: Option<Duration>,
}

impl Meter {
    pub fn start() -> Meter {
        Meter {
            cpu: cpu_time(),
            start: Instant::now(),
            io_bytes: process_write_bytes(),
            elapsed: None,
        }
    }

    /// The last operation is done; what follows is clean-up, whose CPU counts but not its time.
    pub fn operations_done(&mut self) {
        self.elapsed = Some(self.start.elapsed());
    }

    /// The report, with `ops` operations done and `written_bytes` written by them.
    pub fn finish(
        self,
        phase: &str,
        ops: u64,
        latencies: &Latencies,
        written_bytes: u64,
    ) -> Report {
        let seconds = self.elapsed.unwrap_or_else(|| self.start.elapsed()).as_secs_f64();
        let cpu = cpu_time().saturating_sub(self.cpu);
        Report {
            phase: phase.to_owned(),
            ops,
            seconds,
            cpu_us: cpu.as_secs_f64() * 1e6 / ops.max(1) as f64,
            p50_us: latencies.us(0.5),
            p99_us: latencies.us(0.99),
            max_us: latencies.us(1.0),
            written_bytes,
            device_bytes: process_write_bytes().saturating_sub(self.io_bytes),
            rss_mib: status_mib("VmRSS:"),
            rss_peak_mib: status_mib("VmHWM:"),
            metadata_per_object: None,
            note: String::new(),
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Bytes that this process made go to devices, as far as the kernel tells.
fn process_write_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| number_after(&text, name).unwrap_or(0);
    // What was deleted before it was written back never got there.
    field("\nwrite_bytes:").saturating_sub(field("cancelled_write_bytes:"))
}

fn status_mib(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    number_after(&text, name).unwrap_or(0) as f64 / 1024.0
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_ends_with_its_operations_or_with_its_time() {
        let mut by_ops = Progress::new(2, None);
        assert_eq!([by_ops.take(), by_ops.take(), by_ops.take()], [Some(0), Some(1), None]);
        assert_eq!(by_ops.taken(), 2);
        assert_eq!(Progress::new(2, Some(Duration::ZERO)).take(), None);
    }

    #[test]
    fn a_report_has_the_cpu_the_memory_and_the_latencies() {
        let mut meter = Meter::start();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(0);
        }
        meter.operations_done();
        let mut latencies = Latencies::new();
        (1..=100).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        let report = meter.finish("test", 10, &latencies, 4096);
        assert!((0.05..5.0).contains(&report.seconds));
        assert!(report.cpu_us > 500.0 && report.cpu_us < 50_000.0, "{}", report.cpu_us);
        assert!((49_900.0..51_000.0).contains(&report.p50_us), "{}", report.p50_us);
        assert!((99_900.0..101_000.0).contains(&report.max_us), "{}", report.max_us);
        assert!(report.rss_mib > 0.1 && report.rss_peak_mib >= report.rss_mib);
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        let io = "wchar: 7\nwrite_bytes: 4096\ncancelled_write_bytes: 12\n";
        assert_eq!(number_after(io, "\nwrite_bytes:"), Some(4096));
        assert_eq!(number_after(io, "cancelled_write_bytes:"), Some(12));
        assert_eq!(number_after(io, "none:"), None);
    }
}
