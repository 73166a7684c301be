//! Every phase of `vos-perf` on a small store.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn vos_perf(file: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vos-perf"));
    command.arg("--file").arg(file).args(["--json", "--device-bytes", "134217728"]);
    command.args(args).output().unwrap()
}

fn reports(file: &Path, args: &[&str]) -> Vec<Value> {
    let out = vos_perf(file, args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn fails_with(file: &Path, args: &[&str], part: &str) {
    let out = vos_perf(file, args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && text.contains(part), "{text}");
}

const SMALL: &[&str] = &["--objects", "50", "--dkeys", "2", "--akeys", "3", "--ops", "500"];

#[test]
fn phases_follow_each_other_through_lives_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let phases = "fill,update,fetch,iterate,device-read,crash,fetch,reopen,fetch,punch";
    for kind in [&["--zipf", "0.9"][..], &["--single", "--size", "64"][..]] {
        let file = dir.path().join("store");
        let args = [SMALL, kind, &["--phases", phases]].concat();
        let reports = reports(&file, &args);
        let names: Vec<&str> = reports.iter().map(|r| r["phase"].as_str().unwrap()).collect();
        assert_eq!(names.join(","), phases);
        let ops = |i: usize| reports[i]["ops"].as_u64().unwrap();
        assert_eq!((ops(0), ops(1), ops(2), ops(3), ops(9)), (300, 500, 500, 50, 300));
        assert_eq!(reports[5]["note"], "replayed 500 transactions");
        assert_eq!(reports[7]["note"], "replayed 0 transactions");
        let written = reports[1]["written_bytes"].as_u64().unwrap();
        assert!(reports[1]["device_bytes"].as_u64().unwrap() > written);
        let metadata = |i: usize| reports[i]["metadata_per_object"].as_f64();
        assert!(metadata(1).is_some_and(|bytes| bytes > 0.0) && metadata(2).is_none());
        assert!(!file.exists(), "a file made for the run goes with it");
    }
}

#[test]
fn the_bare_loop_writes_and_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--phases", "bare", "--objects", "100", "--ops", "200"];
    let reports = reports(&dir.path().join("bare"), &args);
    assert_eq!((reports.len(), &reports[0]["ops"]), (1, &Value::from(200)));
    assert_eq!(reports[0]["device_bytes"], 200 * 4096);
}

#[test]
fn what_cannot_be_measured_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store");
    fails_with(&file, &["--phases", "aggregate"], "keeps no versions yet");
    fails_with(&file, &["--phases", "bare,fill"], "give it alone");
    fails_with(&file, &["--phases", "fetch", "--objects", "5"], "fill first");
    fails_with(&file, &["--objects", "0"], "must not be 0");
    fails_with(&file, &["--objects", "100000", "--phases", "fill"], "give more --device-bytes");
    std::fs::write(&file, "precious").unwrap();
    fails_with(&file, &["--phases", "fill"], "--overwrite");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}
