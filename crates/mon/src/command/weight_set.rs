//! `osd crush weight-set *`: other weights to choose by, for a pool or for all.

use spirula_crush::DEFAULT_CHOOSE_ARGS;

use super::crush_edit::edit;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};

pub(super) fn create(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let pool = pool_of(ctx, args)?;
    let size = ctx.state.osd.map().pool(pool).map_or(1, |pool| pool.size);
    let positions = match args.str("mode")? {
        "flat" => 1,
        "positional" => size.into(),
        mode => return refuse(errno::EINVAL, format!("unrecognized weight-set mode '{mode}'")),
    };
    let name = format!("weight-set for pool '{}'", args.str("pool")?);
    make(ctx, pool, positions, &name)
}

pub(super) fn create_compat(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    make(ctx, DEFAULT_CHOOSE_ARGS, 1, "compat weight-set")
}

fn make(ctx: &mut Context<'_>, key: i64, positions: usize, name: &str) -> Outcome {
    let crush = &ctx.state.osd.map().crush;
    if !crush.is_all_straw2() {
        let text = "crush map contains one or more bucket(s) that are not straw2";
        return refuse(errno::EPERM, text);
    }
    if crush.choose_args.contains_key(&key) {
        return Ok(Answer::status(format!("{name} already created")));
    }
    edit(ctx, |crush| {
        crush.create_weight_set(key, positions);
        Ok(())
    })?;
    Ok(Answer::default())
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let pool = pool_of(ctx, args)?;
    forget(ctx, pool)
}

pub(super) fn rm_compat(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    forget(ctx, DEFAULT_CHOOSE_ARGS)
}

fn forget(ctx: &mut Context<'_>, key: i64) -> Outcome {
    edit(ctx, |crush| {
        crush.choose_args.remove(&key);
        Ok(())
    })?;
    Ok(Answer::default())
}

pub(super) fn reweight(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let pool = pool_of(ctx, args)?;
    let missing = format!("no weight-set for pool '{}'", args.str("pool")?);
    weigh(ctx, args, pool, missing)
}

pub(super) fn reweight_compat(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    weigh(ctx, args, DEFAULT_CHOOSE_ARGS, "no backward-compatible weight-set".to_owned())
}

fn weigh(ctx: &mut Context<'_>, args: &Args, key: i64, missing: String) -> Outcome {
    let weights = args.floats("weight")?;
    let item = args.str("item")?;
    let crush = &ctx.state.osd.map().crush;
    if !crush.choose_args.contains_key(&key) {
        return refuse(errno::ENOENT, missing);
    }
    let positions = crush.weight_set_positions(key).unwrap_or(1);
    if weights.len() != positions {
        return refuse(errno::EINVAL, format!("must specify exact {positions} weight values"));
    }
    let Some(id) = crush.item_by_name(item) else {
        return refuse(errno::ENOENT, format!("item '{item}' does not exist"));
    };
    if weights.iter().any(|weight| !(0.0..=f64::from(u16::MAX)).contains(weight)) {
        return refuse(errno::EINVAL, format!("a weight is between 0 and {}", u16::MAX));
    }
    let weights: Vec<u32> = weights.iter().map(|weight| (weight * 65_536.0) as u32).collect();
    edit(ctx, |crush| match crush.set_weights_in_set(key, id, &weights) {
        0 => refuse(errno::ENOENT, format!("item {id} not found in crush map")),
        _ => Ok(()),
    })?;
    Ok(Answer::default())
}

fn pool_of(ctx: &Context<'_>, args: &Args) -> Result<i64, Refusal> {
    let name = args.str("pool")?;
    match ctx.state.osd.map().pool_by_name(name) {
        Some(pool) => Ok(pool),
        None => refuse(errno::ENOENT, format!("pool '{name}' not found")),
    }
}
