//! `osd lost|rm|destroy-actual`: OSDs that do not come back, or not as they were.

use spirula_maps::osd_state;
use spirula_wire::types::{EntityNameStr, EntityType, Uuid};

use super::osd_edit::{osds_named, put};
use super::{Answer, Args, Context, Outcome, errno, refuse};
use crate::state::Change;

/// Lets PGs go on without what only this OSD has.
pub(super) fn lost(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let osd = args.osd("id")?;
    if !args.flag("yes_i_really_mean_it") {
        let text = "are you SURE?  this might mean real, permanent data loss.  pass --yes-i-really-mean-it if you really do.";
        return refuse(errno::EPERM, text);
    }
    let map = ctx.state.osd.map();
    let Some(known) = map.osd(osd).filter(|known| known.exists()) else {
        return refuse(errno::ENOENT, format!("osd.{osd} does not exist"));
    };
    if known.is_up() {
        return refuse(errno::EBUSY, format!("osd.{osd} is not down"));
    }
    let epoch = known.info.down_at;
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_lost.insert(osd, epoch);
    put(ctx, inc)?;
    Ok(Answer::status(format!("marked osd lost in epoch {epoch}")))
}

/// Takes OSDs out of the map, but neither out of CRUSH nor their keys.
pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let mut inc = ctx.state.osd.next(ctx.now);
    let (mut said, mut busy) = (String::new(), false);
    for osd in osds_named(ctx, args, |_| true)? {
        match map.osd(osd).filter(|known| known.exists()) {
            None => said += &format!("osd.{osd} does not exist. "),
            Some(known) if known.is_up() => {
                said += &format!("osd.{osd} is still up; must be down before removal. ");
                busy = true;
            }
            Some(known) => {
                let first = inc.new_state.is_empty();
                said += &format!("{}osd.{osd}", if first { "removed " } else { ", " });
                inc.new_state.insert(osd, known.state);
                inc.new_uuid.insert(osd, Uuid::default());
            }
        }
    }
    if busy {
        return refuse(errno::EBUSY, said);
    }
    if !inc.is_empty() {
        put(ctx, inc)?;
    }
    Ok(Answer::status(said))
}

/// Forgets an OSD's data and keys; its id and place stay for another one.
pub(super) fn destroy(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let osd = args.osd("id")?;
    if !args.flag("yes_i_really_mean_it") {
        let text = "Are you SURE?  Did you verify with 'ceph osd safe-to-destroy'?  This will mean real, permanent data loss, as well as deletion of cephx and lockbox keys. Pass --yes-i-really-mean-it if you really do.";
        return refuse(errno::EPERM, text);
    }
    let map = ctx.state.osd.map();
    let Some(known) = map.osd(osd).filter(|known| known.exists()) else {
        return Ok(Answer::status(format!("osd.{osd} does not exist")));
    };
    if known.is_up() {
        return refuse(errno::EBUSY, format!("osd.{osd} is not `down`."));
    }
    if !known.is_destroyed() {
        let mut inc = ctx.state.osd.next(ctx.now);
        inc.new_state.insert(osd, osd_state::DESTROYED);
        inc.new_uuid.insert(osd, Uuid::default());
        put(ctx, inc)?;
        ctx.change(Change::RemoveAuth(EntityNameStr::new(EntityType::OSD, osd.to_string())));
    }
    Ok(Answer::status(format!("destroyed osd.{osd}")))
}
