//! The binary as a process: it ends with its parent, and what it prints to cannot make it panic.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long daemons may take to start, or to stop.
const TIME_MAX: Duration = Duration::from_secs(60);
const DAEMONS: [&str; 3] = ["mon.a", "mgr.x", "osd.0"];

fn spirula(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spirula"));
    command.args(args).stdin(Stdio::null());
    command
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < TIME_MAX, "{what} took longer than {TIME_MAX:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether it runs; one that nobody has waited for yet does not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

#[test]
fn daemons_end_when_their_parent_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let vstart = ["vstart", "--procs", "--osds", "1", "--device-size", "1G", "--dir"];
    let mut parent = spirula(&vstart)
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the start", || {
        assert_eq!(parent.try_wait().unwrap(), None, "vstart ended early");
        DAEMONS.iter().all(|name| run.join(format!("{name}.ready")).exists())
    });
    let pid = |name: &&str| fs::read_to_string(run.join(format!("{name}.pid"))).unwrap();
    let pids: Vec<String> = DAEMONS.iter().map(pid).map(|p| p.trim().to_owned()).collect();
    assert!(pids.iter().all(|pid| runs(pid)), "{pids:?}");
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the end", || !pids.iter().any(|pid| runs(pid)));
}

/// By `mon add` and the files that a user brings to its host; removed, it ends by itself.
#[test]
fn a_monitor_with_a_new_store_joins_and_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let vstart = ["vstart", "--procs", "--osds", "1", "--device-size", "1G", "--dir"];
    let mut parent = spirula(&vstart)
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the start", || {
        assert_eq!(parent.try_wait().unwrap(), None, "vstart ended early");
        DAEMONS.iter().all(|name| dir.path().join(format!("run/{name}.ready")).exists())
    });
    let ceph = |words: &str| {
        let mut command = spirula(&["ceph"]);
        let out = command.args(words.split(' ')).env("CEPH_CONF", path("ceph.conf")).output();
        let out = out.unwrap();
        assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    // An address of this process alone.
    let pid = std::process::id();
    ceph(&format!("mon add b 127.7.{}.{}:3300", pid / 250 % 250 + 1, pid % 250 + 1));
    let (monmap, keyring) = (path("monmap"), path("mon.keyring"));
    ceph(&format!("mon getmap -o {monmap}"));
    ceph(&format!("auth get mon. -o {keyring}"));
    let start = |more: &[&str]| {
        let mut command = spirula(&["mon", "--id", "b", "--parent", &pid.to_string()]);
        command.args(["--dir", &path("")]).args(more).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut joins = start(&["--monmap", &monmap, "--keyring", &keyring]);
    let in_quorum = |mon: &mut Child| {
        wait_for("the way into the quorum", || {
            assert_eq!(mon.try_wait().unwrap(), None, "the monitor ended early");
            ceph("mon stat").contains("quorum 0,1 a,b")
        });
    };
    in_quorum(&mut joins);
    // It knows from its log alone that it is a monitor.
    joins.kill().unwrap();
    joins.wait().unwrap();
    let mut joins = start(&[]);
    in_quorum(&mut joins);
    ceph("mon rm b");
    wait_for("the end", || joins.try_wait().unwrap().is_some_and(|status| status.success()));
    ceph("osd set noout");
    assert!(ceph("mon stat").contains("quorum 0 a"));
    parent.kill().unwrap();
    parent.wait().unwrap();
}

#[test]
fn a_daemon_without_its_parent_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    // The test is its parent, not process 1.
    let out = spirula(&["mon", "--parent", "1", "--dir"]).arg(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("process 1, which started this one, has ended"), "{text}");
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn broken_pipe() -> Stdio {
    let (_reader, writer) = std::io::pipe().unwrap();
    writer.into()
}

#[test]
fn output_that_is_lost_is_an_error_and_no_panic() {
    let version = || spirula(&["ceph", "--version"]);
    let out = version().stdout(full()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert_eq!(text, "spirula: standard output: No space left on device (os error 28)\n");
    // As `spirula ... | head` ends: quietly.
    let out = version().stdout(broken_pipe()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((out.status.code(), out.stderr.as_slice()), (Some(141), &b""[..]));
}

#[test]
fn an_error_that_cannot_be_told_is_no_panic() {
    for stderr in [full, broken_pipe] {
        let refused = spirula(&["vstart", "--mons", "2"]).stderr(stderr()).status().unwrap();
        assert_eq!(refused.code(), Some(1));
        let mut cluster = spirula(&["vstart", "--osds", "1", "--device-size", "1G", "--", "true"]);
        let done = cluster.stdout(stderr()).stderr(stderr()).status().unwrap();
        assert_eq!(done.code(), Some(0), "what nobody reads is no reason to fail");
    }
}
