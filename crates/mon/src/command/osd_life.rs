//! `osd stop|create|purge-new`: OSDs that are told to stop, and ids of those that never started.

use spirula_maps::osd_state;
use spirula_wire::types::Uuid;

use super::osd_edit::{new_osd_answer, osds_named, put, remove_all_of};
use super::{Answer, Args, Context, Outcome, errno, refuse};

/// Has OSDs stop by themselves; each clears its mark when it boots again.
pub(super) fn stop(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let mut inc = ctx.state.osd.next(ctx.now);
    let mut said = String::new();
    for osd in osds_named(ctx, args, |_| true)? {
        match map.osd(osd).filter(|known| known.exists()) {
            None => said += &format!("osd.{osd} does not exist. "),
            Some(known) if known.state & osd_state::STOP != 0 => {
                said += &format!("osd.{osd} is already stopped. ");
            }
            Some(_) => {
                inc.new_state.insert(osd, osd_state::STOP);
                said += &format!("stop osd.{osd}. ");
            }
        }
    }
    if !inc.is_empty() {
        put(ctx, inc)?;
    }
    Ok(Answer::status(said))
}

pub(super) fn purge_new(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let osd = args.osd("id")?;
    if !args.flag("yes_i_really_mean_it") {
        let text = "Are you SURE?  Did you verify with 'ceph osd safe-to-destroy'?  This will mean real, permanent data loss, as well as deletion of cephx and lockbox keys. Pass --yes-i-really-mean-it if you really do.";
        return refuse(errno::EPERM, text);
    }
    match ctx.state.osd.map().osd(osd).filter(|known| known.exists()) {
        None => Ok(Answer::status(format!("osd.{osd} does not exist"))),
        Some(known) if known.is_up() => refuse(errno::EBUSY, format!("osd.{osd} is not `down`.")),
        Some(known) if known.state & osd_state::NEW == 0 => {
            refuse(errno::EPERM, format!("osd.{osd} is not new"))
        }
        Some(_) => remove_all_of(ctx, osd),
    }
}

/// An OSD id, without a key. The id counts only beside a uuid, which makes the command idempotent.
pub(super) fn create(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let uuid = match args.str_opt("uuid")? {
        None => None,
        Some(text) => match text.parse::<Uuid>() {
            Ok(uuid) => Some(uuid),
            Err(_) => return refuse(errno::EINVAL, format!("invalid uuid value '{text}'")),
        },
    };
    let map = ctx.state.osd.map();
    let asked = (uuid.is_some() && args.has("id")).then(|| args.osd("id")).transpose()?;
    match uuid.as_ref().and_then(|uuid| Some((uuid, map.osd_by_uuid(uuid)?))) {
        Some((uuid, id)) if asked.is_some_and(|asked| asked != id) => {
            let text = format!("uuid {uuid} already in use for different id {id}");
            return refuse(errno::EEXIST, text);
        }
        Some((_, id)) => return Ok(new_osd_answer(ctx, id)),
        None => {}
    }
    if let (Some(id), Some(uuid)) = (asked.filter(|id| map.exists(*id)), &uuid) {
        let text = format!("id {id} already in use and does not match uuid {uuid}");
        return refuse(errno::EINVAL, text);
    }
    let free = || (0..map.max_osd()).find(|id| !map.exists(*id)).unwrap_or(map.max_osd());
    let id = asked.unwrap_or_else(free);
    let mut inc = ctx.state.osd.next(ctx.now);
    if id >= map.max_osd() {
        inc.new_max_osd = u32::try_from(id).ok().and_then(|id| id.checked_add(1));
    }
    inc.new_state.insert(id, osd_state::EXISTS | osd_state::NEW);
    inc.new_uuid.extend(uuid.map(|uuid| (id, uuid)));
    put(ctx, inc)?;
    Ok(new_osd_answer(ctx, id))
}
