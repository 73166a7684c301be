//! How numbers, times and bytes look in Ceph's tools.

use spirula_client::UTime;
use time::OffsetDateTime;
use time::macros::format_description;

/// `8.6 MiB`, `995 MiB`, `12 B`: as many places as fit in three characters.
pub(crate) fn bytes(n: u64) -> String {
    scaled(n, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(n: u64, base: u64, units: &[&str]) -> String {
    let mut divisor = 1u64;
    let mut unit = units[0];
    for next in &units[1..] {
        if n / divisor < base {
            break;
        }
        divisor *= base;
        unit = next;
    }
    if n.is_multiple_of(divisor) {
        return format!("{} {unit}", n / divisor);
    }
    let value = n as f64 / divisor as f64;
    let fits = (0..=2).rev().map(|places| format!("{value:.places$}"));
    let number =
        fits.into_iter().find(|text| text.len() <= 3).unwrap_or_else(|| format!("{value:.0}"));
    format!("{number} {unit}")
}

/// Six significant digits, as C++ streams print by default.
pub(crate) fn general(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return "0".to_owned();
    }
    let magnitude = x.abs().log10().floor() as i32;
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..6).contains(&magnitude) {
        let places = usize::try_from(5 - magnitude).unwrap_or(0);
        return trim(&format!("{x:.places$}"));
    }
    let text = format!("{x:.5e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
}

/// `2026-11-22T04:46:32.000000+0000`
pub(crate) fn stamp(t: UTime) -> String {
    let format = format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+0000"
    );
    let nanos = i128::from(t.sec) * 1_000_000_000 + i128::from(t.nsec);
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    time.and_then(|time| time.format(&format).ok()).unwrap_or_else(|| t.sec.to_string())
}

/// 16 bytes a line, repeated lines as `*`, the length at the end.
pub(crate) fn hexdump(data: &[u8]) -> String {
    let mut out = String::new();
    let mut last: Option<&[u8]> = None;
    let mut starred = false;
    for (i, line) in data.chunks(16).enumerate() {
        if last == Some(line) {
            if !std::mem::replace(&mut starred, true) {
                out.push_str("*\n");
            }
            continue;
        }
        starred = false;
        last = Some(line);
        out.push_str(&format!("{:08x} ", i * 16));
        for at in 0..16 {
            out.push_str(if at == 8 { "  " } else { " " });
            match line.get(at) {
                Some(byte) => out.push_str(&format!("{byte:02x}")),
                None => out.push_str("  "),
            }
        }
        let printable = |b: &u8| {
            if (0x20..0x7f).contains(b) { *b as char } else { '.' }
        };
        let text: String = line.iter().map(printable).collect();
        out.push_str(&format!("  |{text}|\n"));
    }
    out + &format!("{:08x}\n", data.len())
}

/// Columns as wide as their widest cell, two blanks apart; the first to the left, the rest to the
/// right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        for (c, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match c {
                0 => out.push_str(&format!("{cell:<width$}")),
                _ => out.push_str(&format!("  {cell:>width$}")),
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (4096 * 25058, "98 MiB"),
            (9_000_001, "8.6 MiB"),
            (30 << 30, "30 GiB"),
            (1_043_000_000, "995 MiB"),
        ];
        for (n, want) in cases {
            assert_eq!(bytes(n), want);
        }
    }

    #[test]
    fn numbers() {
        let cases = [
            (5.596754, "5.59675"),
            (0.001016051, "0.00101605"),
            (5.8589e-5, "5.8589e-05"),
            (10288.4, "10288.4"),
            (0.0, "0"),
            (3.0, "3"),
            (1234567.0, "1.23457e+06"),
        ];
        for (x, want) in cases {
            assert_eq!(general(x), want);
        }
    }

    #[test]
    fn dumps() {
        let want = "00000000  76 31                                             |v1|\n00000002\n";
        assert_eq!(hexdump(b"v1"), want);
        assert_eq!(hexdump(&[0; 48]).lines().nth(1), Some("*"), "{}", hexdump(&[0; 48]));
    }

    #[test]
    fn stamps_and_tables() {
        let t = UTime { sec: 1_795_322_792, nsec: 5000 };
        assert_eq!(stamp(t), "2026-11-22T04:46:32.000005+0000");
        let cell = |s: &str| s.to_owned();
        let rows = [vec![cell("A"), cell("BB")], vec![cell("long"), cell("1")]];
        assert_eq!(table(&rows), "A     BB\nlong   1\n");
    }
}
