//! Entry points of the fuzz targets; each must return for any input.

use std::sync::LazyLock;

use spirula_auth::CryptoKey;
use spirula_wire::types::Uuid;
use spirula_wire::{Decode, Encode, Features};

use crate::mkfs::{MkfsConfig, NewOsd, NewPoolSpec, mkfs};
use crate::state::Change;
use crate::storage::MemoryStorage;
use crate::{Now, Proposal, State};

const F: Features = Features::PACIFIC;

/// A proposal; what decodes must encode, decode again to what encodes the same (times may be
/// normalized once), and apply or be refused.
pub fn proposal(data: &[u8]) {
    static STATE: LazyLock<Vec<u8>> = LazyLock::new(|| sample().to_bytes(F));
    let Ok(proposal) = Proposal::from_bytes(data) else {
        return;
    };
    let once = proposal.to_bytes(F);
    let twice = Proposal::from_bytes(&once).map(|p| p.to_bytes(F));
    assert_eq!(twice.as_ref(), Ok(&once));
    if let Ok(mut state) = State::from_bytes(&STATE) {
        let before = state.version;
        let applied = state.apply(&proposal).is_ok();
        assert_eq!(state.version, before + u64::from(applied));
    }
}

/// A snapshot of the state.
pub fn snapshot(data: &[u8]) {
    if let Ok(state) = State::from_bytes(data) {
        let again = State::from_bytes(&state.to_bytes(F));
        assert!(again.is_ok(), "{:?}", again.err());
    }
}

/// A command as it arrives.
pub fn command(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        _ = crate::command::parse(text, crate::command::COMMANDS);
    }
}

/// Inputs of the targets as a monitor writes them, by target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let state = sample();
    let mut changes = vec![
        Change::MaxGlobalId(10_000),
        Change::OsdMap(state.osd.map().to_bytes(F).into()),
        Change::MgrCommands("[]".into()),
    ];
    for (name, auth) in &state.auth.keyring.entities {
        changes.push(Change::SetAuth {
            name: name.clone(),
            key: auth.key.clone(),
            caps: auth.caps.clone(),
        });
        changes.push(Change::RemoveAuth(name.clone()));
    }
    for (service, secrets) in &state.auth.rotating {
        changes.push(Change::Rotate { service: *service, secrets: secrets.clone() });
    }
    let mut out: Vec<_> = changes
        .into_iter()
        .map(|c| ("proposal", Proposal::new(state.stamp, vec![c]).to_bytes(F)))
        .collect();
    out.push(("snapshot", state.to_bytes(F)));
    out
}

/// A new cluster with an OSD and a pool; without them if they cannot be made.
fn sample() -> State {
    let key = || CryptoKey::from_secret(std::time::Duration::from_secs(1), [1; 16]);
    let osd = NewOsd { uuid: Uuid([2; 16]), key: key(), bytes: 1 << 40 };
    let pool = NewPoolSpec { name: "data".into(), pg_num: 8, application: "rados".into() };
    let config = MkfsConfig {
        fsid: Uuid([1; 16]),
        mons: vec![("a".into(), Default::default())],
        hostname: "host".into(),
        admin_key: key(),
        mgrs: vec![("x".into(), key())],
        osds: vec![osd],
        device_class: "ssd".into(),
        pools: vec![pool],
        options: Default::default(),
        seed: [0; 32],
    };
    mkfs(&config, Now::default(), &mut MemoryStorage::default())
        .unwrap_or_else(|_| State::new(Default::default(), Default::default(), Default::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_run() {
        assert!(sample().osd.map().pools.len() == 1, "a whole cluster");
        for (target, seed) in seeds() {
            match target {
                "proposal" => proposal(&seed),
                _ => snapshot(&seed),
            }
        }
        for cmd in ["{\"prefix\": \"status\"}", "{", "[]"] {
            command(cmd.as_bytes());
        }
    }
}
