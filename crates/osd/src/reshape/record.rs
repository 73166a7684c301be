//! The PG's own records, as a split or merge takes and leaves them.

use bytes::Bytes;
use spirula_maps::SnapIntervals;
use spirula_store::Store;
use spirula_vos::{ContainerId, Keys, Tx, Vos};
use spirula_wire::types::EVersion;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::apply::{container_pg, meta_object};
use crate::object::{AKEY, dkey};
use crate::pg::PgState;
use crate::pg::log::{DupRecord, LogEntry, decode_batch};
use crate::route::all_values;
use crate::snap::trim::decode_purged;
use crate::stats::StatSum;
use crate::target::TargetError;

const F: Features = Features::PACIFIC;
const BASE_VERSION: u8 = 1;
/// dkeys listed at a time.
const BATCH: usize = 256;

/// What a PG continues from after a split or merge, instead of its last log entry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Base {
    pub last_update: EVersion,
    pub last_user_version: u64,
    /// Of the newest transaction.
    pub epoch: u64,
    pub stats: StatSum,
    /// The counters are no guess.
    pub counted: bool,
}

impl Base {
    /// Of a PG as it is.
    pub fn of(
        (last_update, last_user_version): (EVersion, u64),
        state: &PgState,
        counted: bool,
    ) -> Self {
        Self {
            last_update,
            last_user_version,
            epoch: state.last_epoch,
            stats: state.stats,
            counted,
        }
    }

    pub fn store(&self, tx: &mut Tx, cid: ContainerId) {
        tx.update(cid, &meta_object(cid), dkey::BASE, AKEY, self.to_bytes(F).into());
    }
}

impl Encode for Base {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.extend([BASE_VERSION, u8::from(self.counted)]);
        self.last_update.encode(out, f);
        self.last_user_version.encode(out, f);
        self.epoch.encode(out, f);
        self.stats.encode(out, f);
    }
}

impl Decode for Base {
    const MIN_SIZE: usize = 102;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        if version != BASE_VERSION {
            let what = "version of a PG's base";
            return Err(DecodeError::Invalid { what, value: version.into() });
        }
        Ok(Self {
            counted: r.u8()? != 0,
            last_update: EVersion::decode(r)?,
            last_user_version: r.u64()?,
            epoch: r.u64()?,
            stats: StatSum::decode(r)?,
        })
    }
}

/// All of a PG's own records.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) base: Base,
    /// With their akeys.
    pub(super) log: Vec<(Bytes, LogEntry)>,
    /// Batches of duplicates, with their akeys.
    pub(super) dups: Vec<(Bytes, Bytes)>,
    pub(super) purged: SnapIntervals,
    /// dkeys and akeys of the index of snapshots.
    pub(super) index: Vec<(Bytes, Bytes)>,
}

impl Records {
    pub(super) async fn load(store: &Store, cid: ContainerId) -> Result<Self, TargetError> {
        let corrupt = |_: DecodeError| TargetError::BadPgRecord(container_pg(cid));
        let mut found =
            Self { dups: all_values(store, cid, dkey::DUPS, None).await?, ..Self::default() };
        for (key, raw) in all_values(store, cid, dkey::LOG, None).await? {
            found.log.push((key, LogEntry::from_bytes(&raw).map_err(corrupt)?));
        }
        let (meta, purged, base) = (meta_object(cid), dkey::PURGED, dkey::BASE);
        if let Some(raw) = store.read(|vos: &Vos| vos.fetch(cid, &meta, purged, AKEY)).await? {
            found.purged = decode_purged(&raw).map_err(corrupt)?;
        }
        if let Some(raw) = store.read(|vos: &Vos| vos.fetch(cid, &meta, base, AKEY)).await? {
            found.base = Base::from_bytes(&raw).map_err(corrupt)?;
        }
        if let Some((_, last)) =
            found.log.last().filter(|(_, e)| e.version > found.base.last_update)
        {
            found.base = Base {
                last_update: last.version,
                last_user_version: last.last_user_version,
                epoch: last.epoch.max(found.base.epoch),
                stats: last.stats,
                counted: true,
            };
        }
        found.index = snap_index(store, cid).await?;
        Ok(found)
    }

    /// What answers repetitions, of log and duplicates.
    pub(super) fn all_dups(&self, cid: ContainerId) -> Result<Vec<DupRecord>, TargetError> {
        let mut all = Vec::new();
        for (_, raw) in &self.dups {
            let corrupt = |_: DecodeError| TargetError::BadPgRecord(container_pg(cid));
            all.extend(decode_batch(raw).map_err(corrupt)?);
        }
        all.extend(self.log.iter().map(|(_, entry)| entry.dup.clone()));
        Ok(all)
    }
}

/// The index of snapshots: dkeys and akeys.
pub async fn snap_index(
    store: &Store,
    cid: ContainerId,
) -> Result<Vec<(Bytes, Bytes)>, TargetError> {
    let (meta, mut out) = (meta_object(cid), Vec::new());
    let mut keys = Keys { from: Bytes::from_static(b"s"), to: Some("t".into()), ..Keys::default() };
    loop {
        let dkeys =
            store.read(|vos: &Vos| vos.at(u64::MAX).dkeys(cid, &meta, &keys, BATCH)).await?;
        for dkey in &dkeys {
            let entries = all_values(store, cid, dkey, None).await?;
            out.extend(entries.into_iter().map(|(akey, _)| (dkey.clone(), akey)));
        }
        match dkeys.last().filter(|_| dkeys.len() == BATCH) {
            Some(last) => keys.from = [&last[..], &[0]].concat().into(),
            None => return Ok(out),
        }
    }
}
