//! `osd get-require-min-compat-client|set-require-min-compat-client|require-osd-release`: the oldest
//! releases that the cluster's maps allow for.

use spirula_maps::{OsdMap, Release};

use super::osd_edit::put;
use super::{Answer, Args, Context, Outcome, errno, refuse};

/// The release that this is.
const OWN: Release = Release::PACIFIC;

/// The oldest release whose clients understand the map's features.
pub(super) fn min_compat_client(map: &OsdMap) -> Release {
    let newer = !map.pg_upmap.is_empty()
        || !map.pg_upmap_items.is_empty()
        || !map.crush.choose_args.is_empty();
    if newer { Release::LUMINOUS } else { Release::JEWEL }
}

pub(super) fn get_min_compat(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(Answer::text(format!("{}\n", ctx.state.osd.map().require_min_compat_client)))
}

/// Connected clients need not be looked at: none can connect that is older than what Ceph would
/// complain about.
pub(super) fn set_min_compat(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let version = args.str("version")?;
    let Some(release) = Release::from_name(version).filter(|r| *r <= OWN) else {
        return refuse(errno::EINVAL, format!("version {version} is not recognized"));
    };
    let needed = min_compat_client(ctx.state.osd.map());
    if release < needed {
        let text = format!(
            "osdmap current utilizes features that require {needed}; cannot set require_min_compat_client below that to {release}"
        );
        return refuse(errno::EPERM, text);
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_require_min_compat_client = release;
    put(ctx, inc)?;
    Ok(Answer::status(format!("set require_min_compat_client to {release}")))
}

/// A new cluster begins with the newest release there is.
pub(super) fn require_osd_release(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let version = args.str("release")?;
    let Some(release) = Release::from_name(version).filter(|r| *r <= OWN) else {
        return refuse(errno::EINVAL, format!("unrecognized release {version}"));
    };
    let current = ctx.state.osd.map().require_osd_release;
    if release < current {
        let text = "require_osd_release cannot be lowered once it has been set";
        return refuse(errno::EPERM, text);
    }
    if release > current {
        let mut inc = ctx.state.osd.next(ctx.now);
        inc.new_require_osd_release = release;
        put(ctx, inc)?;
    }
    Ok(Answer::default())
}
