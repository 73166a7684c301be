//! The offline check of a store: every checksum, every reference, and that the space adds up.

use spirula_bio::Devices;
use spirula_vos::{BLOCK_SIZE, CheckError, CheckSummary, Checker, Damage, Extent, ReadError};

use crate::limits::DAMAGE_NOTED_MAX;
use crate::{Offline, OpenError, Store, StoreError};

/// What was found to be wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// One of the two copies of the superblock; the other one is intact.
    #[error("copy {copy} of the superblock is damaged")]
    Superblock {
        /// Which, from 0.
        copy: usize,
    },
    /// The metadata is sound, but data blocks are not what was written.
    #[error("{} damaged data extents, the first: {}", .0.damaged, .0.damage[0])]
    Data(CheckReport),
    /// A page or data block cannot be read, or a page is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pages contradict each other.
    #[error(transparent)]
    Structure(#[from] CheckError),
}

/// What a check counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Pages, entries, extents.
    pub summary: CheckSummary,
    /// Bytes of data whose checksums were verified.
    pub data_bytes: u64,
    /// Extents with data that is not what was written.
    pub damaged: u64,
    /// The first of them.
    pub damage: Vec<Damage>,
}

impl CheckReport {
    fn note(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.damage.len() < DAMAGE_NOTED_MAX {
            self.damage.push(damage);
        }
    }
}

/// Checks the store of a device, with what its WAL holds, and writes nothing.
pub async fn check(devices: impl Into<Devices>) -> Result<CheckReport, CheckFailure> {
    Offline::open(devices).await?.check().await
}

impl Store {
    /// Checks the whole store. Nothing may be submitted meanwhile.
    pub async fn check(&self) -> Result<CheckReport, CheckFailure> {
        self.quiesce().await?;
        // Afterwards nothing changes by itself.
        self.collect_all().await?;
        self.checkpoint().await?;
        self.walk().await
    }

    /// Checks what is there now, which must not change meanwhile.
    pub(crate) async fn walk(&self) -> Result<CheckReport, CheckFailure> {
        let mut report = CheckReport::default();
        let mut checker = Checker::new(&self.inner.vos.borrow());
        loop {
            let step = checker.step(&self.inner.vos.borrow());
            match step {
                Ok(true) => self.inner.vos.borrow_mut().evict(),
                Ok(false) => break,
                Err(CheckError::Read(ReadError::Missing(pages))) => self.load_more(pages).await?,
                Err(e) => return Err(e.into()),
            }
            for extent in checker.take_extents() {
                report.data_bytes += extent.block_count() * BLOCK_SIZE;
                match self.read_data(&[Extent::Device(extent)]).await {
                    Err(StoreError::Damaged(damage)) => report.note(damage),
                    other => drop(other?),
                }
            }
        }
        report.summary = checker.finish(&self.inner.vos.borrow())?;
        match report.damage.is_empty() {
            true => Ok(report),
            false => Err(CheckFailure::Data(report)),
        }
    }
}
