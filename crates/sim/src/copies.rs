//! What the OSDs of each PG hold of it, read from their stores, for the comparison of copies.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use spirula_osd::Target;
use spirula_osd::apply::container_pg;
use spirula_osd::copies::{digest, list_objects};
use spirula_osd::object::cursor_key;
use spirula_osd::scrub::Kind;
use spirula_vos::{ContainerId, ObjectKey, ReadError, Vos};
use spirula_wire::types::{HObject, PgId, shard_error};
use spirula_xstream::Class;

use crate::Cluster;
use crate::check::Violation;
use crate::check::replicas::{self, Copy};

/// Virtual time in which a copy is read.
const READ_IN: Duration = Duration::from_secs(60);
const PAGE: usize = 64;

/// Compares the copies of all PGs of the pool that is there from the start, which has so many objects and
/// no clones; nothing may write.
pub(crate) fn check(cluster: &Cluster, objects: u64) -> Vec<Violation> {
    let targets = (0..cluster.osd_count()).filter_map(|id| cluster.target(id));
    let Some(map) = targets.map(|target| target.map()).max_by_key(|map| map.epoch) else {
        return Vec::new();
    };
    let count = map.pool(Cluster::POOL).map_or(0, |pool| pool.pg_num);
    let (mut found, mut listed) = (Vec::new(), 0);
    for pgid in (0..count).map(|seed| PgId { pool: Cluster::POOL, seed }) {
        let mut copies = BTreeMap::new();
        for osd in map.pg_to_up_acting(pgid).acting {
            match read_copy(cluster, osd, pgid) {
                Ok(copy) => drop(copies.insert(osd, copy)),
                Err(what) => {
                    let what = format!("PG {pgid} on osd.{osd}: {what}");
                    found.push(Violation::new("replica equality", what));
                }
            }
        }
        found.extend(scrub(cluster, map.pg_to_up_acting(pgid).acting_primary, pgid));
        listed += copies.values().next().map_or(0, Copy::len) as u64;
        found.extend(replicas::check(&pgid.to_string(), &copies));
    }
    if found.is_empty() && listed != objects {
        let what = format!("{listed} objects are stored, {objects} can be read");
        found.push(Violation::new("replica equality", what));
    }
    found
}

/// Has the copies of a PG compared by the OSDs themselves. What cannot be read was damaged on its disk; all
/// else that a scrub finds is wrong.
fn scrub(cluster: &Cluster, primary: i32, pgid: PgId) -> Option<Violation> {
    let id = usize::try_from(primary).ok()?;
    let pg = cluster.target(id)?.pgs().get(pgid)?;
    let stamp = || pg.shard.machine.borrow().info().history.last_scrub_stamp;
    let (before, target) = (stamp(), cluster.target(id)?);
    let kind = Kind { deep: true, repair: false };
    let of = pg.clone();
    drop(cluster.osd_host(id).spawn(Class::Background, async move {
        of.shard.scrub.want(kind);
        target.scrubs().stir();
    }));
    let scrubbed = cluster.world.run_until(READ_IN, || stamp() != before);
    let what = pg.shard.scrub.found(|found| {
        let found = found?
            .values()
            .filter(|o| o.errors != 0 || o.union() & !(shard_error::READ | shard_error::STAT) != 0);
        let found: Vec<String> = found.map(|object| format!("{object:?}")).collect();
        (!found.is_empty()).then(|| found.join("; "))
    });
    let what = if scrubbed { what } else { Some("it is not scrubbed".into()) };
    what.map(|what| Violation::new("replica equality", format!("scrub of PG {pgid}: {what}")))
}

fn read_copy(cluster: &Cluster, osd: i32, pgid: PgId) -> Result<Copy, String> {
    let id = usize::try_from(osd).map_err(|_| "nobody")?;
    let target = cluster.target(id).ok_or("it does not run")?;
    let done: Rc<RefCell<Option<Result<Copy, String>>>> = Rc::default();
    let into = done.clone();
    let reading = cluster.osd_host(id).spawn(Class::Background, async move {
        *into.borrow_mut() = Some(copy_of(&target, pgid).await);
    });
    cluster.world.run_until(READ_IN, || reading.is_finished());
    done.take().unwrap_or_else(|| Err("it is not read in time".into()))
}

async fn copy_of(target: &Target, pgid: PgId) -> Result<Copy, String> {
    let store = target.store();
    let containers = |vos: &Vos| -> Result<Vec<ContainerId>, ReadError> { Ok(vos.containers()) };
    let containers = store.read(containers).await.map_err(|e| e.to_string())?;
    let mut copy = Copy::new();
    for cid in containers.into_iter().filter(|cid| container_pg(*cid).pgid == pgid) {
        let mut after = HObject::min();
        while !after.is_max() {
            let page = list_objects(store, cid, &after, PAGE).await;
            let (objects, last) = page.map_err(|e| e.to_string())?;
            for (object, version) in objects {
                let name = String::from_utf8_lossy(&object.oid).into_owned();
                let digest = digest(store, cid, &ObjectKey(cursor_key(&object))).await;
                match digest.map_err(|e| format!("{name} at {version}: {e}"))? {
                    Some(digest) => drop(copy.insert(name, digest)),
                    None => return Err(format!("{name} at {version} is listed and not there")),
                }
            }
            after = last;
        }
    }
    Ok(copy)
}
