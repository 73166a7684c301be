//! An operator gives up objects that no copy has any more (`mark_unfound_lost`).
//!
//! Each is a log entry with its transaction, like a write: the object is removed with its clones, or is from
//! now on what this copy has of it. Whoever waits for an object goes on when all that is durable at every
//! member.

use std::rc::Rc;

use spirula_pg::MissingObject;
use spirula_vos::{ObjectKey, ReadError, StageError, Tx, Vos};
use spirula_wire::types::{EntityName, HObject, RequestId, UTime};
use spirula_xstream::wall_now;

use super::stored::key_of;
use super::submit::{NotSubmitted, Submitted, submit};
use super::{Shard, drive};
use crate::apply::{DataCrcs, apply_effects};
use crate::copies::remove_object;
use crate::load::{LoadedData, Need, StoreView};
use crate::object::ObjectInfo;
use crate::pg::Pg;
use crate::pg::log::{DupRecord, EntryKind, LogEntry};
use crate::target::{Target, TargetError};
use crate::view::{Fault, ObjectView};

/// Objects whose requests wait although they are not missing any more.
struct Waiting<'a>(&'a Shard);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.giving_up.borrow_mut().clear();
        self.0.progress.notify_all();
    }
}

/// Gives up all unfound objects: they go back to what is here of them, or are removed. False: the interval
/// ended first.
pub async fn give_up(target: &Target, pg: &Rc<Pg>, revert: bool) -> Result<bool, TargetError> {
    let shard = pg.shard.clone();
    let unfound = shard.machine.borrow().unfound();
    shard.giving_up.borrow_mut().extend(unfound.iter().cloned());
    let waiting = Waiting(&shard);
    let mut submitted = Vec::new();
    for object in unfound {
        match give_up_one(target, pg, &object, revert).await? {
            Done::Submitted(one) => submitted.push(one),
            Done::Found => {}
            Done::Void => return Ok(false),
        }
    }
    for one in submitted {
        match one.published().await {
            Err(TargetError::Stopped) => return Ok(false),
            other => other?,
        }
    }
    drop(waiting);
    drive::input(target, &shard, |machine| machine.check_progress());
    target.report_now();
    Ok(true)
}

enum Done {
    Submitted(Submitted),
    /// Somebody has it after all.
    Found,
    /// This OSD does not serve the PG any more, or cannot store anything.
    Void,
}

async fn give_up_one(
    target: &Target,
    pg: &Rc<Pg>,
    object: &HObject,
    revert: bool,
) -> Result<Done, TargetError> {
    let key = ObjectKey(key_of(pg.cid, object));
    let mut data = LoadedData::default();
    loop {
        target.store().admit().await;
        if !pg.active.get() || !target.pgs().is_current(pg) {
            return Ok(Done::Void);
        }
        let Some(item) = pg.shard.machine.borrow().lost(object) else {
            return Ok(Done::Found);
        };
        let need = match stored_info(target, pg, &key, &data) {
            Ok(info) => {
                // What never was here, or was removed to be fetched, has nothing to go back to.
                let older = info.filter(|i| revert && !item.delete && i.version == item.have);
                let lost = Lost { object, key: &key, item, older };
                match lost.submit(target, pg) {
                    Ok(submitted) => return Ok(Done::Submitted(submitted)),
                    Err(NotSubmitted::Refused(StageError::Missing(pages))) => Need::Pages(pages),
                    Err(e) => {
                        tracing::error!(pgid = %pg.pgid, %object, "it is not given up: {e}");
                        return Ok(Done::Void);
                    }
                }
            }
            Err(need) => need,
        };
        data.fill(target.store(), need).await?;
    }
}

/// What is here of the object; what cannot be read is nothing.
fn stored_info(
    target: &Target,
    pg: &Pg,
    key: &ObjectKey,
    data: &LoadedData,
) -> Result<Option<ObjectInfo>, Need> {
    let store = target.store();
    let view = |vos: &Vos| Ok(StoreView::new(store, vos, pg.cid, key, data).info());
    match store.try_read(view) {
        Ok(Ok(info)) => Ok(info),
        Ok(Err(Fault::Missing(need))) => Err(need),
        Err(ReadError::Missing(pages)) => Err(Need::Pages(pages)),
        Ok(Err(Fault::Errno(_))) | Err(_) => Ok(None),
    }
}

/// One of them.
struct Lost<'a> {
    object: &'a HObject,
    key: &'a ObjectKey,
    item: MissingObject,
    /// What it goes back to.
    older: Option<ObjectInfo>,
}

impl Lost<'_> {
    fn submit(self, target: &Target, pg: &Rc<Pg>) -> Result<Submitted, NotSubmitted> {
        let state = pg.state.borrow();
        let version = pg.shard.machine.borrow().next_version();
        let epoch = state.next_epoch(target.wall_nanos());
        let (mut tx, mut stats) = (Tx::new(epoch), state.stats);
        drop(state);
        tx.use_reserve();
        let kind = match self.older {
            Some(mut info) => {
                info.version = version;
                let crcs = DataCrcs::default();
                apply_effects(&mut tx, pg.cid, self.key, Vec::new(), Some(&info), crcs, false);
                EntryKind::LostRevert(self.item.have)
            }
            None => {
                remove_object(&mut tx, pg.cid, self.key);
                // How long it was nobody knows.
                stats.num_objects -= i64::from(!self.item.delete && stats.num_objects > 0);
                EntryKind::LostDelete
            }
        };
        let name = EntityName::osd(target.config().osd_id.into());
        let reqid = RequestId { name, tid: version.version, inc: version.epoch as i32 };
        let entry = LogEntry {
            kind,
            version,
            prior: self.item.need,
            mtime: UTime::from(wall_now()),
            epoch,
            object: self.key.0.clone(),
            dup: DupRecord { reqid, version, ..DupRecord::default() },
            stats,
            last_user_version: pg.last_versions().1,
        };
        submit(target, pg, &mut tx, entry, self.object.clone())
    }
}
