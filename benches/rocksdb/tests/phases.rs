//! Every phase of `rocksdb-perf` on a small database.

use std::process::Command;

use serde_json::Value;

#[test]
fn phases_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let phases = "fill,update,fetch,iterate,punch";
    for blobs in [&[][..], &["--blob-files"][..]] {
        let db = dir.path().join("db");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rocksdb-perf"));
        command.arg("--dir").arg(&db).args(["--json", "--phases", phases]);
        command.args(["--objects", "50", "--akeys", "2", "--ops", "500"]).args(blobs);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let reports: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<&str> = reports.iter().map(|r| r["phase"].as_str().unwrap()).collect();
        assert_eq!(names.join(","), phases);
        let ops: Vec<u64> = reports.iter().map(|r| r["ops"].as_u64().unwrap()).collect();
        assert_eq!(ops, [100, 500, 500, 100, 100]);
        assert_eq!(reports[1]["written_bytes"], 500 * 4096);
        assert!(reports[1]["device_bytes"].as_u64().unwrap() >= 500 * 4096);
        assert!(!db.exists(), "the directory goes with the run");
    }
}
