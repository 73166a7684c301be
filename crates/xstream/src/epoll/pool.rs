//! Threads that do file I/O for the epoll back end.
//!
//! A job owns its buffers, so nothing is freed while a thread uses it. Threads start when jobs wait
//! and none is free, up to a bound, and end with the back end, after the jobs they were given.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::buf::AlignedBuf;
use crate::driver::{Gather, Key, Op, Output, Raw};
use crate::limits::{FILE_THREADS_MAX, IO_BYTES_MAX};
use crate::runtime::Shared;
use crate::sys;

pub(super) struct Pool {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
}

/// What the xstream and the threads share.
struct Work {
    state: Mutex<State>,
    changed: Condvar,
    results: Mutex<Vec<(Key, Output)>>,
    xstream: Arc<Shared>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Key, Op)>,
    idle: usize,
    ending: bool,
}

impl Pool {
    pub(super) fn new(xstream: Arc<Shared>) -> Pool {
        let work = Work {
            state: Mutex::default(),
            changed: Condvar::new(),
            results: Mutex::default(),
            xstream,
        };
        Pool { work: Arc::new(work), threads: Vec::new() }
    }

    pub(super) fn submit(&mut self, key: Key, op: Op) {
        let mut state = lock(&self.work.state);
        state.jobs.push_back((key, op));
        let short = state.jobs.len() > state.idle && self.threads.len() < FILE_THREADS_MAX;
        drop(state);
        if short && let Err(error) = self.start_thread() {
            // Without any thread the work is done here; with some, it waits for them.
            if self.threads.is_empty() {
                tracing::warn!("no thread for file I/O, blocking instead: {error}");
                self.work.run_queued();
            }
        }
        self.work.changed.notify_one();
    }

    /// Takes the outcomes of finished jobs.
    pub(super) fn collect(&self, done: &mut Vec<(Key, Output)>) {
        done.append(&mut lock(&self.work.results));
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let work = self.work.clone();
        let name = format!("file-io-{}", self.threads.len());
        self.threads.push(thread::Builder::new().name(name).spawn(move || work.serve())?);
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.work.state).ending = true;
        self.work.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Work {
    /// A thread's life.
    fn serve(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some((key, op)) = state.jobs.pop_front() {
                drop(state);
                self.finish(key, perform(op));
                state = lock(&self.state);
            } else if state.ending {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn run_queued(&self) {
        loop {
            let job = lock(&self.state).jobs.pop_front();
            let Some((key, op)) = job else { return };
            self.finish(key, perform(op));
        }
    }

    fn finish(&self, key: Key, output: Output) {
        lock(&self.results).push((key, output));
        self.xstream.notify();
    }
}

/// No code that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does a file operation on the calling thread. The xstream keeps the file open meanwhile.
fn perform(op: Op) -> Output {
    match op {
        Op::Read { file, offset, buf, len } => read(file, offset, buf, len),
        Op::Write { file, offset, bufs } => Output::Done(write(file, offset, bufs)),
        Op::Datasync { file } => Output::Done(sys::borrow_file(file).sync_data()),
        Op::Allocate { file, offset, len, kind } => {
            Output::Done(sys::allocate(file, offset, len, kind))
        }
        _ => unreachable!("not a file operation"),
    }
}

fn read(file: Raw, offset: u64, mut buf: AlignedBuf, len: usize) -> Output {
    let file = sys::borrow_file(file);
    let mut at = 0;
    let result = loop {
        if at == len {
            break Ok(at);
        }
        let stop = len.min(at + IO_BYTES_MAX);
        match file.read_at(buf.range(at, stop), offset + at as u64) {
            Ok(0) => break Ok(at),
            Ok(got) => at += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    buf.set_len(at);
    Output::Read(result, buf)
}

fn write(file: Raw, mut offset: u64, mut bufs: Gather) -> io::Result<()> {
    let mut iovecs = Vec::new();
    while bufs.remaining() > 0 {
        match sys::write_vectored(file, offset, bufs.pieces(), &mut iovecs) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                offset += len as u64;
                bufs.advance(len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
