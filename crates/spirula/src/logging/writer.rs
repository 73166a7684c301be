//! The thread that writes log files.
//!
//! Invariants: whoever logs never waits: a full queue drops the line and counts it; a file that
//! cannot be opened or written loses lines and is tried again, and the daemons go on.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use time::UtcOffset;

use super::line::notice;
use crate::print::complain;

pub(crate) const THREAD_NAME: &str = "log";

/// Lines that wait for the disk.
const QUEUE_LINES_MAX: usize = 8192;
/// Lines of one file that are written with one call.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Lines of each file that are kept for `log dump`.
const RECENT_LINES_MAX: usize = 500;
/// How long a file that could not be opened is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Which file a line belongs to: the daemon's name.
pub(crate) type FileName = Arc<str>;

pub(crate) enum Job {
    Line(FileName, String),
    /// Called back when it is done and everything sent before is in the files.
    Act(Act, FileName, Done),
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Flush,
    /// Later lines go to files that are opened anew, by their names.
    Reopen,
    /// Writes the recent lines of the file again, between markers.
    Dump,
}

pub(crate) type Done = Box<dyn FnOnce() + Send>;

/// The sending side.
#[derive(Debug)]
pub(crate) struct Queue {
    jobs: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Queues a line, or drops it when too many wait.
    pub(crate) fn line(&self, file: FileName, text: String) {
        match self.jobs.try_send(Job::Line(file, text)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Queues something else than a line, and waits for its place if need be.
    pub(crate) fn send(&self, job: Job) {
        // The thread ends only after `Stop`; there is nobody to tell then.
        let _ = self.jobs.send(job);
    }

    /// Queues something else than a line without waiting for its place.
    pub(crate) fn send_soon(&self, job: Job) {
        if let Err(TrySendError::Full(job)) = self.jobs.try_send(job) {
            let jobs = self.jobs.clone();
            // Without a thread nobody is called back, as if the disk did not answer.
            let _ = std::thread::Builder::new().spawn(move || jobs.send(job));
        }
    }

    /// Lines dropped that no file tells of yet.
    #[cfg(test)]
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Starts the thread, which writes to `NAME.log` in `dir`; lost lines are told of in `fallback`.
pub(crate) fn start(
    dir: PathBuf,
    offset: UtcOffset,
    fallback: FileName,
) -> io::Result<(Queue, JoinHandle<()>)> {
    let (jobs, queue) = sync_channel(QUEUE_LINES_MAX);
    let dropped = Arc::<AtomicU64>::default();
    let writer = Writer {
        dir,
        offset,
        fallback,
        dropped: dropped.clone(),
        files: HashMap::new(),
        complained: false,
    };
    let thread =
        std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || writer.run(&queue))?;
    Ok((Queue { jobs, dropped }, thread))
}

struct Writer {
    dir: PathBuf,
    offset: UtcOffset,
    fallback: FileName,
    dropped: Arc<AtomicU64>,
    files: HashMap<FileName, LogFile>,
    /// Standard error was told once that a file cannot be written.
    complained: bool,
}

#[derive(Default)]
struct LogFile {
    file: Option<File>,
    /// No attempt to open it before this.
    not_before: Option<Instant>,
    pending: String,
    recent: VecDeque<String>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        // Blocks while there is nothing to do; then takes all there is, and writes it.
        while let Ok(first) = queue.recv() {
            let mut waiting = Vec::new();
            let mut go_on = self.take(first, &mut waiting);
            for job in queue.try_iter().take(QUEUE_LINES_MAX) {
                go_on &= self.take(job, &mut waiting);
            }
            self.tell_of_dropped();
            self.write_all();
            waiting.into_iter().for_each(|done| done());
            if !go_on {
                return;
            }
        }
    }

    /// Whether to go on.
    fn take(&mut self, job: Job, waiting: &mut Vec<Done>) -> bool {
        match job {
            Job::Line(name, text) => self.add(name, text),
            Job::Act(act, name, done) => {
                match act {
                    Act::Flush => {}
                    Act::Reopen => self.reopen(),
                    Act::Dump => self.dump(name),
                }
                waiting.push(done);
            }
            Job::Stop => return false,
        }
        true
    }

    /// The new files are there at once, as those who move the old ones expect.
    fn reopen(&mut self) {
        self.write_all();
        self.complained = false;
        for file in self.files.values_mut() {
            (file.file, file.not_before) = (None, None);
        }
        let names: Vec<FileName> = self.files.keys().cloned().collect();
        names.iter().for_each(|name| self.write(name));
    }

    fn add(&mut self, name: FileName, text: String) {
        let file = self.files.entry(name.clone()).or_default();
        file.pending.push_str(&text);
        if file.recent.len() == RECENT_LINES_MAX {
            file.recent.pop_front();
        }
        file.recent.push_back(text);
        if file.pending.len() >= BATCH_BYTES_MAX {
            self.write(&name);
        }
    }

    fn dump(&mut self, name: FileName) {
        let file = self.files.entry(name).or_default();
        file.pending.push_str("--- begin dump of recent events ---\n");
        for (i, text) in file.recent.iter().enumerate() {
            file.pending.push_str(&format!("{:>6}> {text}", i as i64 - file.recent.len() as i64));
        }
        file.pending.push_str("--- end dump of recent events ---\n");
    }

    fn tell_of_dropped(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text = format!(
                "{dropped} lines were dropped: they came faster than they could be written"
            );
            self.add(self.fallback.clone(), notice(self.offset, 0, "none", &text));
        }
    }

    fn write_all(&mut self) {
        let names: Vec<FileName> = self
            .files
            .iter()
            .filter(|(_, f)| !f.pending.is_empty())
            .map(|(n, _)| n.clone())
            .collect();
        names.iter().for_each(|name| self.write(name));
    }

    fn write(&mut self, name: &FileName) {
        let Some(file) = self.files.get_mut(name) else {
            return;
        };
        let path = self.dir.join(format!("{name}.log"));
        let outcome = file.open(&path).and_then(|()| match &mut file.file {
            Some(out) => out.write_all(file.pending.as_bytes()),
            None => Ok(()),
        });
        file.pending.clear();
        if let Err(e) = outcome {
            (file.file, file.not_before) = (None, Some(Instant::now() + RETRY_AFTER));
            if !std::mem::replace(&mut self.complained, true) {
                complain!(
                    "spirula: log file {}: {e}; lines are lost until it can be written",
                    path.display()
                );
            }
        }
    }
}

impl LogFile {
    /// Opens the file, unless it is left alone after a failure.
    fn open(&mut self, path: &Path) -> io::Result<()> {
        if self.file.is_none() && self.not_before.is_none_or(|t| Instant::now() >= t) {
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        Ok(())
    }
}
