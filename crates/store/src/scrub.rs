//! Scrub: reads every page and every extent from the device, in the background, and verifies them.
//!
//! First the extents by the tree, then the pages by the maps. A step reads little and gives way to
//! clients by the time it took. What it read is pinned like any read, so that nothing is reused below it.
//! Invariant: what is reported is damaged. A step that finds something wrong is repeated when everything
//! staged by then is written, and only what is still named and still wrong counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::stream::{self, StreamExt};
use spirula_vos::{
    BLOCK_SIZE, BlockAddr, ContainerId, Damage, Owner, PAGE_SIZE, PageCursor, PageId, PagePlace,
    ScrubExtent, ScrubStep, Vos,
};
use spirula_xstream::{now, sleep, timeout, wall_now, yield_now};

use crate::limits::{
    BUSY_PAUSE, DAMAGE_NOTED_MAX, OWNER_SEARCH_ENTRIES, SCRUB_BLOCKS, SCRUB_PAGES,
    SCRUB_PAUSE_FACTOR, SCRUB_READS_IN_FLIGHT, SCRUB_WAKE_MAX,
};
use crate::read::{Reading, missing, verify};
use crate::{Store, StoreError};

/// Something on the device that is not what was written there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Corruption {
    /// What.
    pub damage: Damage,
    /// Its first block.
    pub addr: BlockAddr,
    /// Bytes of the array that the extent holds: offset and length.
    pub range: Option<(u64, u64)>,
    /// Whose it is, if that could be told.
    pub owner: Option<Owner>,
    /// What the device said, if it could not be read at all.
    pub kind: Option<io::ErrorKind>,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at block {}", self.damage, self.addr.0)?;
        if let Some(kind) = self.kind {
            write!(f, ", which cannot be read: {kind}")?;
        }
        if let Some((offset, len)) = self.range {
            write!(f, ", bytes {offset} to {}", offset + len)?;
        }
        let Some(Owner { cid, object, item }) = &self.owner else {
            return Ok(());
        };
        write!(f, " of {cid:?}")?;
        if let Some(object) = object {
            write!(f, " {object:?}")?;
        }
        if let Some((dkey, akey)) = item {
            write!(f, " dkey {} akey {}", dkey.escape_ascii(), akey.escape_ascii())?;
        }
        Ok(())
    }
}

/// What a scrub came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrubReport {
    /// Pages verified.
    pub pages: u64,
    /// Extents verified.
    pub extents: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was found to be damaged.
    pub errors: u64,
    /// The same by container; `None`: what belongs to no container, or to all of them.
    pub by_container: BTreeMap<Option<ContainerId>, u64>,
    /// The first of them.
    pub found: Vec<Corruption>,
}

/// Whether a scrub runs, and what the last one found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrubStatus {
    /// What the one that runs has found so far.
    pub running: Option<ScrubReport>,
    /// What the last one found, if it ended since the store was opened.
    pub last: Option<ScrubReport>,
    /// When the last one ended, in seconds since 1970, and what it found to be damaged.
    pub scrubbed: (u64, u64),
}

impl ScrubStatus {
    /// What is known to be damaged of a container, or of what belongs to none.
    pub fn errors_of(&self, cid: Option<ContainerId>) -> u64 {
        let of = |report: &Option<ScrubReport>| {
            report.as_ref().and_then(|r| r.by_container.get(&cid).copied()).unwrap_or(0)
        };
        of(&self.last).max(of(&self.running))
    }
}

/// When to scrub.
#[derive(Default)]
pub(crate) struct State {
    status: ScrubStatus,
    interval: Option<Duration>,
    wanted: bool,
    /// Pages known to be damaged, in the scrub that runs.
    bad_pages: BTreeSet<PageId>,
}

impl State {
    pub(crate) fn new(scrubbed: (u64, u64)) -> State {
        State { status: ScrubStatus { scrubbed, ..Default::default() }, ..Default::default() }
    }

    /// A store that was never scrubbed is new: its first one is due after the interval.
    pub(crate) fn start(&mut self, now: Duration) {
        if self.status.scrubbed.0 == 0 {
            self.status.scrubbed.0 = now.as_secs();
        }
    }

    pub(crate) fn scrubbed(&self) -> (u64, u64) {
        self.status.scrubbed
    }

    /// How long until a scrub is due.
    fn wait(&self, now: Duration) -> Duration {
        let (at, errors) = self.status.scrubbed;
        // What was damaged before the store was opened has to be found again.
        let again = errors > 0 && self.status.last.is_none();
        match self.interval {
            _ if self.wanted => Duration::ZERO,
            Some(_) if again => Duration::ZERO,
            Some(interval) => (Duration::from_secs(at) + interval).saturating_sub(now),
            None => Duration::MAX,
        }
    }
}

impl Store {
    /// Scrubs whenever the last scrub ended `interval` ago; `None`: only when asked to.
    pub fn set_scrub_interval(&self, interval: Option<Duration>) {
        self.inner.scrub.borrow_mut().interval = interval;
        self.inner.scrub_wanted.notify_one();
    }

    /// Has a scrub begin now, unless one runs.
    pub fn scrub_later(&self) {
        let mut scrub = self.inner.scrub.borrow_mut();
        scrub.wanted |= scrub.status.running.is_none();
        self.inner.scrub_wanted.notify_one();
    }

    /// What the scrubs came to.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.inner.scrub.borrow().status.clone()
    }

    /// The scrub task.
    pub(crate) async fn run_scrub(self) {
        while self.stopped().is_none() {
            let wait = self.inner.scrub.borrow().wait(wall_now());
            let wanted = self.inner.scrub_wanted.notified();
            match wait {
                Duration::ZERO => {}
                Duration::MAX => {
                    wanted.await;
                    continue;
                }
                _ => {
                    // It may be time, or the wall clock may have been set.
                    let _ = timeout(wait.min(SCRUB_WAKE_MAX), wanted).await;
                    continue;
                }
            }
            if let Err(e) = self.scrub().await
                && self.stopped().is_none()
            {
                self.inner.scrub.borrow_mut().status.running = None;
                let device = self.inner.device.path().display();
                tracing::error!(%device, "the scrub ended early: {e}");
                sleep(SCRUB_WAKE_MAX).await;
            }
        }
    }

    /// Reads and verifies everything. Only one scrub runs at a time.
    pub async fn scrub(&self) -> Result<ScrubReport, StoreError> {
        {
            let mut scrub = self.inner.scrub.borrow_mut();
            scrub.wanted = false;
            scrub.status.running = Some(ScrubReport::default());
            scrub.bad_pages.clear();
        }
        let mut from = Some(Bytes::new());
        while let Some(at) = from {
            let began = now();
            from = self.scrub_extents(&at).await?;
            self.scrub_pause(began).await?;
        }
        let mut cursor = PageCursor::default();
        loop {
            let began = now();
            if !self.scrub_pages(&mut cursor).await? {
                break;
            }
            self.scrub_pause(began).await?;
        }
        let mut scrub = self.inner.scrub.borrow_mut();
        let report = scrub.status.running.take().unwrap_or_default();
        scrub.status.scrubbed = (wall_now().as_secs(), report.errors);
        scrub.status.last = Some(report.clone());
        drop(scrub);
        self.count(|c| c.scrubs += 1);
        // The time is kept with the next root.
        self.inner.checkpoint_wanted.notify_one();
        Ok(report)
    }

    /// One step of the walk over the extents; where the next one begins.
    async fn scrub_extents(&self, from: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let mut suspects: Vec<ScrubExtent> = Vec::new();
        loop {
            let (step, reading) = match self.scrub_step(from).await? {
                Ok(found) => found,
                Err(next) => return Ok(next),
            };
            let all = suspects.is_empty();
            let wanted = step.extents.iter().filter(|e| all || suspects.contains(e));
            let wanted: Vec<&ScrubExtent> = wanted.collect();
            let bad = self.verify_extents(&wanted).await;
            drop(reading);
            if all {
                let blocks: u64 = step.extents.iter().map(|e| e.extent.block_count()).sum();
                self.note(|report| {
                    report.extents += step.extents.len() as u64;
                    report.bytes += blocks * BLOCK_SIZE;
                });
            }
            if bad.is_empty() {
                return Ok(step.next);
            }
            if !all {
                for (i, (addr, kind)) in bad {
                    self.report_extent(wanted[i], addr, kind).await?;
                }
                return Ok(step.next);
            }
            suspects = bad.iter().map(|(i, _)| wanted[*i].clone()).collect();
            self.staged_is_written().await?;
        }
    }

    /// What the step from `from` looks at, pinned; or where to go on, because it cannot be told.
    async fn scrub_step(
        &self,
        from: &Bytes,
    ) -> Result<Result<(ScrubStep, Reading), Option<Bytes>>, StoreError> {
        loop {
            let step = self.try_read(|vos| vos.scrub_extents(from, SCRUB_BLOCKS));
            let pages = match step {
                Ok(step) => return Ok(Ok((step, self.begin_read()))),
                Err(e) => missing(e)?,
            };
            self.inner.vos.borrow_mut().evict();
            for page in pages {
                let kind = match self.load_more(vec![page]).await {
                    Ok(()) => continue,
                    Err(StoreError::Damaged(_)) => None,
                    Err(StoreError::Read { kind, .. }) => Some(kind),
                    Err(e) => return Err(e),
                };
                let next = self.try_read(|vos| vos.scrub_after(from, page));
                let addr = self.inner.vos.borrow().location(page);
                if let (Ok(next), Some(addr)) = (next, addr) {
                    let search = self.inner.vos.borrow().scrub_owner_near(from);
                    let owner = self.find_owner(search).await?;
                    let damage = Damage::Page { page };
                    self.inner.scrub.borrow_mut().bad_pages.insert(page);
                    self.report(Corruption { damage, addr, range: None, owner, kind });
                    return Ok(Err(next));
                }
            }
        }
    }

    /// Which of the extents are not what was written, with the block and what the device said.
    async fn verify_extents(
        &self,
        extents: &[&ScrubExtent],
    ) -> Vec<(usize, (BlockAddr, Option<io::ErrorKind>))> {
        let reads = extents.iter().enumerate().map(async |(i, found)| {
            let extent = &found.extent;
            let len = (extent.block_count() * BLOCK_SIZE) as usize;
            match self.inner.device.read(extent.addr.byte_offset(), len).await {
                Ok(bytes) => match verify(extent, &bytes) {
                    Err(Damage::Data { addr }) => Some((i, (addr, None))),
                    Err(_) => Some((i, (extent.addr, None))),
                    Ok(()) => None,
                },
                Err(e) => Some((i, (extent.addr, Some(e.kind())))),
            }
        });
        stream::iter(reads).buffered(SCRUB_READS_IN_FLIGHT).filter_map(ready).collect().await
    }

    async fn report_extent(
        &self,
        found: &ScrubExtent,
        addr: BlockAddr,
        kind: Option<io::ErrorKind>,
    ) -> Result<(), StoreError> {
        let search = self.inner.vos.borrow().scrub_owner(found);
        let owner = self.find_owner(search).await?;
        let range = Some((found.extent.offset, u64::from(found.extent.len)));
        self.report(Corruption { damage: Damage::Data { addr }, addr, range, owner, kind });
        Ok(())
    }

    /// Goes on with a search until it answers; damage on its way ends it without an answer.
    async fn find_owner(
        &self,
        search: Result<Option<Owner>, spirula_vos::OwnerSearch>,
    ) -> Result<Option<Owner>, StoreError> {
        let mut search = match search {
            Ok(owner) => return Ok(owner),
            Err(search) => search,
        };
        loop {
            let began = now();
            let look = |vos: &Vos| vos.search_owner(&mut search, OWNER_SEARCH_ENTRIES);
            match self.read(look).await {
                Ok(Some(owner)) => return Ok(owner),
                Ok(None) => self.scrub_pause(began).await?,
                Err(StoreError::Damaged(_) | StoreError::Read { .. }) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until the data of everything staged so far is written.
    async fn staged_is_written(&self) -> Result<(), StoreError> {
        let seq = self.inner.vos.borrow().seq();
        self.wait_for_data(seq).await
    }

    /// One step of the walk over the pages; false when all are done.
    async fn scrub_pages(&self, cursor: &mut PageCursor) -> Result<bool, StoreError> {
        let (places, reading) = loop {
            let notified = self.inner.progress.notified();
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            // Places given out by a checkpoint under way have not been written.
            let (begun, finished) = self.inner.commit.borrow().checkpoints;
            if begun == finished {
                let places = self.inner.vos.borrow().scrub_pages(cursor, SCRUB_PAGES);
                break (places, self.begin_read());
            }
            notified.await;
        };
        let reads = places.iter().map(async |place: &PagePlace| {
            let read = self.inner.device.read(place.addr.byte_offset(), PAGE_SIZE).await;
            match read {
                Ok(bytes) if place.is_intact(&bytes) => None,
                Ok(_) => Some((place, None)),
                Err(e) => Some((place, Some(e.kind()))),
            }
        });
        let bad = stream::iter(reads).buffered(SCRUB_READS_IN_FLIGHT);
        let bad: Vec<_> = bad.filter_map(ready).collect().await;
        drop(reading);
        for (place, kind) in bad {
            let known = |page| self.inner.scrub.borrow().bad_pages.contains(&page);
            if place.tree_page().is_some_and(known) {
                continue;
            }
            let (damage, addr) = (place.damage(), place.addr);
            self.report(Corruption { damage, addr, range: None, owner: None, kind });
        }
        self.note(|report| {
            report.pages += places.len() as u64;
            report.bytes += (places.len() * PAGE_SIZE) as u64;
        });
        Ok(!places.is_empty())
    }

    fn report(&self, corruption: Corruption) {
        tracing::error!(device = %self.inner.device.path().display(), "scrub: {corruption}");
        self.count(|c| c.scrub_errors += 1);
        self.note(|report| {
            report.errors += 1;
            let cid = corruption.owner.as_ref().map(|o| o.cid);
            *report.by_container.entry(cid).or_default() += 1;
            if report.found.len() < DAMAGE_NOTED_MAX {
                report.found.push(corruption);
            }
        });
    }

    fn note(&self, f: impl FnOnce(&mut ScrubReport)) {
        let mut scrub = self.inner.scrub.borrow_mut();
        let Some(report) = &mut scrub.status.running else { return };
        let before = report.bytes;
        f(report);
        let read = report.bytes - before;
        drop(scrub);
        self.count(|c| c.scrub_bytes += read);
    }

    /// Lets clients have most of the device's time.
    async fn scrub_pause(&self, began: Duration) -> Result<(), StoreError> {
        match self.is_busy() {
            true => sleep(BUSY_PAUSE.max((now() - began) * SCRUB_PAUSE_FACTOR)).await,
            false => yield_now().await,
        }
        self.stopped().map_or(Ok(()), Err)
    }
}
