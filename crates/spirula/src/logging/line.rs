//! One line of a log file, as Ceph writes them:
//! `2026-11-22T03:57:25.825+0000 7f3adb28cd00  1 osd text`.
//!
//! Invariant: what an event brings cannot make more than one line, nor one longer than
//! [`LINE_BYTES_MAX`].

use std::fmt::{self, Write as _};

use time::{OffsetDateTime, UtcOffset};
use tracing::field::{Field, Visit};

/// Longer lines are cut.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 10;

thread_local! {
    static THREAD: String = thread_name();
}

/// The line with its newline.
pub(crate) fn line(
    offset: UtcOffset,
    level: i8,
    subsystem: &str,
    event: &tracing::Event<'_>,
) -> String {
    let mut out = String::with_capacity(160);
    stamp(&mut out, OffsetDateTime::now_utc().to_offset(offset));
    // Writing to a string does not fail.
    let _ = THREAD.with(|thread| write!(out, " {thread} {level:>2} {subsystem} "));
    event.record(&mut Fields { out: &mut out, gap: "" });
    finish(&mut out);
    out
}

/// The line of a text that is no event.
pub(crate) fn notice(offset: UtcOffset, level: i8, subsystem: &str, text: &str) -> String {
    let mut out = String::with_capacity(64 + text.len());
    stamp(&mut out, OffsetDateTime::now_utc().to_offset(offset));
    let _ = THREAD.with(|thread| write!(out, " {thread} {level:>2} {subsystem} {text}"));
    finish(&mut out);
    out
}

fn stamp(out: &mut String, t: OffsetDateTime) {
    let (hours, minutes, _) = t.offset().as_hms();
    let sign = if t.offset().is_negative() { '-' } else { '+' };
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}{sign}{:02}{:02}",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.millisecond(),
        hours.unsigned_abs(),
        minutes.unsigned_abs(),
    );
}

/// The kernel's id of this thread, as `top -H` shows it but in hexadecimal, as wide as Ceph's.
fn thread_name() -> String {
    let link = std::fs::read_link("/proc/thread-self").ok();
    let id = link.as_ref().and_then(|l| l.file_name()?.to_str()?.parse::<u64>().ok());
    format!("{:012x}", id.unwrap_or(0))
}

/// Escapes what would end the line early, cuts what is too long.
fn finish(out: &mut String) {
    if out.contains(|c: char| c.is_control()) {
        let escape = |c: char| {
            if c.is_control() { c.escape_default().collect() } else { c.to_string() }
        };
        *out = out.chars().map(escape).collect::<String>();
    }
    if out.len() >= LINE_BYTES_MAX {
        let end = (0..LINE_BYTES_MAX - 4).rev().find(|i| out.is_char_boundary(*i));
        out.truncate(end.unwrap_or(0));
        out.push_str("...");
    }
    out.push('\n');
}

/// The message, which `tracing` gives first, then the other fields as `name=value`.
struct Fields<'a> {
    out: &'a mut String,
    gap: &'static str,
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format_args!("{value:?}"));
    }
}

impl Fields<'_> {
    fn record(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // The file says which daemon it is.
        if field.name() == "daemon" || self.out.len() > LINE_BYTES_MAX {
            return;
        }
        let gap = std::mem::replace(&mut self.gap, " ");
        let _ = match field.name() {
            "message" => write!(self.out, "{gap}{value}"),
            name => write!(self.out, "{gap}{name}={value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_ceph_s() {
        let mut out = String::new();
        let t = OffsetDateTime::from_unix_timestamp_nanos(1_795_319_845_825_999_999).unwrap();
        stamp(&mut out, t);
        assert_eq!(out, "2026-11-22T03:57:25.825+0000");
        out.clear();
        stamp(&mut out, t.to_offset(UtcOffset::from_hms(-3, -30, 0).unwrap()));
        assert_eq!(out, "2026-11-22T00:27:25.825-0330");
    }

    #[test]
    fn a_line_is_one_line() {
        let text = notice(UtcOffset::UTC, -1, "osd", "a\nb\r\u{1b}[0m");
        assert!(text.ends_with(" -1 osd a\\nb\\r\\u{1b}[0m\n"), "{text}");
        let text = notice(UtcOffset::UTC, 1, "osd", &"ä".repeat(20_000));
        assert!(text.ends_with("...\n") && text.len() <= LINE_BYTES_MAX, "{}", text.len());
    }
}
