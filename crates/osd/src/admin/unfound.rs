//! `pg PGID list_unfound` and `mark_unfound_lost`: objects that no copy has any more.

use std::rc::Rc;

use serde_json::{Map, Value, json};
use spirula_pg::{MissingObject, Peering, Probe, State};
use spirula_wire::types::{HObject, pg_state};

use super::peering::probe_json;
use super::query::pg_of;
use super::{Args, CommandResult, Failure, text_arg};
use crate::errno::*;
use crate::pg::Pg;
use crate::shard::lost;
use crate::target::Target;

/// Objects in one answer (`osd_command_max_records`).
const RECORDS_MAX: usize = 256;

pub(super) fn list(target: &Target, args: &Args) -> Result<Value, Failure> {
    let pg = pg_of(target, args)?;
    let offset = match text_arg(args, "offset") {
        none if none.is_empty() => None,
        text => Some(offset_of(&text)?),
    };
    Ok(listing(&pg.shard.machine.borrow(), offset.as_ref(), RECORDS_MAX))
}

fn listing(machine: &Peering, offset: Option<&HObject>, max: usize) -> Value {
    let (needed, unfound) = (machine.needs_recovery(), machine.unfound());
    let mut out = Map::new();
    if let Some(offset) = offset {
        out.insert("offset".into(), object_json(offset));
    }
    out.insert("num_missing".into(), json!(needed.len()));
    out.insert("num_unfound".into(), json!(unfound.len()));
    let start = offset.cloned().unwrap_or_else(HObject::min);
    let mut rest = needed.iter().filter(|(object, _)| **object > start && unfound.contains(object));
    let objects: Vec<Value> =
        rest.by_ref().take(max).map(|(object, item)| missing_json(machine, object, item)).collect();
    out.insert("objects".into(), json!(objects));
    out.insert("state".into(), json!(state_name(machine)));
    let known = matches!(machine.state(), State::Activating | State::Active | State::Clean);
    out.insert("available_might_have_unfound".into(), json!(known));
    if known {
        let might = machine.might_have_unfound().into_iter();
        let might = might.filter(|(_, probe)| *probe != Probe::Probed);
        let might = might.map(|(osd, probe)| probe_json(osd, probe));
        out.insert("might_have_unfound".into(), might.collect());
    }
    out.insert("more".into(), json!(rest.next().is_some()));
    Value::Object(out)
}

/// Spelt as in Ceph 16.2, for who compares.
fn state_name(machine: &Peering) -> &'static str {
    match machine.state() {
        State::GetMissing => "GetMising",
        State::Active if machine.needs_recovery().is_empty() => "Active",
        State::Active => {
            let busy = pg_state::RECOVERING | pg_state::RECOVERY_WAIT | pg_state::RECOVERY_TOOFULL;
            let bits = machine.state_bits(spirula_xstream::now());
            if bits & busy == 0 { "NotRecovering" } else { "Active" }
        }
        state => super::peering::name_of(state).rsplit('/').next().unwrap_or_default(),
    }
}

fn missing_json(machine: &Peering, object: &HObject, item: &MissingObject) -> Value {
    let is_new = i32::from(item.have.version == 0);
    let locations = machine.locations(object, item.need);
    json!({
        "oid": object_json(object),
        "need": item.need.to_string(),
        "have": item.have.to_string(),
        "flags": if item.delete { "delete" } else { "none" },
        "clean_regions": format!("clean_offsets: [], clean_omap: 0, new_object: {is_new}"),
        "locations": locations.iter().map(i32::to_string).collect::<Vec<_>>(),
    })
}

fn object_json(object: &HObject) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "oid": text(&object.oid),
        "key": text(&object.key),
        "snapid": object.snap.0 as i64,
        "hash": object.hash,
        "max": i32::from(object.max),
        "pool": object.pool,
        "namespace": text(&object.nspace),
    })
}

fn offset_of(text: &str) -> Result<HObject, Failure> {
    let bad = || Failure(EINVAL, "error parsing offset: bad json".into());
    let value: Value = serde_json::from_str(text).map_err(|_| bad())?;
    let name = |key: &str| value[key].as_str().map(|s| s.as_bytes().to_vec().into());
    let number = |key: &str| value[key].as_i64();
    let parse = || {
        Some(HObject {
            oid: name("oid")?,
            key: name("key")?,
            snap: spirula_wire::types::SnapId(number("snapid")? as u64),
            hash: u32::try_from(number("hash")?).ok()?,
            max: number("max")? != 0,
            pool: number("pool")?,
            nspace: name("namespace")?,
        })
    };
    parse().ok_or_else(bad)
}

/// What is to be given up, and how.
pub(super) struct Order {
    pg: Rc<Pg>,
    revert: bool,
    pub(super) said: String,
}

/// Whether it may be done: every OSD that may have what nobody has was asked, or is lost.
pub(super) fn order(target: &Target, args: &Args) -> Result<Order, Failure> {
    let revert = match text_arg(args, "mulcmd").as_str() {
        "revert" => true,
        "delete" => false,
        _ => {
            let text = "mode must be 'revert' or 'delete'; mark not yet implemented";
            return Err(Failure(EINVAL, text.into()));
        }
    };
    let pg = pg_of(target, args)?;
    let machine = pg.shard.machine.borrow();
    let count = if machine.is_peered() { machine.unfound().len() } else { 0 };
    if count == 0 {
        return Err(Failure(0, "pg has no unfound objects".into()));
    }
    if !machine.is_unfound_final() {
        let text = format!(
            "pg has {count} unfound objects but we haven't probed all sources, not marking lost"
        );
        return Err(Failure(EINVAL, text));
    }
    drop(machine);
    if !pg.active.get() || pg.shard.gives_up_any() {
        return Err(Failure(EAGAIN, "the PG takes no writes now; say it again later".into()));
    }
    let said = format!("pg has {count} objects unfound and apparently lost marking");
    Ok(Order { pg, revert, said })
}

/// Does it, and says how that ended.
pub(super) fn carry_out(target: &Target, order: Order, done: impl FnOnce(CommandResult) + 'static) {
    target.spawn(spirula_xstream::Class::Client, |target| async move {
        let (r, rs) = match lost::give_up(&target, &order.pg, order.revert).await? {
            true => (0, order.said),
            false => (-EAGAIN, "the PG's interval ended meanwhile; say it again".into()),
        };
        done(CommandResult { r, rs, ..CommandResult::default() });
        Ok(())
    });
}

/// For who does not wait for the end.
pub(super) fn mark(target: &Target, args: &Args) -> Result<Value, Failure> {
    let order = order(target, args)?;
    let said = order.said.clone();
    carry_out(target, order, |_| ());
    Err(Failure(0, said))
}

#[cfg(test)]
mod tests {
    use spirula_maps::OsdMap;
    use spirula_wire::types::{PgId, SpgId};

    use super::*;
    use crate::shard::Shard;

    /// `list_unfound` of 16.2.15 for a PG that is down, and an offset as it printed one.
    #[test]
    fn it_is_listed_as_ceph_lists_it() {
        let shard = Shard::bare(SpgId::whole(PgId::new(2, 0)), OsdMap::default());
        let machine = shard.machine.borrow();
        let got = listing(&machine, None, 9);
        let want = json!({
            "num_missing": 0,
            "num_unfound": 0,
            "objects": [],
            "state": "Reset",
            "available_might_have_unfound": false,
            "more": false,
        });
        assert_eq!(got, want);
        let text = r#"{"oid":"o1","key":"","snapid":-2,"hash":1,"max":0,"pool":2,"namespace":""}"#;
        let offset = offset_of(text).map_err(|_| ()).unwrap();
        assert_eq!(
            object_json(&offset).to_string(),
            serde_json::from_str::<Value>(text).unwrap().to_string()
        );
        for bad in ["{", "{}", "7", r#"{"oid":1}"#] {
            assert!(matches!(offset_of(bad), Err(Failure(EINVAL, _))), "{bad}");
        }
        let item = MissingObject {
            need: spirula_wire::types::EVersion::new(29, 8),
            ..MissingObject::default()
        };
        let got = missing_json(&machine, &offset, &item);
        assert_eq!(got["clean_regions"], "clean_offsets: [], clean_omap: 0, new_object: 1");
        assert_eq!((&got["need"], &got["have"]), (&json!("29'8"), &json!("0'0")));
    }
}
