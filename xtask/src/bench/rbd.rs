//! Block images: `fio` with its rbd engine, and what is done to a whole image.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Load, Sample, Side, cpu_seconds, wait_quiescent};
use crate::run;

/// The image that fio uses; it is written once from end to end before anything is measured.
const IMAGE: &str = "bench-fio";
const IMAGE_SIZE: &str = "512M";
/// The image whose snapshots, clones and removal are timed. A block of each of its objects is written.
const WHOLE_IMAGE_GIB: u32 = 10;
/// What the first overwrite after a snapshot may cost, against the overwrite before it: as one request. With
/// an object map librbd sends a request of its own, to mark the object as changed, and waits for it.
const FIRST_OVERWRITE_RATIO_MAX: f64 = 1.3;
const OVERWRITE: &str = "overwrite, no object map";
const FIRST_OVERWRITE: &str = "first after snapshot, no object map";

/// One `fio` run.
pub(super) fn one_fio(load: &Load, side: &Side, seconds: u32) -> Result<Sample> {
    side.tool("rbd", &["create", "--size", IMAGE_SIZE, IMAGE])?;
    fio(side, &["--rw=write", "--bs=4M", "--iodepth=4"])?;
    wait_quiescent(side);
    let before = cpu_seconds(side);
    let (rw, bs) = (format!("--rw={}", load.mode), format!("--bs={}", load.size));
    let (depth, runtime) = (format!("--iodepth={}", depth(load)), format!("--runtime={seconds}"));
    let out = fio(side, &[&rw, &bs, &depth, &runtime, "--time_based"])?;
    wait_quiescent(side);
    let cpu = cpu_seconds(side) - before;
    side.tool("rbd", &["rm", "--no-progress", IMAGE])?;
    wait_quiescent(side);
    let kind = if load.mode.ends_with("read") { "read" } else { "write" };
    let job = &out["jobs"][0][kind];
    let number = |key: &str| job[key].as_f64().with_context(|| format!("fio: no {kind} {key}"));
    Ok(Sample {
        iops: number("iops")?,
        mb_s: number("bw_bytes")? / f64::from(1 << 20),
        cpu_us: cpu * 1e6 / number("total_ios")?.max(1.0),
    })
}

/// Requests in flight: fewer where each is large, so that a run is not all start and end.
fn depth(load: &Load) -> u32 {
    if load.size > 1 << 20 { 4 } else { 32 }
}

fn fio(side: &Side, args: &[&str]) -> Result<Value> {
    let image = format!("--rbdname={IMAGE}");
    let fixed = [
        "--name=bench",
        "--ioengine=rbd",
        "--pool=rbd",
        "--clientname=admin",
        "--output-format=json",
        &image,
    ];
    let out = side.tool("fio", &[&fixed[..], args].concat())?;
    // Warnings of the library may come before the document.
    let start = out.find('{').with_context(|| format!("fio printed no JSON: {out}"))?;
    serde_json::from_str(&out[start..]).context("JSON of fio")
}

/// Times snapshots, first overwrites, clones, rollback and removal on each side; prints and returns them.
pub(super) fn whole_images(sides: &[Side]) -> Result<Value> {
    let results: Vec<Vec<Value>> = sides.iter().map(one_image).collect::<Result<_>>()?;
    println!("\nrbd image of {WHOLE_IMAGE_GIB} GiB, per operation");
    println!(
        "{:<36} {:>9} {:>10} {:>10} {:>12}",
        "operation", "side", "ms", "CPU ms", "written KiB"
    );
    let mut rows = Vec::new();
    for i in 0..results[0].len() {
        let name = &results[0][i]["name"];
        let mut row = json!({ "operation": name });
        for (side, steps) in sides.iter().zip(&results) {
            let number = |key: &str| steps[i][key].as_f64().unwrap_or(f64::NAN);
            println!(
                "{:<36} {:>9} {:>10.3} {:>10.3} {:>12.1}",
                name.as_str().unwrap_or_default(),
                side.name,
                number("ms"),
                number("cpu_ms"),
                number("written_kib"),
            );
            row[side.name] = steps[i].clone();
        }
        rows.push(row);
    }
    // Ours comes first; the bound is not for Ceph.
    let ratio = milliseconds(&results[0], FIRST_OVERWRITE)? / milliseconds(&results[0], OVERWRITE)?;
    println!(
        "the first overwrite after a snapshot costs {ratio:.2}x the one before; bound \
         {FIRST_OVERWRITE_RATIO_MAX}x: {}",
        super::verdict(ratio <= FIRST_OVERWRITE_RATIO_MAX),
    );
    Ok(Value::Array(rows))
}

fn milliseconds(steps: &[Value], name: &str) -> Result<f64> {
    let step = steps.iter().find(|s| s["name"] == name);
    step.and_then(|s| s["ms"].as_f64()).with_context(|| format!("no step {name}"))
}

fn one_image(side: &Side) -> Result<Vec<Value>> {
    let script = run::root().join("benches/rbd/image.py").display().to_string();
    let pids: Vec<String> = side.data_pids().iter().map(u32::to_string).collect();
    let args = [&script, "--gib", &WHOLE_IMAGE_GIB.to_string(), "--pids", &pids.join(",")];
    let out = side.tool("/usr/bin/python3", &args)?;
    out.lines().map(|l| serde_json::from_str(l).context("JSON of a step")).collect()
}
