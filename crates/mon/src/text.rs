//! Plain-text helpers shaped like Ceph's: aligned tables, byte counts, times and ages.

use std::time::Duration;

use spirula_wire::types::ObjectStatSum;
use time::OffsetDateTime;

/// How a column is aligned, heading and cells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Ceph's `TextTable`: columns two blanks apart, as wide as their widest cell.
#[derive(Debug, Default)]
pub struct TextTable {
    columns: Vec<(String, Align, Align)>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub fn column(&mut self, heading: &str, head: Align, cells: Align) -> &mut Self {
        self.columns.push((heading.to_owned(), head, cells));
        self
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Lines, each ended by a newline.
    pub fn render(&self) -> String {
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(i)).map(String::len);
            cells.chain([self.columns[i].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        let headings = self.columns.iter().map(|(h, align, _)| (h.as_str(), *align));
        line(&mut out, headings.zip(widths.iter().copied()));
        for row in &self.rows {
            let cells =
                row.iter().zip(&self.columns).map(|(c, (_, _, align))| (c.as_str(), *align));
            line(&mut out, cells.zip(widths.iter().copied()));
        }
        out
    }
}

fn line<'a>(out: &mut String, cells: impl Iterator<Item = ((&'a str, Align), usize)>) {
    for (i, ((text, align), width)) in cells.enumerate() {
        if i > 0 {
            out.push_str("  ");
        }
        match align {
            Align::Left => out.push_str(&format!("{text:<width$}")),
            Align::Right => out.push_str(&format!("{text:>width$}")),
        }
    }
    out.push('\n');
}

/// `byte_u_t`: `871 MiB`, `0 B`.
pub fn bytes_iec(n: u64) -> String {
    scaled(n, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], " ")
}

/// `si_u_t`: `12.3k`, `17`.
pub fn count_si(n: u64) -> String {
    scaled(n, 1000, &["", "k", "M", "G", "T", "P", "E"], "")
}

fn scaled(n: u64, base: u64, units: &[&str], gap: &str) -> String {
    let mut divisor = 1u64;
    let mut index = 0;
    while n / divisor >= base && index + 1 < units.len() {
        divisor = divisor.saturating_mul(base);
        index += 1;
    }
    let unit = units[index];
    if n.is_multiple_of(divisor) {
        return format!("{}{gap}{unit}", n / divisor);
    }
    // As many decimals as fit in seven characters with the unit.
    let value = n as f64 / divisor as f64;
    let text = [2, 1, 0].map(|decimals| format!("{value:.decimals$}{gap}{unit}"));
    text.iter().find(|t| t.len() <= 7).unwrap_or(&text[2]).clone()
}

/// `2026-11-22T03:43:28.662505+0000`, in UTC; what is no date is shown as seconds.
pub fn stamp(t: Duration) -> String {
    const TEN_YEARS: u64 = 10 * 365 * 86_400;
    if t.as_secs() < TEN_YEARS {
        return format!("{}.{:06}", t.as_secs(), t.subsec_micros());
    }
    format!("{}+0000", iso(t))
}

/// `2026-11-22T03:43:28.662505Z`, as the monmap's times are dumped.
pub fn stamp_z(t: Duration) -> String {
    format!("{}Z", iso(t))
}

fn iso(t: Duration) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + t;
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    )
}

/// `timespan_str`: two seconds figures and more in the unit below the next one: `90s`, `7m`, `3h`.
pub fn age(span: Duration) -> String {
    let s = span.as_secs();
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match s {
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 2 * HOUR => format!("{}m", s / MINUTE),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 14 * DAY => format!("{}d", s / DAY),
        s if s < 84 * DAY => format!("{}w", s / (7 * DAY)),
        s if s < 720 * DAY => format!("{}M", s / (30 * DAY)),
        s => format!("{}y", s / (365 * DAY)),
    }
}

/// How many objects have too few copies, are not where they belong, or have no copy left: numbers, the
/// totals they are parts of, and the words for them.
pub fn recovery_parts(sum: &ObjectStatSum) -> impl Iterator<Item = (&'static str, i64, i64)> {
    let (objects, copies) = (sum.num_objects, sum.num_object_copies);
    [
        ("degraded", sum.num_objects_degraded, copies),
        ("misplaced", sum.num_objects_misplaced, copies),
        ("unfound", sum.num_objects_unfound, objects),
    ]
    .into_iter()
    .filter(|(_, n, of)| *n != 0 && *of > 0)
}

/// The same as `5/15 objects degraded (33.333%)`.
pub fn recovery_lines(sum: &ObjectStatSum) -> impl Iterator<Item = String> {
    recovery_parts(sum).map(|(word, n, of)| {
        format!("{n}/{of} objects {word} ({:.3}%)", 100.0 * n as f64 / of as f64)
    })
}

/// Bytes, keys and objects that were recovered in a second, as `1 MiB/s, 3 objects/s`; keys are shown
/// if there were any.
pub fn recovery_rate(bytes: u64, keys: Option<u64>, objects: u64) -> String {
    let keys = keys.map_or(String::new(), |n| format!(", {} keys/s", count_si(n)));
    format!("{}/s{keys}, {} objects/s", bytes_iec(bytes), count_si(objects))
}

/// Seconds in `90`, `1h`, `2 days 3h`: numbers with units, one behind another. The errors are Ceph's
/// texts.
pub fn parse_timespan(text: &str) -> Result<i64, String> {
    let too_large = || format!("The option value '{text}' seems to be invalid");
    let (mut rest, mut sum) = (text.trim_start(), 0i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if digits == 0 {
            return Err("expected digit".to_owned());
        }
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        if unit.is_empty() && !behind.is_empty() {
            return Err(format!("unexpected trailing '{behind}'"));
        }
        let unit = seconds_of(unit).ok_or_else(|| format!("unrecogized unit '{unit}'"))?;
        let span = number.parse::<i64>().ok().and_then(|n| n.checked_mul(unit));
        sum = span.and_then(|span| sum.checked_add(span)).ok_or_else(too_large)?;
        rest = behind.trim_start();
    }
    Ok(sum)
}

fn seconds_of(unit: &str) -> Option<i64> {
    const DAY: i64 = 86_400;
    Some(match unit {
        "" | "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hr" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => DAY,
        "w" | "wk" | "week" | "weeks" => 7 * DAY,
        "mo" | "month" | "months" => 30 * DAY,
        "y" | "yr" | "year" | "years" => 365 * DAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_as_in_ceph() {
        assert_eq!(bytes_iec(0), "0 B");
        assert_eq!(bytes_iec(913_096_704), "871 MiB");
        assert_eq!(bytes_iec(32_212_254_720), "30 GiB");
        assert_eq!(bytes_iec(1536), "1.5 KiB");
        assert_eq!(bytes_iec(10_485_760), "10 MiB");
        assert_eq!(count_si(1234), "1.23k");
        assert_eq!(count_si(17), "17");
    }

    #[test]
    fn times() {
        assert_eq!(
            stamp(Duration::from_micros(1_795_319_026_516_200)),
            "2026-11-22T03:43:46.516200+0000"
        );
        assert_eq!(age(Duration::from_secs(7 * 60 + 3)), "7m");
        let check = |text: &str, want: Result<i64, &str>| {
            assert_eq!(parse_timespan(text), want.map_err(str::to_owned), "{text}");
        };
        check("1h", Ok(3600));
        check("", Ok(0));
        check(" 1 hour 3 minutes ", Ok(3780));
        check("1m1m", Ok(120));
        check("2d", Ok(172_800));
        check("x", Err("expected digit"));
        check("-1", Err("expected digit"));
        check("1s.", Err("expected digit"));
        check("1.5", Err("unexpected trailing '.5'"));
        check("1 2", Err("unexpected trailing '2'"));
        check("10x", Err("unrecogized unit 'x'"));
        check("9223372036854775807", Ok(i64::MAX));
        for large in ["99999999999999999999", "9223372036854775807y", "1s9223372036854775807"] {
            assert!(parse_timespan(large).is_err(), "{large}");
        }
    }
}
