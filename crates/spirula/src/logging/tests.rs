//! Events in, files out.

use tracing::{debug, error, info, trace, warn};

use super::*;

struct Log {
    dir: tempfile::TempDir,
    handle: LogHandle,
    _default: tracing::subscriber::DefaultGuard,
    _turn: MutexGuard<'static, ()>,
}

/// Call sites belong to the process: tests that change them take turns.
static TURN: Mutex<()> = Mutex::new(());

impl Log {
    fn new() -> Self {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig {
            dir: dir.path().join("log"),
            fallback: "vstart".into(),
            errors_to_stderr: false,
        };
        let handle = LogHandle::new(config).unwrap();
        let _default = tracing::subscriber::set_default(handle.subscriber());
        Self { dir, handle, _default, _turn }
    }

    fn work_as(&self, name: &str) -> DaemonGuard {
        enter(Some(self.handle.shared.daemon(name)))
    }

    /// The lines of a file without time and thread.
    fn lines(&self, name: &str) -> Vec<String> {
        self.handle.flush();
        let path = self.dir.path().join("log").join(format!("{name}.log"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap_or(line).to_owned()).collect()
    }
}

#[test]
fn each_daemon_has_its_file() {
    let log = Log::new();
    {
        let _osd = log.work_as("osd.0");
        info!(target: "spirula_osd::life", pgs = 3, "up");
        let _inner = log.work_as("osd.1");
        warn!(target: "spirula_msgr", "odd");
    }
    error!(target: "redb", "broken");
    assert_eq!(log.lines("osd.0"), [" 1 osd up pgs=3"]);
    assert_eq!(log.lines("osd.1"), [" 0 ms odd"]);
    assert_eq!(log.lines("vstart"), ["-1 none broken"]);
}

#[test]
fn a_line_has_ceph_s_form() {
    let log = Log::new();
    info!(target: "spirula_osd", "text");
    log.handle.flush();
    let text = std::fs::read_to_string(log.dir.path().join("log/vstart.log")).unwrap();
    let (stamp, rest) = text.split_at(28);
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape.replace('-', "+"), "0000+00+00T00:00:00.000+0000");
    let (thread, rest) = rest[1..].split_once(' ').unwrap();
    assert!(thread.len() == 12 && u64::from_str_radix(thread, 16).is_ok_and(|id| id > 0), "{text}");
    assert_eq!(rest, " 1 osd text\n");
}

#[test]
fn levels_are_per_daemon_and_subsystem_and_change_at_run_time() {
    let log = Log::new();
    let say = |name: &str, text: &str| {
        let _daemon = log.work_as(name);
        trace!(target: "spirula_osd", "osd trace {text}");
        debug!(target: "spirula_osd", "osd debug {text}");
        debug!(target: "spirula_msgr", "ms debug {text}");
    };
    say("osd.0", "before");
    log.handle.apply_options("osd.0", [("debug_osd", "10/10")]);
    say("osd.0", "osd at 10");
    say("osd.1", "other daemon");
    log.handle.apply_options("osd.0", [("debug_osd", "1/5")]);
    log.handle.apply_options("osd.0", [("debug_ms", "20"), ("osd_max_object_size", "20")]);
    say("osd.0", "ms at 20");
    assert_eq!(log.lines("osd.0"), ["10 osd osd debug osd at 10", "10 ms ms debug ms at 20"]);
    assert_eq!(log.lines("osd.1"), [""; 0]);
    // What is no level changes nothing.
    log.handle.apply_options("osd.0", [("debug_ms", "loud"), ("debug_nonsense", "1")]);
    say("osd.0", "still");
    assert_eq!(log.lines("osd.0").len(), 3);
}

#[test]
fn the_most_talkative_of_ceph_s_names_decides() {
    let log = Log::new();
    log.handle.apply_options("osd.0", [("debug_bluestore", "1/5"), ("debug_store", "20")]);
    log.handle.apply_options("osd.1", [("debug_store", "20"), ("debug_bluestore", "1/5")]);
    for name in ["osd.0", "osd.1"] {
        let _daemon = log.work_as(name);
        debug!(target: "spirula_vos", "page");
        assert_eq!(log.lines(name), ["10 store page"]);
    }
}

#[test]
fn a_span_and_a_crate_say_whose_work_it_is() {
    let log = Log::new();
    // Known daemons: one monitor, two OSDs.
    for name in ["mon.a", "osd.0", "osd.1"] {
        log.handle.shared.daemon(name);
    }
    info!(target: "spirula_mon::service", "by crate");
    info!(target: "spirula_osd", "whose?");
    let span = tracing::info_span!("task", daemon = "osd.1");
    span.in_scope(|| {
        tracing::info_span!("inner").in_scope(|| info!(target: "spirula_osd", "by span"))
    });
    assert_eq!(log.lines("mon.a"), [" 1 mon by crate"]);
    assert_eq!(log.lines("osd.1"), [" 1 osd by span"]);
    assert_eq!(log.lines("vstart"), [" 1 osd whose?"]);
}

#[test]
fn reopening_follows_a_rotated_file() {
    let log = Log::new();
    let path = log.dir.path().join("log/vstart.log");
    info!(target: "spirula_osd", "one");
    log.handle.flush();
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    info!(target: "spirula_osd", "two");
    log.handle.flush();
    assert!(!path.exists());
    log.handle.reopen();
    log.handle.flush();
    assert!(path.exists(), "there before the next line");
    info!(target: "spirula_osd", "three");
    assert_eq!(log.lines("vstart"), [" 1 osd three"]);
    let old = std::fs::read_to_string(path.with_extension("old")).unwrap();
    assert_eq!(old.lines().count(), 2);
}

#[test]
fn a_dump_repeats_recent_lines() {
    let log = Log::new();
    info!(target: "spirula_osd", "one");
    let (done, is_done) = std::sync::mpsc::channel();
    log.handle.command("vstart", "log dump", Box::new(move || done.send(()).unwrap()));
    is_done.recv().unwrap();
    let path = log.dir.path().join("log/vstart.log");
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 4, "written when done");
    let lines = log.lines("vstart");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[2].ends_with("osd one"));
}

#[test]
fn a_full_queue_drops_and_says_so() {
    let log = Log::new();
    for i in 0..40_000 {
        info!(target: "spirula_osd", i, "line");
    }
    let waiting = log.handle.shared.queue.dropped();
    let lines = log.lines("vstart");
    let told: u64 = lines
        .iter()
        .filter_map(|l| {
            l.strip_prefix(" 0 none ")?.split_once(" lines were dropped")?.0.parse::<u64>().ok()
        })
        .sum();
    let written = lines.iter().filter(|l| l.contains(" osd line ")).count() as u64;
    assert_eq!(written + told, 40_000, "{waiting} were still to be told of");
}

#[test]
fn a_file_that_cannot_be_written_stops_nobody() {
    let log = Log::new();
    std::fs::create_dir(log.dir.path().join("log/vstart.log")).unwrap();
    info!(target: "spirula_osd", "lost");
    log.handle.flush();
    let _osd = log.work_as("osd.0");
    info!(target: "spirula_osd", "kept");
    assert_eq!(log.lines("osd.0"), [" 1 osd kept"]);
}

#[test]
fn names_are_safe_in_paths() {
    assert_eq!(&*file_name("osd.0"), "osd.0");
    for bad in ["", ".", "..", "../x", "a/b", ".hidden", &"x".repeat(200)] {
        assert_eq!(&*file_name(bad), "other", "{bad}");
    }
}

/// Whether a line of this level would be written.
fn is_on(log: &Log) -> bool {
    let _osd = log.work_as("osd.0");
    tracing::enabled!(target: "spirula_osd", tracing::Level::DEBUG)
}

#[tokio::test]
async fn a_daemon_s_levels_are_followed_as_they_change() {
    let log = Log::new();
    let level = Arc::new(Mutex::new("1/5"));
    let shown = level.clone();
    let admin = crate::admin_socket::FnAdmin(move |_: &str| {
        let out = format!(r#"{{"debug_osd":"{}"}}"#, shown.lock().unwrap());
        crate::admin_socket::AdminReply { code: 0, status: String::new(), out: out.into_bytes() }
    });
    let path = log.dir.path().join("x.asok");
    let bind = crate::admin_socket::AdminSocket::bind_with_log;
    let _socket = bind(&path, "osd.0", Arc::new(admin), &log.handle).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!is_on(&log));
    *level.lock().unwrap() = "10/10";
    log.handle.command("osd.0", LOG_LEVELS, Box::new(|| ()));
    let soon = async {
        while !is_on(&log) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), soon).await.is_ok());
}
