//! `fs *`, `mds *`: there are no file systems, and these say so.

use super::{Answer, Args, Context, Format, Outcome};
use crate::json::Json;
use crate::obj;

/// Incompatible features of an MDS by number, as every Ceph lists them.
const INCOMPAT: [(u32, &str); 9] = [
    (1, "base v0.20"),
    (2, "client writeable ranges"),
    (3, "default file layouts on dirs"),
    (4, "dir inode in separate object"),
    (5, "mds uses versioned encoding"),
    (6, "dirfrag is stored in omap"),
    (8, "no anchor table"),
    (9, "file layout v2"),
    (10, "snaprealm v2"),
];

pub(super) fn ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.either_nl(|| "No filesystems enabled\n".into(), || Json::Arr(vec![])))
}

pub(super) fn dump(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let answer = ctx.either_nl(
        || {
            let compat: Vec<String> = INCOMPAT.iter().map(|(n, name)| format!("{n}={name}")).collect();
            format!(
                "e1\nenable_multiple, ever_enabled_multiple: 1,1\ndefault compat: compat={{}},rocompat={{}},incompat={{{}}}\nlegacy client fscid: -1\n \nNo filesystems configured\n",
                compat.join(",")
            )
        },
        fsmap_json,
    );
    Ok(answer.with_status("dumped fsmap epoch 1"))
}

pub(super) fn mds_stat(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    if ctx.format == Format::Plain {
        return Ok(Answer::default());
    }
    Ok(ctx.json_nl(&obj! {
        "fsmap" => fsmap_json(),
        "mdsmap_first_committed" => 1u32,
        "mdsmap_last_committed" => 1u32,
    }))
}

pub(super) fn mds_metadata(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json_nl(&Json::Arr(vec![])))
}

fn fsmap_json() -> Json {
    let incompat = INCOMPAT.iter().map(|(n, name)| (format!("feature_{n}"), Json::from(*name)));
    obj! {
        "epoch" => 1u32,
        "default_fscid" => -1,
        "compat" => obj! {
            "compat" => Json::Obj(vec![]),
            "ro_compat" => Json::Obj(vec![]),
            "incompat" => Json::obj(incompat),
        },
        "feature_flags" => obj! { "enable_multiple" => true, "ever_enabled_multiple" => true },
        "standbys" => Json::Arr(vec![]),
        "filesystems" => Json::Arr(vec![]),
    }
}
