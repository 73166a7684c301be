//! The least that any durable store must do: write in place with O_DIRECT, then flush.
//!
//! Writers share flushes as the store's commits do: one in flight, and everything written meanwhile
//! goes with the next.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Result;
use bytes::Bytes;
use spirula_perf::{Meter, print};
use spirula_xstream::sync::{Notify, OneshotSender, oneshot};
use spirula_xstream::{AlignedBuf, BLOCK, Class, File, OpenOptions, settle, spawn};

use crate::drive::{Plan, drive};
use crate::{Args, Phase};

/// Bytes of zeros written by one request, so that no later write meets a block that was only reserved.
const ZERO_BYTES: u64 = 1 << 20;

struct Bare {
    file: File,
    waiting: RefCell<Vec<OneshotSender<Result<(), io::ErrorKind>>>>,
    wanted: Notify,
}

pub(crate) async fn run(args: Args, path: PathBuf) -> Result<()> {
    let load = args.load.clone();
    let slot = load.size.next_multiple_of(BLOCK) as u64;
    let keys = load.chooser(1);
    let bytes = keys.count() * slot;
    // A block device has its size.
    let size = (!path.exists()).then_some(bytes);
    let options =
        OpenOptions { direct: true, create: true, size, lock: true, ..OpenOptions::default() };
    let file = File::open(&path, &options)?;
    zero(&file, bytes).await?;
    let bare = Rc::new(Bare { file, waiting: RefCell::default(), wanted: Notify::new() });
    let flushes = spawn(Class::Client, bare.clone().run_flushes());
    let mut payload = AlignedBuf::copy_from(&load.payload());
    payload.resize(slot as usize, 0);
    let payload = payload.freeze();

    let mut meter = Meter::start();
    let keys = RefCell::new(keys);
    let plan = Plan { ops: load.ops, depth: load.depth, timed: true };
    let done = drive(&load, plan, move |_| {
        let offset = keys.borrow_mut().next_key() * slot;
        let (bare, payload) = (bare.clone(), payload.clone());
        async move { Ok(bare.write(offset, payload).await?) }
    })
    .await?;
    meter.operations_done();
    let written = done.ops * load.size as u64;
    let mut report = meter.finish(&Phase::Bare.name(), done.ops, &done.latencies, written);
    report.device_bytes = done.ops * slot;
    drop(flushes);
    print(&report, load.json)
}

async fn zero(file: &File, bytes: u64) -> Result<()> {
    let zeros = AlignedBuf::zeroed(ZERO_BYTES as usize).freeze();
    for offset in (0..bytes).step_by(ZERO_BYTES as usize) {
        let len = ZERO_BYTES.min(bytes - offset) as usize;
        file.write_at(offset, vec![zeros.slice(..len)]).await?;
    }
    Ok(file.datasync().await?)
}

impl Bare {
    async fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.file.write_at(offset, vec![data]).await?;
        let (done, flushed) = oneshot();
        self.waiting.borrow_mut().push(done);
        self.wanted.notify_one();
        match flushed.await {
            Ok(result) => result.map_err(io::Error::from),
            Err(_) => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    async fn run_flushes(self: Rc<Self>) {
        loop {
            self.wanted.notified().await;
            // Others whose writes have ended in the same turn come along.
            settle().await;
            let waiting = self.waiting.take();
            if waiting.is_empty() {
                continue;
            }
            let result = self.file.datasync().await;
            for done in waiting {
                // Whoever asked may have gone away.
                let _ = done.send(result.as_ref().map(|_| ()).map_err(io::Error::kind));
            }
        }
    }
}
