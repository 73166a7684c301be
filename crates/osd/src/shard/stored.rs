//! What is stored of a shard beside its objects, and how it is found again.
//!
//! The log is one record per entry and one per batch of the duplicate table, written with the
//! transactions that they describe. What peering knows is a record of its own ([`Record`]), written when
//! the machine asks for it; entries that are newer than it lead on from it. An object counts as missing
//! only if the store does not have it as it should be, so that recovery need not write the missing set.

use bytes::Bytes;
use spirula_maps::SnapIntervals;
use spirula_pg::merge::Rewind;
use spirula_pg::{Missing, PgLog, Stored};
use spirula_store::Store;
use spirula_vos::{ContainerId, ObjectKey, ReadError, Tx, Vos};
use spirula_wire::types::{
    EVersion, HObject, PastIntervals, PgHistory, PgInfo, PgLogMsg, PgMissing, SnapId, SpgId,
};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use super::Shard;
use crate::apply::{create_container, meta_object, peering_object};
use crate::copies::stored_version;
use crate::object::{AKEY, MISSING, dkey};
use crate::pg::PgState;
use crate::pg::batches::{Batches, encode_batch};
use crate::pg::log::wire::{entry_key, entry_object};
use crate::pg::log::{DupRecord, LogEntry, decode_batch, version_key};
use crate::reshape::Base;
use crate::route::all_values;
use crate::snap::trim::decode_purged;
use crate::stats::StatSum;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;
const RECORD_VERSION: u8 = 1;
/// Duplicates in one stored batch.
const BATCH_LEN: usize = 250;

/// What peering knows, as it is stored.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Record {
    /// Of the map when it was stored.
    pub map_epoch: u32,
    /// Of the newest transaction of a primary, and of this record.
    pub store_epoch: u64,
    pub own_epoch: u64,
    pub info: PgInfo,
    pub past: PastIntervals,
}

impl Encode for Record {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.push(RECORD_VERSION);
        self.map_epoch.encode(out, f);
        self.store_epoch.encode(out, f);
        self.own_epoch.encode(out, f);
        self.info.encode(out, f);
        self.past.encode(out, f);
    }
}

impl Decode for Record {
    const MIN_SIZE: usize = 100;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        if version != RECORD_VERSION {
            let what = "version of a peering record";
            return Err(DecodeError::Invalid { what, value: version.into() });
        }
        Ok(Self {
            map_epoch: r.u32()?,
            store_epoch: r.u64()?,
            own_epoch: r.u64()?,
            info: PgInfo::decode(r)?,
            past: PastIntervals::decode(r)?,
        })
    }
}

// --- writing

/// The transaction that stores what the machine knows; with `log` also its log and missing set.
pub fn persist(target: &Target, shard: &Shard, log: bool) -> Tx {
    let mut tx = begin(target, shard, &shard.state.borrow());
    record(&mut tx, shard, log);
    tx
}

/// Adds what the machine knows to a transaction of this copy's own.
pub(super) fn record(tx: &mut Tx, shard: &Shard, log: bool) {
    let machine = shard.machine.borrow();
    let mut state = shard.state.borrow_mut();
    state.record_epoch = tx.epoch;
    if log || !shard.rewinds.borrow().is_empty() {
        state.last_epoch = tx.epoch;
    }
    shard.rewinds.borrow().iter().for_each(|undone| rewind(tx, shard.cid, undone));
    let (cid, meta) = (shard.cid, peering_object(shard.cid));
    let mut info = machine.info().clone();
    info.stats.stats_invalid = !state.counted;
    let record = Record {
        map_epoch: machine.map().epoch,
        store_epoch: state.last_epoch,
        own_epoch: state.record_epoch,
        info,
        past: machine.past_intervals().clone(),
    };
    tx.update(cid, &meta, dkey::PEERING, AKEY, record.to_bytes(F).into());
    if log || state.missing_stored {
        let missing = machine.missing().to_wire();
        tx.update(cid, &meta, dkey::PEERING, MISSING, missing.to_bytes(F).into());
        state.missing_stored = !machine.missing().is_empty();
    }
    if log {
        rewrite_log(tx, cid, machine.log(), &mut state);
    }
}

/// The next transaction of this copy's own; with it the container exists.
fn begin(target: &Target, shard: &Shard, state: &PgState) -> Tx {
    let mut tx = Tx::new(state.own_epoch());
    tx.use_reserve();
    if !state.stored {
        let map = target.map();
        let pg_num = map.pool(shard.pgid.pgid.pool).map_or(1, |pool| pool.pg_num);
        create_container(&mut tx, shard.cid, pg_num);
    }
    tx
}

fn rewrite_log(tx: &mut Tx, cid: ContainerId, log: &PgLog, state: &mut PgState) {
    let meta = meta_object(cid);
    tx.punch_dkey(cid, &meta, dkey::LOG);
    tx.punch_dkey(cid, &meta, dkey::DUPS);
    state.batches = Batches::default();
    let dups: Vec<DupRecord> = log.dups().cloned().map(DupRecord::from).collect();
    for batch in dups.chunks(BATCH_LEN) {
        let Some(last) = batch.last().map(|dup| dup.version) else {
            continue;
        };
        tx.update(cid, &meta, dkey::DUPS, &version_key(last), encode_batch(batch));
        state.batches.loaded(last, batch.len());
    }
    let mut last_user = 0;
    for entry in log.entries() {
        last_user = entry.user_version.max(last_user);
        let key = key_of(cid, &entry.object);
        let record = LogEntry::from_wire(entry, key, state.stats, last_user);
        let raw = record.to_bytes(F);
        tx.update(cid, &meta, dkey::LOG, &version_key(entry.version), raw.into());
    }
}

/// The key of an object; entries of the PG itself have that of its records.
pub fn key_of(cid: ContainerId, object: &HObject) -> Bytes {
    entry_key(object, &meta_object(cid).0)
}

/// Undoes divergent entries: their objects are fetched anew, those that they made are removed.
fn rewind(tx: &mut Tx, cid: ContainerId, undone: &Rewind) {
    for object in &undone.objects {
        tx.punch_object(cid, &ObjectKey(key_of(cid, object)));
    }
}

// --- reading

/// A shard as it was found.
pub struct Found {
    pub stored: Stored,
    pub state: PgState,
    /// The map that it is to be shown next is of the epoch after.
    pub map_epoch: u32,
    /// What peering knew is stored; a split or merge of a single copy takes it away.
    pub known: bool,
}

/// Reads what is stored of a PG; `None` if there is nothing.
pub async fn load(
    store: &Store,
    pgid: SpgId,
    cid: ContainerId,
    limits: spirula_pg::LogLimits,
) -> Result<Option<Found>, TargetError> {
    if !store.read(|vos| -> Result<_, ReadError> { Ok(vos.container_exists(cid)) }).await? {
        return Ok(None);
    }
    let corrupt = |_: DecodeError| TargetError::BadPgRecord(pgid);
    let mut state = PgState { stored: true, ..PgState::default() };
    let mut msg = PgLogMsg::default();
    for (_, raw) in all_values(store, cid, dkey::DUPS, None).await? {
        let batch = decode_batch(&raw).map_err(corrupt)?;
        if let Some(last) = batch.last() {
            state.batches.loaded(last.version, batch.len());
            msg.tail = last.version;
        }
        msg.dups.extend(batch.into_iter().map(Into::into));
    }
    let entries = read_log(store, cid, pgid, &mut state, &mut msg).await?;
    let own = |dkey: &'static [u8]| move |vos: &Vos| vos.fetch(cid, &meta_object(cid), dkey, AKEY);
    let known = |akey: &'static [u8]| {
        move |vos: &Vos| vos.fetch(cid, &peering_object(cid), dkey::PEERING, akey)
    };
    if let Some(raw) = store.read(own(dkey::PURGED)).await? {
        state.purged = decode_purged(&raw).map_err(corrupt)?;
    }
    let base = match store.read(own(dkey::BASE)).await? {
        Some(raw) => Base::from_bytes(&raw).map_err(corrupt)?,
        None => Base { counted: true, ..Base::default() },
    };
    let record = match store.read(known(AKEY)).await? {
        Some(raw) => Some(Record::from_bytes(&raw).map_err(corrupt)?),
        None => None,
    };
    state.missing_stored = true;
    let missing = match store.read(known(MISSING)).await? {
        Some(raw) => Missing::from(PgMissing::from_bytes(&raw).map_err(corrupt)?),
        None => Missing::default(),
    };
    let mut found = join(pgid, limits, state, msg, entries, (base, record));
    found.stored.missing = still_missing(store, cid, missing, &found.stored.log).await?;
    Ok(Some(found))
}

/// What the stored entries lead to.
#[derive(Clone, Copy, Default)]
struct Newest {
    newest: EVersion,
    user_version: u64,
    stats: Option<StatSum>,
}

async fn read_log(
    store: &Store,
    cid: ContainerId,
    pgid: SpgId,
    state: &mut PgState,
    msg: &mut PgLogMsg,
) -> Result<Newest, TargetError> {
    let mut last = Newest::default();
    for (_, raw) in all_values(store, cid, dkey::LOG, None).await? {
        let entry = LogEntry::from_bytes(&raw).map_err(|_| TargetError::BadPgRecord(pgid))?;
        let object = entry_object(pgid.pgid, &entry.object);
        msg.entries.push(entry.to_wire(object));
        state.last_epoch = state.last_epoch.max(entry.epoch);
        last = Newest {
            newest: entry.version,
            user_version: entry.last_user_version,
            stats: Some(entry.stats),
        };
    }
    Ok(last)
}

/// Puts together what the records say. A split or merge leaves no newer entries than its own record.
fn join(
    pgid: SpgId,
    limits: spirula_pg::LogLimits,
    mut state: PgState,
    mut msg: PgLogMsg,
    last: Newest,
    (base, record): (Base, Option<Record>),
) -> Found {
    let recorded = record.as_ref().map_or(EVersion::default(), |record| record.info.last_update);
    let reshaped =
        base.last_update >= last.newest.max(recorded) && base.last_update > EVersion::default();
    let head = last.newest.max(base.last_update).max(msg.tail);
    let known = record.is_some();
    let Record { map_epoch, store_epoch, own_epoch, mut info, past } =
        record.unwrap_or_else(|| young(pgid, head.epoch));
    // The record of a PG that was adopted is newer than any entry; the entries lead on from it.
    let head = head.max(info.last_update);
    state.last_epoch = state.last_epoch.max(store_epoch).max(base.epoch);
    state.record_epoch = own_epoch;
    let of_record = StatSum::from(&info.stats.stats.sum);
    state.stats = match last.stats {
        _ if reshaped => base.stats,
        Some(stats) if !known || last.newest > info.last_update => stats,
        _ if known => of_record,
        Some(stats) => stats,
        None => StatSum::default(),
    };
    // Those of the PG as it was went with its record.
    msg.tail = msg.tail.max(info.log_tail);
    if msg.entries.is_empty() {
        msg.tail = msg.tail.max(head);
    }
    (msg.head, msg.can_rollback_to) = (head, head);
    let user = last.user_version.max(if reshaped { base.last_user_version } else { 0 });
    info.last_user_version = info.last_user_version.max(user);
    info.stats.stats.sum = state.stats.with_scrubs_of(&info.stats.stats.sum);
    info.purged_snaps = state.purged.iter().map(|(start, len)| (SnapId(start), len)).collect();
    let counted = !std::mem::take(&mut info.stats.stats_invalid);
    let log = PgLog::from_wire(msg, limits);
    let stored = Stored { info, past, log, missing: Missing::default() };
    state.counted = counted && (base.counted || !reshaped);
    Found { stored, state, map_epoch, known }
}

/// Of a PG that was stored before peering was: this copy is the only one, and whole.
fn young(pgid: SpgId, epoch: u32) -> Record {
    let epoch = epoch.max(1);
    let history = PgHistory {
        epoch_created: 1,
        epoch_pool_created: 1,
        last_epoch_started: epoch,
        last_interval_started: epoch,
        ..spirula_pg::history::young(epoch)
    };
    let info = PgInfo {
        history,
        last_epoch_started: epoch,
        last_interval_started: epoch,
        ..PgInfo::new(pgid)
    };
    Record { map_epoch: epoch, info, ..Record::default() }
}

/// Of the missing set, what the store still lacks: what it has must be what the log says, since a divergent
/// version, which may be newer, stays until the object is fetched.
async fn still_missing(
    store: &Store,
    cid: ContainerId,
    missing: Missing,
    log: &PgLog,
) -> Result<Missing, TargetError> {
    let mut still = missing.clone();
    for (object, item) in missing.iter() {
        let key = ObjectKey(key_of(cid, object));
        let there = store.read(|vos: &Vos| stored_version(vos, cid, &key)).await?;
        let newest = log.last_update_of(object, log.head());
        let (need, delete) =
            newest.map_or((item.need, item.delete), |e| (e.version, e.is_delete()));
        let whole = there.map_or(delete, |version| version == need);
        if whole {
            still.remove(object);
        }
    }
    Ok(still)
}

/// As the info of a PG carries them.
pub fn purged_of(info: &PgInfo) -> SnapIntervals {
    let mut purged = SnapIntervals::default();
    info.purged_snaps.iter().for_each(|(start, len)| purged.insert(start.0, *len));
    purged
}
