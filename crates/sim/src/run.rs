//! One run: load, faults, then quiet, in which the cluster must heal, serve and hold what it promised.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use crate::check::{self, Violation};
use crate::fault::{Needs, Plan, Stage, TABLE};
use crate::load::{Load, SNAPS_MAX, is_log};
use crate::{Cluster, Spec, copies};

mod liveness;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub spec: Spec,
    /// How many faults a plan has, more or less.
    pub faults: usize,
    /// Only faults with these names; all if it is empty.
    pub only: Vec<String>,
    /// No faults with these names.
    pub without: Vec<String>,
    /// Any copy may answer reads.
    pub anywhere: bool,
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
        Self {
            spec,
            faults: 20,
            only: Vec::new(),
            without: Vec::new(),
            anywhere: false,
            aloud: false,
        }
    }

    fn plan(&self) -> Plan {
        let Spec { seed, size, mons, osds, .. } = self.spec;
        let is_in = |names: &[String], name: &str| names.iter().any(|n| n == name);
        let allowed = |name: &str| {
            (self.only.is_empty() || is_in(&self.only, name)) && !is_in(&self.without, name)
        };
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
    match liveness::run(&mut stage) {
        Ok(()) => {
            violations.extend(check::monitors::check(&stage.cluster.mon_states()));
            violations.extend(copies::check(&stage.cluster, stage.load.history().last_seen().0));
        }
        Err(what) => {
            stage.note(format!("failed: {what}"));
            violations.push(Violation::new("liveness", what));
        }
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
    if options.anywhere {
        stage.load.read_anywhere();
    }
    let admin = stage.admin.clone();
    stage.on_admin(async move {
        // The numbers that the clients will use, so that they can be removed in the end.
        for _ in 0..SNAPS_MAX {
            let _ = admin.own_snap(Cluster::POOL, None).await;
        }
    });
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
