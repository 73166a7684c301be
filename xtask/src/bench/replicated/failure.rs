//! OSDs that are killed and come back: how long writes wait, and how fast the copies are whole again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::bench::side::{Side, wait_quiescent};
use crate::bench::verdict;
use crate::run;

pub(super) const FAILOVER: &str = "failover";
pub(super) const RECOVERY: &str = "recovery";

const POOL: &str = "size3";
/// The OSDs that are killed: one to see who takes over, one to have it miss writes.
const FAILOVER_OSD: u32 = 0;
const ABSENT_OSD: u32 = 2;
/// At most this part of Ceph's time to the first write.
const FAILOVER_RATIO_MAX: f64 = 1.0 / 3.0;
/// At least this many times Ceph's rate.
const RECOVERY_RATIO_MIN: f64 = 3.0;
const OBJECTS: u32 = 10_000;
const ABSENCE: Duration = Duration::from_secs(30);
/// Clients that write while copies are recovered, one write after the other each.
const LANES: u32 = 4;
const CALM_SECONDS: u64 = 5;
/// Ceph may take a virtual disk for a spinning one, and then waits 0.1 s between objects: these are its
/// defaults for flash.
const CEPH_AS_ON_FLASH: &[(&str, &str)] =
    &[("osd_recovery_sleep_hdd", "0"), ("osd_recovery_max_active", "10")];

/// One run of `benches/replicated/client.py`.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(side: &Side, what: &str, number: u32) -> Result<Self> {
        let script = run::root().join("benches/replicated/client.py");
        let mut child = side
            .command("/usr/bin/python3")
            .arg(script)
            .args(["--pool", POOL, what, &number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("client.py")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("output of client.py")?);
        Ok(Self { child, input, output })
    }

    /// The next line that it says.
    fn said(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("client.py said {line:?}"))
    }

    /// Lets one that waits for a line go on.
    fn go(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("client.py reads no more")?;
        Ok(input.write_all(b"\n")?)
    }

    fn end_input(&mut self) {
        self.input = None;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end_input();
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn seconds(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("client.py: no {key} in {value}"))
}

/// From the kill of a primary to the first write through it; medians of `rounds`.
pub(super) fn failover(sides: &mut [Side], rounds: usize) -> Result<Value> {
    println!("\nfirst write after kill -9 of its primary");
    let mut medians = Vec::new();
    for side in sides.iter_mut() {
        let mut times = (0..rounds).map(|_| one_failover(side)).collect::<Result<Vec<f64>>>()?;
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        println!("{:<9} {median:.2} s (of {times:.2?})", side.name);
        medians.push(median);
    }
    let mut report = json!({});
    for (side, median) in sides.iter().zip(&medians) {
        report[side.name] = json!({ "seconds": median });
    }
    if let [ours, ceph] = medians.as_slice() {
        let ratio = ours / ceph;
        let met = verdict(ratio <= FAILOVER_RATIO_MAX);
        println!("{ratio:.2} of Ceph's, bound {FAILOVER_RATIO_MAX:.2}: {met}");
        report["ratio"] = json!(ratio);
    }
    Ok(report)
}

fn one_failover(side: &mut Side) -> Result<f64> {
    let mut client = Client::start(side, "first", FAILOVER_OSD)?;
    client.said()?;
    let begin = Instant::now();
    side.kill_osd(FAILOVER_OSD)?;
    client.go()?;
    client.said()?;
    let took = begin.elapsed().as_secs_f64();
    drop(client);
    come_back(side, FAILOVER_OSD)?;
    wait_quiescent(side);
    Ok(took)
}

/// Starts an OSD and waits until all is clean.
fn come_back(side: &mut Side, osd: u32) -> Result<Value> {
    let mut watch = Client::start(side, "recovered", osd)?;
    side.restart_osd(osd)?;
    watch.said()
}

/// Rate of recovery after an absence, and what clients feel of it.
pub(super) fn recovery(sides: &mut [Side]) -> Result<Value> {
    println!("\nrecovery of {OBJECTS} objects of 4 KiB changed in an absence of {ABSENCE:?}");
    println!(
        "{:<9} {:>10} {:>9} {:>18} {:>18} {:>18}",
        "side", "objects/s", "seconds", "p50 ms (calm)", "p99 ms (calm)", "max ms (calm)"
    );
    let mut report = json!({});
    for side in sides.iter_mut() {
        let one = one_recovery(side)?;
        let at = |when: &str, p: &str| one[when][p].as_f64().unwrap_or(f64::NAN);
        let both = |p: &str| format!("{:.1} ({:.1})", at("during", p), at("calm", p));
        println!(
            "{:<9} {:>10.0} {:>9.2} {:>18} {:>18} {:>18}",
            side.name,
            seconds(&one, "rate")?,
            seconds(&one, "seconds")?,
            both("p50_ms"),
            both("p99_ms"),
            both("p100_ms"),
        );
        report[side.name] = one;
    }
    if let [ours, ceph] = &*sides {
        let ratio = seconds(&report[ours.name], "rate")? / seconds(&report[ceph.name], "rate")?;
        let met = verdict(ratio >= RECOVERY_RATIO_MIN);
        println!("{ratio:.2} times Ceph's rate, bound {RECOVERY_RATIO_MIN}: {met}");
        report["ratio"] = json!(ratio);
    }
    Ok(report)
}

fn one_recovery(side: &mut Side) -> Result<Value> {
    if side.is_ceph() {
        for (option, value) in CEPH_AS_ON_FLASH {
            side.tool("ceph", &["config", "set", "osd", option, value])?;
        }
    }
    write_all(side)?;
    wait_quiescent(side);
    let mut calm = start_latency(side)?;
    std::thread::sleep(Duration::from_secs(CALM_SECONDS));
    let calm = end_latency(&mut calm)?;
    side.kill_osd(ABSENT_OSD)?;
    let absent = Instant::now();
    write_all(side)?;
    if absent.elapsed() > ABSENCE {
        bail!("{}: {OBJECTS} writes took longer than the absence", side.name);
    }
    std::thread::sleep(ABSENCE.saturating_sub(absent.elapsed()));
    let mut during = start_latency(side)?;
    let back = come_back(side, ABSENT_OSD)?;
    let during = end_latency(&mut during)?;
    let seconds = seconds(&back, "seconds")?;
    Ok(json!({
        "seconds": seconds, "rate": f64::from(OBJECTS) / seconds, "up_seconds": back["up"],
        "calm": calm, "during": during,
    }))
}

fn write_all(side: &Side) -> Result<()> {
    Client::start(side, "write", OBJECTS)?.said().map(drop)
}

fn start_latency(side: &Side) -> Result<Client> {
    let mut client = Client::start(side, "latency", LANES)?;
    client.said()?;
    Ok(client)
}

fn end_latency(client: &mut Client) -> Result<Value> {
    client.end_input();
    client.said()
}
