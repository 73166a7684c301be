//! The load, in the words of DAOS's `vos_perf`: objects, dkeys, akeys, size, depth.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::keys::Keys;

/// One load; an operation touches one akey of one dkey of one object.
#[derive(clap::Args, Clone, Debug)]
pub struct LoadArgs {
    /// Objects.
    #[arg(long, default_value_t = 10_000)]
    pub objects: u64,
    /// Dkeys of each object.
    #[arg(long, default_value_t = 1)]
    pub dkeys: u64,
    /// Akeys of each dkey.
    #[arg(long, default_value_t = 1)]
    pub akeys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 4096)]
    pub size: usize,
    /// Operations in flight.
    #[arg(long, default_value_t = 16)]
    pub depth: u64,
    /// Operations of each phase.
    #[arg(long, default_value_t = 200_000)]
    pub ops: u64,
    /// End a phase after so many seconds though operations are left.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Skew of the keys by Zipf's law, between 0 and 1 (default: uniform).
    #[arg(long)]
    pub zipf: Option<f64>,
    /// Print reports as JSON, one a line.
    #[arg(long)]
    pub json: bool,
}

/// The parts of a key's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyName {
    pub object: String,
    pub dkey: String,
    pub akey: String,
}

impl LoadArgs {
    pub fn check(&self) -> Result<()> {
        let counts = [self.objects, self.dkeys, self.akeys, self.depth];
        ensure!(!counts.contains(&0), "--objects, --dkeys, --akeys and --depth must not be 0");
        ensure!(self.size > 0, "--size must not be 0");
        let keys = self.objects.checked_mul(self.dkeys).and_then(|n| n.checked_mul(self.akeys));
        ensure!(keys.is_some_and(|n| n < 1 << 40), "too many keys");
        if let Some(theta) = self.zipf {
            ensure!(theta > 0.0 && theta < 1.0, "--zipf must lie between 0 and 1");
        }
        Ok(())
    }

    /// Number of keys.
    pub fn keys(&self) -> u64 {
        self.objects * self.dkeys * self.akeys
    }

    pub fn chooser(&self, seed: u64) -> Keys {
        Keys::new(self.keys(), self.zipf, seed)
    }

    pub fn time(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs)
    }

    /// The name of key `index`; the keys of one object follow each other.
    pub fn name(&self, index: u64) -> KeyName {
        let (object, rest) = (index / (self.dkeys * self.akeys), index % (self.dkeys * self.akeys));
        KeyName {
            object: object_name(object),
            dkey: (rest / self.akeys).to_string(),
            akey: (rest % self.akeys).to_string(),
        }
    }

    /// A value that does not compress.
    pub fn payload(&self) -> Vec<u8> {
        let mut rng = crate::Rng::new(1);
        (0..self.size).map(|_| rng.next_u64() as u8).collect()
    }
}

/// About as long as the names that clients choose.
fn object_name(object: u64) -> String {
    format!("object-{object:010}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn load(args: &[&str]) -> LoadArgs {
        Cli::parse_from(["x"].iter().chain(args)).load
    }

    #[test]
    fn every_key_has_a_name_of_its_own() {
        let load = load(&["--objects", "3", "--dkeys", "4", "--akeys", "5"]);
        load.check().unwrap();
        let names: Vec<KeyName> = (0..load.keys()).map(|i| load.name(i)).collect();
        let last =
            KeyName { object: "object-0000000002".into(), dkey: "3".into(), akey: "4".into() };
        assert_eq!(names.last(), Some(&last));
        assert!(names.iter().enumerate().all(|(i, name)| !names[..i].contains(name)));
    }

    #[test]
    fn loads_that_mean_nothing_are_refused() {
        for args in [["--objects", "0"], ["--depth", "0"], ["--size", "0"], ["--zipf", "1"]] {
            assert!(load(&args).check().is_err(), "{args:?}");
        }
    }
}
