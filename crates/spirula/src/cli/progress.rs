//! How far a long transfer is, on standard error if that is a terminal.
//!
//! Invariant: a short transfer, and one that nobody looks at, prints nothing.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use super::report;

/// What takes no longer than this needs no progress.
const SILENT: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(100);
/// To the beginning of the line, and erase it.
const CLEAR: &str = "\r\x1b[K";

pub(super) struct Progress {
    out: Option<Box<dyn Write>>,
    what: String,
    /// Bytes, if known.
    total: Option<u64>,
    begin: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// Of a transfer such as `put rbd/object`.
    pub(super) fn new(what: String, total: Option<u64>) -> Self {
        let out = io::stderr().is_terminal().then(|| Box::new(io::stderr()) as Box<dyn Write>);
        Self { out, what, total, begin: Instant::now(), shown: None }
    }

    /// Whether anybody looks at it.
    pub(super) fn is_visible() -> bool {
        io::stderr().is_terminal()
    }

    /// So many bytes are done.
    pub(super) fn at(&mut self, done: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.begin);
        let is_early = self.shown.is_some_and(|t| now.saturating_duration_since(t) < EVERY);
        let Some(out) = self.out.as_mut().filter(|_| elapsed >= SILENT && !is_early) else {
            return;
        };
        self.shown = Some(now);
        let line = line(&self.what, done, self.total, elapsed);
        // Nobody has asked for it.
        let _ = out.write_all(format!("{CLEAR}{line}").as_bytes()).and_then(|()| out.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let (Some(out), Some(_)) = (&mut self.out, self.shown) {
            let _ = out.write_all(CLEAR.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// `put rbd/o: 512 MiB of 1.0 GiB (50%), 128 MiB/s, 4 s left`
fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let (done_text, rate_text) = (report::bytes(done), report::bytes(rate as u64));
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = done.min(total) as f64 * 100.0 / total as f64;
            let left = total.saturating_sub(done) as f64 / rate.max(1.0);
            let total = report::bytes(total);
            format!(
                "{what}: {done_text} of {total} ({percent:.0}%), {rate_text}/s, {left:.0} s left"
            )
        }
        None => format!("{what}: {done_text}, {rate_text}/s"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_long_transfer_is_shown_now_and_then_and_wiped() {
        let screen = Screen::default();
        let mut progress = Progress::new("put rbd/o".into(), Some(1 << 30));
        progress.out = Some(Box::new(screen.clone()));
        let at = |ms| progress.begin + Duration::from_millis(ms);
        let (early, first, soon, last) = (at(100), at(4000), at(4050), at(4100));
        progress.at(1 << 20, early);
        assert_eq!(screen.text(), "", "too short to be of interest");
        progress.at(512 << 20, first);
        let shown = "\r\x1b[Kput rbd/o: 512 MiB of 1 GiB (50%), 128 MiB/s, 4 s left";
        assert_eq!(screen.text(), shown);
        progress.at(600 << 20, soon);
        assert_eq!(screen.text(), shown, "not too often");
        progress.at(1 << 30, last);
        assert!(screen.text().contains("(100%)"));
        drop(progress);
        assert!(screen.text().ends_with(CLEAR));
    }

    #[test]
    fn without_a_terminal_or_a_size_there_is_less_to_show() {
        let mut progress = Progress::new("get".into(), None);
        progress.out = None;
        progress.at(1 << 30, progress.begin + Duration::from_secs(9));
        assert!(progress.shown.is_none());
        assert_eq!(line("get", 3 << 20, None, Duration::from_secs(3)), "get: 3 MiB, 1 MiB/s");
    }
}
