//! The way of one read: lock, execute, load what is missing, execute again.
//!
//! The lock lets a read in only when every earlier write of the object is published, and keeps
//! later writes out until the data is here; so what it answers is durable and never old.

use crate::admit::Admitted;
use crate::errno::ENOENT;
use crate::front::{OpRequest, Reply, Versions};
use crate::manifest::forward;
use crate::pg::Pg;
use crate::plan::{Errand, Executed};
use crate::shard::recover;
use crate::target::Target;
use crate::write::{Loaded, Served};

/// Serves a request that cannot write.
pub async fn read(target: &Target, admitted: Admitted) -> Served {
    let mut loaded = Loaded::lock(target, admitted).await?;
    let mut executed = loop {
        if let Some(object) = loaded.held_up(false).filter(|_| loaded.pg().active.get()) {
            recover::wait(target, loaded.pg(), &object).await;
            continue;
        }
        match loaded.execute(target) {
            Ok(Executed { errand: Some(errand @ Errand::Fill(_)), .. }) => {
                loaded.run_errand(target, errand).await;
            }
            Ok(executed) => break executed,
            Err(need) => loaded.fill(target, need).await?,
        }
    };
    while loaded.pg().active.get() && !loaded.pg().shard.may_serve() {
        target.map_changed().await;
    }
    // The lock of a write that failed is free, and what it staged is there, but not durable.
    loaded.pg().publisher.check()?;
    if !loaded.pg().active.get() {
        // What was read may be elsewhere by a new map: the client asks again.
        return Ok(loaded.done(None));
    }
    if let Some(Errand::Forward(object)) = executed.errand.take() {
        return forward(target, loaded, object).await;
    }
    loaded.pg().state.borrow_mut().stats.add(&executed.delta);
    if executed.exists {
        let watching = std::mem::take(&mut executed.watching);
        loaded.apply_watching(target, watching, executed.user_version);
    }
    let reply = reply(loaded.request(), loaded.pg(), executed);
    Ok(loaded.done(Some(reply)))
}

pub(crate) fn reply(request: &OpRequest, pg: &Pg, executed: Executed) -> Reply {
    if !executed.exists {
        return Reply::refusal(request, -ENOENT);
    }
    let mut versions = Versions::default();
    if executed.result >= 0 {
        versions = Versions::of(versions.replay, executed.user_version);
    } else if executed.result == -ENOENT {
        let (last_update, last_user) = pg.last_versions();
        versions = versions.absent(last_update, last_user);
    }
    Reply {
        result: executed.result,
        outputs: executed.outputs,
        versions,
        data_offset: executed.data_offset.unwrap_or(0),
        data_crc: executed.data_crc,
        executed: true,
    }
}
