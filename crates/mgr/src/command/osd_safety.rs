//! `osd safe-to-destroy|ok-to-stop|destroy|purge`: judged by what PGs and OSDs reported.

use std::collections::BTreeSet;

use spirula_maps::{ITEM_NONE, OsdMap};
use spirula_mon::json::Json;
use spirula_mon::obj;
use spirula_wire::types::{PgId, PgStat, pg_state};

use super::{Context, EAGAIN, EBUSY, EINVAL, Outcome, Shown};
use crate::pgmap::PgMap;

/// The OSDs in `ids`, which need not exist; `all` are those that do.
fn osds(c: &Context<'_>) -> Result<BTreeSet<i32>, (i32, String)> {
    let mut found = BTreeSet::new();
    for word in c.list("ids") {
        if matches!(word, "all" | "any" | "*") {
            return Ok(c.osdmap.existing_osds().map(|(id, _)| id).collect());
        }
        match word.strip_prefix("osd.").unwrap_or(word).parse() {
            Ok(id) => _ = found.insert(id),
            Err(_) => {
                let why = format!("Expected option value to be integer, got '{word}'");
                return Err((EINVAL, format!("{why}invalid osd id '{word}'")));
            }
        }
    }
    if found.is_empty() {
        return Err((EINVAL, "must specify one or more OSDs".to_owned()));
    }
    Ok(found)
}

fn list(osds: &BTreeSet<i32>) -> String {
    osds.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

fn json_list(osds: &BTreeSet<i32>) -> Json {
    Json::arr(osds.iter().copied())
}

/// OSDs by what would be lost with them.
#[derive(Default)]
struct Verdict {
    safe: BTreeSet<i32>,
    active: BTreeSet<i32>,
    affected_pgs: usize,
    silent: BTreeSet<i32>,
    storing: BTreeSet<i32>,
}

impl Verdict {
    fn of(pgmap: &PgMap, osdmap: &OsdMap, osds: &BTreeSet<i32>) -> Result<Self, (i32, String)> {
        let unknown = pgmap.count(|state| state == 0);
        if unknown > 0 {
            let text = format!("{unknown} pgs have unknown state; cannot draw any conclusions");
            return Err((EAGAIN, text));
        }
        let well = pg_state::ACTIVE | pg_state::CLEAN;
        let all_well = pgmap.pgs.values().all(|pg| pg.state() & well == well);
        let mut verdict = Self::default();
        for &osd in osds {
            let mapped = |pg: &&PgStat| pg.acting.contains(&osd) || pg.up.contains(&osd);
            let mapped = pgmap.pgs.values().filter(mapped).count();
            let stored = pgmap.osds.get(&osd).map(|stat| stat.num_pgs);
            if osdmap.exists(osd) && mapped > 0 {
                verdict.active.insert(osd);
                verdict.affected_pgs += mapped;
            } else if osdmap.exists(osd) && !all_well && stored.is_none() {
                verdict.silent.insert(osd);
            } else if osdmap.exists(osd) && !all_well && stored > Some(0) {
                verdict.storing.insert(osd);
            } else {
                verdict.safe.insert(osd);
            }
        }
        Ok(verdict)
    }

    /// Why not all are safe; `None` if they are.
    fn refusal(&self) -> Option<(i32, String)> {
        if self.active.is_empty() && self.silent.is_empty() && self.storing.is_empty() {
            return None;
        }
        let mut text = String::new();
        if !self.safe.is_empty() {
            let osds = list(&self.safe);
            text +=
                &format!("OSD(s) {osds} are safe to destroy without reducing data durability. ");
        }
        if !self.active.is_empty() {
            let (osds, pgs) = (list(&self.active), self.affected_pgs);
            text += &format!("OSD(s) {osds} have {pgs} pgs currently mapped to them. ");
        }
        if !self.silent.is_empty() {
            text += &format!(
                "OSD(s) {} have no reported stats, and not all PGs are active+clean; we cannot draw any conclusions. ",
                list(&self.silent)
            );
        }
        if !self.storing.is_empty() {
            text += &format!(
                "OSD(s) {} last reported they still store some PG data, and not all PGs are active+clean; we cannot be sure they aren't still needed.",
                list(&self.storing)
            );
        }
        let busy = !self.active.is_empty() || !self.storing.is_empty();
        Some((if busy { EBUSY } else { EAGAIN }, text))
    }
}

pub(super) fn safe_to_destroy(c: &Context<'_>) -> Outcome {
    let osds = osds(c)?;
    let verdict = Verdict::of(c.pgmap, c.osdmap, &osds)?;
    if c.str("format").is_some_and(|format| format.starts_with("json")) {
        // Whoever reads it draws the conclusion.
        let json = obj! {
            "safe_to_destroy" => json_list(&verdict.safe),
            "active" => json_list(&verdict.active),
            "missing_stats" => json_list(&verdict.silent),
            "stored_pgs" => json_list(&verdict.storing),
        };
        return Ok(Shown { json: Some(json), ..Shown::text("") });
    }
    match verdict.refusal() {
        Some(refusal) => Err(refusal),
        None => Ok(Shown::status(format!(
            "OSD(s) {} are safe to destroy without reducing data durability.",
            list(&osds)
        ))),
    }
}

/// `osd destroy|purge`: a question of safety, then a command to the monitor.
pub(super) fn destroy(c: &Context<'_>) -> Outcome {
    let prefix = c.str("prefix").unwrap_or_default();
    let text = c.str("id").map(|id| id.strip_prefix("osd.").unwrap_or(id));
    let osd = c.int("id").or_else(|| text?.parse().ok()).and_then(|id| i32::try_from(id).ok());
    let Some(osd) = osd else {
        return Err((EINVAL, "unable to parse osd id value".to_owned()));
    };
    if !c.flag("force") && !c.flag("yes_i_really_mean_it") {
        let verdict = Verdict::of(c.pgmap, c.osdmap, &[osd].into());
        let refusal = verdict.map_or_else(Some, |verdict| verdict.refusal());
        if let Some((errno, text)) = refusal {
            let hint = "You can proceed by passing --force, but be warned that this will likely mean real, permanent data loss.";
            return Err((errno, format!("{text}\n{hint}")));
        }
    }
    c.pass_on(&obj! {
        "prefix" => format!("{prefix}-actual"),
        "id" => osd,
        "yes_i_really_mean_it" => true,
    });
    Ok(Shown::text(""))
}

/// What becomes of PGs without some OSDs.
#[derive(Default)]
struct Offline {
    unknown: Vec<PgId>,
    no_pool: Vec<PgId>,
    already_inactive: Vec<PgId>,
    become_inactive: Vec<PgId>,
    bad: usize,
    become_degraded: Vec<PgId>,
    become_more_degraded: Vec<PgId>,
}

impl Offline {
    fn of(pgmap: &PgMap, osdmap: &OsdMap, osds: &BTreeSet<i32>) -> Self {
        let mut found = Self::default();
        for (pgid, pg) in &pgmap.pgs {
            found.judge(osdmap, osds, *pgid, pg);
        }
        found
    }

    fn judge(&mut self, osdmap: &OsdMap, osds: &BTreeSet<i32>, pgid: PgId, pg: &PgStat) {
        if pg.state() == 0 {
            return self.unknown.push(pgid);
        }
        let degraded = pg.state() & pg_state::DEGRADED != 0;
        let complete: Vec<i32> = if degraded {
            pg.avail_no_missing.iter().map(|at| at.osd).collect()
        } else {
            pg.acting.clone()
        };
        if !complete.iter().any(|osd| osds.contains(osd)) {
            return;
        }
        let left = complete.iter().filter(|osd| **osd != ITEM_NONE && !osds.contains(osd));
        let left: BTreeSet<&i32> = left.collect();
        let pool = osdmap.pool(pgid.pool);
        let inactive = pg.state() & pg_state::ACTIVE == 0;
        let too_few = pool.is_some_and(|pool| left.len() < usize::from(pool.min_size));
        let reasons = [
            (pool.is_none(), &mut self.no_pool),
            (inactive, &mut self.already_inactive),
            (too_few, &mut self.become_inactive),
        ];
        reasons.into_iter().filter(|(holds, _)| *holds).for_each(|(_, pgs)| pgs.push(pgid));
        if pool.is_none() || inactive || too_few {
            self.bad += 1;
        } else if degraded {
            self.become_more_degraded.push(pgid);
        } else {
            self.become_degraded.push(pgid);
        }
    }

    fn is_ok(&self) -> bool {
        self.bad == 0 && self.unknown.is_empty()
    }

    fn json(&self, osds: &BTreeSet<i32>) -> Json {
        let mut json = obj! {
            "ok_to_stop" => self.is_ok(),
            "osds" => json_list(osds),
            "num_ok_pgs" => self.become_degraded.len() + self.become_more_degraded.len(),
            "num_not_ok_pgs" => self.bad,
        };
        for (name, pgs) in [
            ("unknown", &self.unknown),
            ("bad_no_pool", &self.no_pool),
            ("bad_already_inactive", &self.already_inactive),
            ("bad_become_inactive", &self.become_inactive),
            ("ok_become_degraded", &self.become_degraded),
            ("ok_become_more_degraded", &self.become_more_degraded),
        ] {
            if !pgs.is_empty() {
                json = json.with(name, Json::arr(pgs.iter().map(PgId::to_string)));
            }
        }
        json
    }
}

pub(super) fn ok_to_stop(c: &Context<'_>) -> Outcome {
    let mut osds = osds(c)?;
    let max = c.int("max").and_then(|max| usize::try_from(max).ok()).unwrap_or(1);
    let mut found = Offline::of(c.pgmap, c.osdmap, &osds);
    if found.is_ok() && max > osds.len() {
        found = add_neighbours(c, &mut osds, max, found);
    }
    let plain = found.json(&osds).compact() + "\n";
    if found.is_ok() {
        return Ok(Shown::text(plain));
    }
    let status = format!(
        "unsafe to stop osd(s) at this time ({} PGs are or would become offline)",
        found.bad
    );
    Ok(Shown { plain, json: None, status, errno: EBUSY })
}

/// Adds OSDs near the first one, as long as all goes well.
fn add_neighbours(
    c: &Context<'_>,
    osds: &mut BTreeSet<i32>,
    max: usize,
    mut found: Offline,
) -> Offline {
    let crush = &c.osdmap.crush;
    let mut at = osds.first().copied().unwrap_or(0);
    while let Some(bucket) = crush.parent(at) {
        at = bucket.id;
        let mut refused = false;
        let below: BTreeSet<i32> = crush.subtree(at).into_iter().collect();
        for osd in below.into_iter().filter(|osd| *osd >= 0 && c.osdmap.is_up(*osd)) {
            if !osds.insert(osd) {
                continue;
            }
            let with = Offline::of(c.pgmap, c.osdmap, osds);
            if !with.is_ok() {
                osds.remove(&osd);
                refused = true;
                continue;
            }
            found = with;
            if osds.len() == max {
                return found;
            }
        }
        if refused {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests;
