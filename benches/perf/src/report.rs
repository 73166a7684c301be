//! What one phase showed.

use serde::{Deserialize, Serialize};

/// The measurements of one phase.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub phase: String,
    pub ops: u64,
    /// From the first operation to the last.
    pub seconds: f64,
    /// CPU of one operation, the clean-up after the last one included.
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Bytes of values written by the operations.
    pub written_bytes: u64,
    /// Bytes that went to the device for them.
    pub device_bytes: u64,
    pub rss_mib: f64,
    pub rss_peak_mib: f64,
    /// Bytes of metadata for each object, after the phase; our store alone says so.
    pub metadata_per_object: Option<f64>,
    /// What else the engine has to say.
    pub note: String,
}

impl Report {
    pub fn ops_per_second(&self) -> f64 {
        self.ops as f64 / self.seconds.max(1e-9)
    }

    /// Bytes to the device for each byte written; `None` if nothing was.
    pub fn write_amplification(&self) -> Option<f64> {
        (self.written_bytes > 0).then(|| self.device_bytes as f64 / self.written_bytes as f64)
    }
}

/// Prints a report as a line of text, or of JSON.
pub fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let amplification = report.write_amplification();
    println!(
        "{:<12} {:>9} ops {:>9.0}/s {:>8.2} us CPU/op, p50 {:.0} p99 {:.0} max {:.0} us, \
         written x{}, RSS {:.0} MiB (peak {:.0}) {}",
        report.phase,
        report.ops,
        report.ops_per_second(),
        report.cpu_us,
        report.p50_us,
        report.p99_us,
        report.max_us,
        amplification.map_or("-".to_owned(), |a| format!("{a:.2}")),
        report.rss_mib,
        report.rss_peak_mib,
        report.note,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_json_and_knows_its_rates() {
        let report = Report {
            ops: 10,
            seconds: 2.0,
            written_bytes: 100,
            device_bytes: 150,
            ..Report::default()
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert_eq!(report.ops_per_second(), 5.0);
        assert_eq!(report.write_amplification(), Some(1.5));
        assert_eq!(Report::default().write_amplification(), None);
    }
}
