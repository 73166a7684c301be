//! How far peering and recovery have come, as `pg PGID query` shows it.

use serde_json::{Map, Value, json};
use spirula_pg::{Peering, Probe, State};
use spirula_wire::types::{CompactInterval, HObject, PastIntervals, UTime};

use super::dump::stamp;
use crate::shard::StateTimes;

/// The states that the PG is in, the innermost first.
pub(super) fn recovery_state(machine: &Peering, times: StateTimes) -> Value {
    states(machine, machine.state(), times)
}

pub(super) fn states(machine: &Peering, state: State, times: StateTimes) -> Value {
    let at = |time| stamp(UTime::from(time));
    let started = json!({ "name": "Started", "enter_time": at(times.started) });
    let mut inner = Map::new();
    let name = name_of(state);
    inner.insert("name".into(), json!(format!("Started/{name}")));
    inner.insert("enter_time".into(), json!(at(times.entered)));
    let peers = |osds: &mut dyn Iterator<Item = &i32>| -> Value {
        osds.map(|osd| json!({ "osd": osd.to_string() })).collect()
    };
    let (key, value) = match state {
        State::Activating | State::Active | State::Clean => {
            inner.extend(active(machine));
            return json!([inner, started]);
        }
        State::Unknown | State::Reset | State::Stray => return json!([inner, started]),
        State::ReplicaActivating | State::ReplicaActive => return json!([inner, started]),
        State::GetInfo => ("requested_info_from", peers(&mut machine.requested().iter())),
        State::GetLog => ("auth_log_shard", json!(machine.best().to_string())),
        State::GetMissing => ("peer_missing_requested", peers(&mut machine.requested().iter())),
        State::WaitActingChange => ("comment", json!("waiting for pg acting set to change")),
        State::WaitUpThru => {
            ("comment", json!("waiting for osdmap to reflect a new up_thru for this osd"))
        }
        State::Down => ("comment", json!("not enough up instances of this PG to go active")),
        State::Incomplete => ("comment", json!("not enough complete instances of this PG")),
    };
    inner.insert(key.into(), value);
    let mut outer = Map::new();
    outer.insert("name".into(), json!("Started/Primary/Peering"));
    outer.insert("enter_time".into(), json!(at(times.peering)));
    outer.extend(peering(machine));
    json!([inner, outer, started])
}

pub(super) fn name_of(state: State) -> &'static str {
    match state {
        State::Unknown | State::Reset => "Reset",
        State::GetInfo => "Primary/Peering/GetInfo",
        State::GetLog => "Primary/Peering/GetLog",
        State::GetMissing => "Primary/Peering/GetMissing",
        State::WaitUpThru => "Primary/Peering/WaitUpThru",
        State::WaitActingChange => "Primary/Peering/WaitActingChange",
        State::Down => "Primary/Peering/Down",
        State::Incomplete => "Primary/Peering/Incomplete",
        State::Activating | State::Active | State::Clean => "Primary/Active",
        State::Stray => "Stray",
        State::ReplicaActivating | State::ReplicaActive => "ReplicaActive",
    }
}

/// Who was asked, who cannot be, and why it does not go on.
fn peering(machine: &Peering) -> Map<String, Value> {
    let (prior, mut out) = (machine.prior(), Map::new());
    out.insert("past_intervals".into(), past_intervals(machine.past_intervals()));
    let probing = prior.probe.iter().map(i32::to_string).collect::<Vec<_>>();
    out.insert("probing_osds".into(), json!(probing));
    if prior.pg_down {
        out.insert("blocked".into(), json!("peering is blocked due to down osds"));
    }
    out.insert("down_osds_we_would_probe".into(), json!(prior.down));
    let blocker = |(osd, lost_at): (&i32, &u32)| {
        json!({
            "osd": osd,
            "current_lost_at": lost_at,
            "comment": "starting or marking this osd lost may let us proceed",
        })
    };
    out.insert("peering_blocked_by".into(), prior.blocked_by.iter().map(blocker).collect());
    out
}

/// Epochs are text here, as Ceph has it.
fn past_intervals(past: &PastIntervals) -> Value {
    if past.is_empty() {
        return json!([]);
    }
    let interval = |i: &CompactInterval| {
        let acting: Vec<String> = i.acting.iter().map(|m| m.osd.to_string()).collect();
        json!({
            "first": i.first.to_string(),
            "last": i.last.to_string(),
            "acting": acting.join(","),
        })
    };
    let all = past.all_participants.iter().map(|member| json!({ "osd": member.osd }));
    json!([{
        "first": past.first.to_string(),
        "last": past.last.to_string(),
        "all_participants": all.collect::<Vec<_>>(),
        "intervals": past.intervals.iter().map(interval).collect::<Vec<_>>(),
    }])
}

fn active(machine: &Peering) -> Map<String, Value> {
    let mut out = Map::new();
    let might = machine.might_have_unfound();
    let might = might.into_iter().map(|(osd, probe)| probe_json(osd, probe));
    out.insert("might_have_unfound".into(), might.collect());
    out.insert("recovery_progress".into(), progress(machine));
    out
}

pub(super) fn probe_json(osd: i32, probe: Probe) -> Value {
    let status = match probe {
        Probe::Probed => "already probed",
        Probe::Querying => "querying",
        Probe::Down => "osd is down",
        Probe::NotQueried => "not queried",
    };
    json!({ "osd": osd.to_string(), "status": status })
}

fn progress(machine: &Peering) -> Value {
    let (pulls, pushes) = machine.recovering();
    let mut recovering: Vec<&HObject> = pulls.iter().chain(pushes.iter().map(|(o, _)| o)).collect();
    recovering.sort();
    let text = |o: &HObject| o.to_string();
    let begun = machine.backfills().map(|(_, passed, _)| passed).max();
    let peers = machine.backfills().map(|(osd, passed, copying)| {
        let objects: Vec<Value> = copying.iter().map(|o| json!({ "object": text(o) })).collect();
        let begin = text(passed);
        json!([osd.to_string(), { "begin": begin, "end": begin, "objects": objects }])
    });
    let flights = machine.backfills().flat_map(|(_, _, copying)| copying.iter().map(text));
    let targets: Vec<String> = machine.backfill_targets().iter().map(i32::to_string).collect();
    let pushing = pushes.iter().map(|(object, to)| {
        let to: Vec<Value> = to.iter().map(|osd| json!({ "osd": osd.to_string() })).collect();
        json!({ "object": text(object), "pushing_to": to })
    });
    json!({
        "backfill_targets": targets,
        "waiting_on_backfill": [],
        "last_backfill_started": begun.map_or_else(|| "MIN".to_owned(), text),
        "backfill_info": { "begin": "MIN", "end": "MIN", "objects": [] },
        "peer_backfill_info": peers.collect::<Vec<_>>(),
        "backfills_in_flight": flights.collect::<Vec<_>>(),
        "recovering": recovering.into_iter().map(text).collect::<Vec<_>>(),
        "pg_backend": {
            "pull_from_peer": pulls.iter().map(text).collect::<Vec<_>>(),
            "pushing": pushing.collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use spirula_maps::OsdMap;
    use spirula_wire::types::{PgId, SpgId};

    use super::*;
    use crate::shard::Shard;

    /// The names that 16.2 has, of each state all that are in it.
    #[test]
    fn each_state_tells_of_itself_and_those_around_it() {
        let shard = Shard::bare(SpgId::whole(PgId::new(2, 3)), OsdMap::default());
        let machine = shard.machine.borrow();
        let peering = "Started/Primary/Peering";
        for (state, name, key) in [
            (State::GetInfo, "Started/Primary/Peering/GetInfo", "requested_info_from"),
            (State::GetLog, "Started/Primary/Peering/GetLog", "auth_log_shard"),
            (State::GetMissing, "Started/Primary/Peering/GetMissing", "peer_missing_requested"),
            (State::WaitUpThru, "Started/Primary/Peering/WaitUpThru", "comment"),
            (State::WaitActingChange, "Started/Primary/Peering/WaitActingChange", "comment"),
            (State::Down, "Started/Primary/Peering/Down", "comment"),
            (State::Incomplete, "Started/Primary/Peering/Incomplete", "comment"),
        ] {
            let got = states(&machine, state, shard.times());
            let names: Vec<&Value> = got.as_array().unwrap().iter().map(|s| &s["name"]).collect();
            assert_eq!(names, [name, peering, "Started"]);
            assert!(!got[0][key].is_null(), "{name}");
        }
        let got = states(&machine, State::Clean, shard.times());
        assert_eq!(
            (&got[0]["name"], got[1]["name"].as_str()),
            (&json!("Started/Primary/Active"), Some("Started"))
        );
    }

    /// As 16.2.15 showed two intervals of a PG that was down.
    #[test]
    fn past_intervals_are_shown_as_ceph_shows_them() {
        let mut past = PastIntervals::default();
        spirula_pg::interval::add_interval(&mut past, 18, 27, &[1, 2], false);
        spirula_pg::interval::add_interval(&mut past, 28, 30, &[2], true);
        spirula_pg::interval::add_interval(&mut past, 33, 37, &[1], true);
        spirula_pg::interval::add_interval(&mut past, 38, 38, &[], false);
        let want = json!([{
            "first": "18",
            "last": "38",
            "all_participants": [{ "osd": 1 }, { "osd": 2 }],
            "intervals": [
                { "first": "28", "last": "30", "acting": "2" },
                { "first": "33", "last": "37", "acting": "1" },
            ],
        }]);
        assert_eq!(past_intervals(&past), want);
        assert_eq!(past_intervals(&PastIntervals::default()), json!([]));
    }
}
