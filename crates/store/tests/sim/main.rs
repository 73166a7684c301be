//! The store on the simulated disk: power loss, corruption, a full device.

mod aggregation;
mod damage;
mod devices;
mod exchange;
mod faults;
mod full;
#[path = "../../../vos/tests/model/ops.rs"]
mod ops;
mod pace;
mod prepared;
mod reserve;
mod scrub;
mod workload;

use spirula_store::Faults;

use workload::Machine;

/// Runs a seed through several losses of power.
fn run_seed(seed: u64, faults: Faults) -> Result<(u64, u64, u64), String> {
    let mut machine = Machine::new(seed, faults);
    for round in 0..4 {
        machine.run_and_lose_power();
        machine.verify().map_err(|e| format!("seed {seed} round {round}: {e}"))?;
    }
    let ledger = machine.ledger.borrow();
    Ok((ledger.submitted, ledger.acknowledged, ledger.prepared.survived))
}

fn seeds() -> std::ops::Range<u64> {
    let parse = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let first = parse("SPIRULA_SEED").unwrap_or(0);
    first..first + parse("SPIRULA_SEEDS").unwrap_or(if first > 0 { 1 } else { 500 })
}

#[test]
fn power_loss_keeps_every_acknowledged_transaction() {
    let (mut submitted, mut acknowledged, mut survived) = (0, 0, 0);
    for seed in seeds() {
        match run_seed(seed, Faults::default()) {
            Ok((s, a, p)) => {
                (submitted, acknowledged, survived) =
                    (submitted + s, acknowledged + a, survived + p);
            }
            Err(e) => panic!("{e}"),
        }
    }
    println!("{submitted} transactions submitted, {acknowledged} acknowledged");
    println!("{survived} prepared ones survived a loss of power");
    assert!(acknowledged > 0 && survived > 0);
}

/// Without flushes the test above must fail: it would not prove anything otherwise.
#[test]
fn canary_without_flushes_is_found() {
    let faults = Faults { ignore_flush: true };
    let failed = (0..20).filter(|&seed| run_seed(seed, faults).is_err()).count();
    assert!(failed >= 15, "only {failed} of 20 seeds noticed");
}
