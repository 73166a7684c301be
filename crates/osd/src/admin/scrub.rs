//! Commands about scrubs of the store.

use serde_json::{Value, json};
use spirula_store::ScrubReport;

use super::{Args, Failure};
use crate::target::Target;

fn interval(target: &Target) -> f64 {
    target.with_options(|o| o.seconds("osd_deep_scrub_interval")).as_secs_f64()
}

pub(super) fn trigger(target: &Target, _: &Args) -> Result<Value, Failure> {
    target.store().scrub_later();
    Ok(json!({ "deep": true, "interval": interval(target), "scheduled": true }))
}

pub(super) fn dump(target: &Target, _: &Args) -> Result<Value, Failure> {
    let status = target.store().scrub_status();
    Ok(json!({
        "deep_scrub_interval": interval(target),
        "last_deep_scrub": status.scrubbed.0,
        "last_errors": status.scrubbed.1,
        "running": status.running.as_ref().map(report),
        "last": status.last.as_ref().map(report),
    }))
}

fn report(report: &ScrubReport) -> Value {
    json!({
        "pages": report.pages,
        "extents": report.extents,
        "bytes": report.bytes,
        "errors": report.errors,
        "found": report.found.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
