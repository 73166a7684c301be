//! One run: load, faults, then quiet, in which the cluster must heal, serve and hold what it promised.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use spirula_xstream::JoinHandle;

use crate::check::{self, Violation};
use crate::fault::{Needs, Plan, Stage, TABLE};
use crate::load::{Load, is_log};
use crate::{Cluster, Spec};

/// Virtual time in which a cluster without faults has come up or healed.
const HEALED_IN: Duration = Duration::from_secs(600);
/// And in which a request is answered then.
const ANSWERED_IN: Duration = Duration::from_secs(120);
/// Requests that show that there is progress.
const PROGRESS: u64 = 60;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub spec: Spec,
    /// How many faults a plan has, more or less.
    pub faults: usize,
    /// Only faults with these names; all if it is empty.
    pub only: Vec<String>,
    /// Print notes as they come.
    pub aloud: bool,
}

/// What a run came to; equal for equal options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Requests that were answered, and all.
    pub answered: u64,
    pub asked: usize,
    pub faults: usize,
    /// What happened when.
    pub notes: Vec<String>,
    pub violations: Vec<Violation>,
    pub trace: (u64, u64),
    pub took: Duration,
}

impl Options {
    /// Three monitors, two clients and the administrator's.
    pub fn new(seed: u64, size: usize, osds: usize, mons: usize) -> Self {
        let spec = Spec { seed, pg_num: 4, mons, osds, size, clients: 3 };
        Self { spec, faults: 20, only: Vec::new(), aloud: false }
    }

    fn plan(&self) -> Plan {
        let Spec { seed, size, mons, osds, .. } = self.spec;
        let allowed = |name: &str| self.only.is_empty() || self.only.iter().any(|o| o == name);
        Plan::draw(seed, self.faults, Needs { size, mons, osds }, allowed)
    }
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for violation in &self.violations {
            // A string takes whatever is written to it.
            let _ = writeln!(out, "{violation}");
        }
        let (count, hash) = self.trace;
        let _ = writeln!(
            out,
            "{} faults, {} of {} requests answered, {} virtual seconds, {count} events, trace {hash:016x}",
            self.faults,
            self.answered,
            self.asked,
            self.took.as_secs()
        );
        out
    }
}

/// Plays a run.
pub fn play(options: &Options) -> Report {
    let mut stage = set_up(options);
    let faults = safety(&mut stage, &options.plan());
    let mut violations = Vec::new();
    stage.note("the faults are over");
    if let Err(what) = liveness(&mut stage) {
        stage.note(format!("failed: {what}"));
        violations.push(Violation::new("liveness", what));
    } else {
        violations.extend(check::monitors::check(&stage.cluster.mon_states()));
    }
    stage.note("checks");
    let history = stage.load.history();
    violations.extend(check::history(&history, is_log));
    Report {
        answered: history.answered(),
        asked: history.len(),
        faults,
        notes: std::mem::take(&mut stage.notes),
        violations,
        trace: stage.cluster.world.trace(),
        took: stage.cluster.world.now(),
    }
}

fn set_up(options: &Options) -> Stage {
    let cluster = Cluster::with(&options.spec);
    cluster.tolerate_stops();
    cluster.start_mon();
    cluster.start_osds();
    let made = Rc::new(RefCell::new(None));
    let (connector, out) = (cluster.connector(), made.clone());
    let admin = cluster.clients.last().expect("a client's host");
    let ready = admin.block_on(async move { *out.borrow_mut() = Some(connector()) });
    assert!(ready.is_ok());
    let admin = made.take().expect("it was made");
    let mut stage = Stage::new(cluster, options.spec.clone(), Load::default(), admin);
    stage.aloud = options.aloud;
    if options.spec.size == 1 {
        stage.load.expect_errors();
    }
    for number in 0..stage.mortal_clients() {
        let workers = stage.load.start(&stage.cluster, &stage.cluster.clients[number]);
        stage.workers.extend(workers);
    }
    stage
}

/// What has begun and when it ends.
type Ends = Vec<(Duration, usize, crate::fault::Mark)>;

/// Faults, as planned; returns how many began.
fn safety(stage: &mut Stage, plan: &Plan) -> usize {
    // Most runs begin with a cluster that is there.
    stage
        .run_while(Duration::from_secs(30), |stage| stage.is_clean() && stage.load.answered() > 50);
    let start = stage.cluster.world.now();
    let (mut ends, mut begun): (Ends, usize) = (Vec::new(), 0);
    for planned in &plan.0 {
        end_until(stage, &mut ends, start + planned.at);
        let row = &TABLE[planned.row];
        if let Some(mark) = (row.begin)(stage, planned.pick) {
            begun += 1;
            stage.note(format!("{} {:?} for {:?}", row.name, mark.about, planned.lasts));
            ends.push((stage.cluster.world.now() + planned.lasts, planned.row, mark));
        }
    }
    end_until(stage, &mut ends, Duration::MAX);
    begun
}

/// Lets time pass until then, or until nothing is left to end, and ends what is due.
fn end_until(stage: &mut Stage, ends: &mut Ends, until: Duration) {
    loop {
        let next = (0..ends.len()).min_by_key(|i| ends[*i].0).filter(|i| ends[*i].0 <= until);
        let Some(next) = next else { break };
        let (at, row, mark) = ends.remove(next);
        stage.run_until(at);
        stage.note(format!("{} {:?} ends", TABLE[row].name, mark.about));
        (TABLE[row].end)(stage, mark);
    }
    if until < Duration::MAX {
        stage.run_until(until);
    }
}

/// Without faults the cluster heals, answers, loses nothing when all of it loses power, and agrees.
fn liveness(stage: &mut Stage) -> Result<(), String> {
    stage.mend();
    stage.note("mended");
    clean(stage)?;
    let before = stage.load.answered();
    if !stage.run_while(ANSWERED_IN, |stage| stage.load.answered() > before + PROGRESS) {
        return Err(format!("only {} requests are answered", stage.load.answered() - before));
    }
    stage.load.stop();
    let ended = |stage: &Stage| stage.workers.iter().all(JoinHandle::is_finished);
    if !stage.run_while(ANSWERED_IN, ended) {
        let left = stage.workers.iter().filter(|worker| !worker.is_finished()).count();
        let open = stage.load.history().open().join("; ");
        return Err(format!("{left} requests hang, of these: {open}"));
    }
    look(stage)?;
    stage.note("all OSDs lose power");
    for id in 0..stage.cluster.osd_count() {
        stage.cluster.osd_power_loss_of(id);
    }
    (0..stage.cluster.osd_count()).for_each(|id| stage.cluster.start_osd_of(id));
    clean(stage)?;
    look(stage)?;
    same_monitors(stage)
}

fn clean(stage: &mut Stage) -> Result<(), String> {
    if stage.run_while(HEALED_IN, Stage::is_clean) {
        stage.note("clean");
        return Ok(());
    }
    Err(format!("not clean: {}", stage.unclean().unwrap_or_default()))
}

/// Reads everything.
fn look(stage: &mut Stage) -> Result<(), String> {
    let host = stage.cluster.clients.last().expect("a client's host").clone();
    let looking = stage.load.look(&stage.cluster, &host);
    match stage.run_while(ANSWERED_IN, |_| looking.is_finished()) {
        true => Ok(()),
        false => Err("the objects cannot be read".into()),
    }
}

/// Monitors catch up with each other once nothing else happens.
fn same_monitors(stage: &mut Stage) -> Result<(), String> {
    let same = |stage: &Stage| {
        let positions = stage.cluster.mon_positions();
        positions.iter().all(|at| *at == positions[0])
    };
    match stage.run_while(ANSWERED_IN, same) {
        true => Ok(()),
        false => Err(format!("monitors at {:?}", stage.cluster.mon_positions())),
    }
}
