//! Entry points of the fuzz targets; each must return for any input.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{AuthenticatedPeer, CryptoKey};
use spirula_wire::msg::mon::{MonGetVersion, MonPeer};
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityNameStr, EntityType, Uuid};
use spirula_wire::{Decode, Encode, Features, Message, Reader};

use crate::mkfs::{MkfsConfig, NewOsd, NewPoolSpec, mkfs, mkfs_peer, open};
use crate::peer::{PeerMessage, View};
use crate::quorum::{Output, Quorum, QuorumMessage};
use crate::state::Change;
use crate::storage::{FIRST_NODE, MemoryStorage, Storage};
use crate::{Action, Now, Peer, Proposal, Service, ServiceConfig, State};

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

/// Messages of the quorum to one of three monitors, while time passes: each is a byte for the sender,
/// or for a tick, and the message. What is sent must decode again.
pub fn quorum(data: &[u8]) {
    static STORE: LazyLock<MemoryStorage> = LazyLock::new(|| store_of(&sample_of(3), FIRST_NODE));
    let Ok(stored) = STORE.clone().load() else { return };
    let mut now = Duration::from_secs(1);
    let mut quorum = Quorum::new(&stored, 1, now);
    let mut r = Reader::new(data);
    while let Ok(from) = r.u8() {
        match from {
            0 => {
                now += Duration::from_millis(100);
                quorum.tick(now);
            }
            from => match QuorumMessage::decode(&mut r) {
                Ok(message) => quorum.message(now, from.into(), message),
                Err(_) => return,
            },
        }
        while let Some(output) = quorum.poll_output() {
            match output {
                Output::Write(number, _) => quorum.written(number),
                Output::Send(_, message) => {
                    let again = QuorumMessage::from_bytes(&message.to_bytes(F));
                    assert_eq!(again.as_ref(), Ok(&message));
                }
                _ => {}
            }
        }
    }
}

/// Bodies of messages to one of three monitors, each a byte for the sender and a body with its length.
pub fn peer(data: &[u8]) {
    static STORE: LazyLock<MemoryStorage> = LazyLock::new(|| store_of(&sample_of(3), FIRST_NODE));
    let mut now = Now { mono: Duration::from_secs(1), wall: Duration::from_secs(1 << 30) };
    let config = ServiceConfig { name: "a".into(), ..ServiceConfig::default() };
    let Ok((state, stored)) = open(&mut STORE.clone(), None) else { return };
    let mut service = Service::new(config, state, &stored, now);
    let mut r = Reader::new(data);
    while let (Ok(from), Ok(body)) = (r.u8(), r.blob("body")) {
        let session = u64::from(from);
        if let Ok(message) = PeerMessage::from_bytes(body) {
            let once = message.to_bytes(F);
            let twice = PeerMessage::from_bytes(&once).map(|m| m.to_bytes(F));
            assert_eq!(twice.as_ref(), Ok(&once));
        }
        if !service.live().peers.contains_key(&session) {
            service.session_opened(now, session, monitor());
        }
        let name = ["a", "b", "c", "d"][usize::from(from % 4)].to_owned();
        let body = Bytes::copy_from_slice(body);
        let message = MonPeer { from: session + 1, to: FIRST_NODE, name, body };
        service.message(now, session, message.to_raw(0, F));
        now = Now { mono: now.mono + TICK, wall: now.wall + TICK };
        service.tick(now);
        while let Some(action) = service.poll_action() {
            match action {
                Action::Write(number, _) => service.written(now, number),
                Action::Close(id) => service.session_closed(now, id),
                Action::Fail(_) | Action::Removed => return,
                _ => {}
            }
        }
    }
}

/// Between two messages.
const TICK: Duration = Duration::from_millis(100);

/// Another monitor, as its session shows it.
fn monitor() -> Peer {
    let auth = AuthenticatedPeer {
        name: EntityNameStr::new(EntityType::MON, ""),
        global_id: 1,
        caps: "allow *".into(),
        allow_all: false,
        expires: Duration::MAX,
        server_challenge: 0,
    };
    let (addrs, socket_addr) = (EntityAddrVec::default(), EntityAddr::default());
    Peer { auth, addrs, socket_addr, features: F.0 }
}

/// The store of the monitor of that number of a new cluster.
fn store_of(state: &State, node: u64) -> MemoryStorage {
    let mut storage = MemoryStorage::default();
    let name = state.members.get(&node).cloned().unwrap_or_default();
    // Only a name that is not there is refused.
    _ = mkfs_peer(state, &name, &mut storage);
    storage
}

/// Bodies as monitors write them.
fn bodies() -> Vec<PeerMessage> {
    let raw = MonGetVersion { handle: 1, what: "osdmap".into() }.to_raw(7, F);
    let heartbeat = |leader: u64| {
        let mut out = vec![5];
        [2, leader, 1, 1, 1].iter().for_each(|n: &u64| n.encode(&mut out, F));
        0u32.encode(&mut out, F);
        QuorumMessage::from_bytes(&out)
    };
    let view = View { term: 2, quorum: vec![1, 2, 3], age: TICK, index: 1 };
    let mut all = vec![
        PeerMessage::View(view),
        PeerMessage::Opened(9, monitor()),
        PeerMessage::Forward(9, 1, raw.clone()),
        PeerMessage::Gone(9),
        PeerMessage::Route(9, raw.clone()),
        PeerMessage::Done(1),
        PeerMessage::Close(9),
        PeerMessage::WantIds(5),
        PeerMessage::Report(raw),
        PeerMessage::Join,
        PeerMessage::Metadata([("k".to_owned(), "v".to_owned())].into()),
        PeerMessage::AskTime(1),
        PeerMessage::Time(1, TICK),
    ];
    all.splice(0..0, heartbeat(2).map(PeerMessage::Quorum));
    all
}

/// A run of messages in the framing of [`peer`].
fn peer_seed(bodies: &[PeerMessage]) -> Vec<u8> {
    let mut out = Vec::new();
    for body in bodies {
        out.push(1);
        body.to_bytes(F).encode(&mut out, F);
    }
    out
}

/// A whole election, and a follower that is sent entries and a snapshot, for [`quorum`].
fn quorum_seeds() -> Vec<Vec<u8>> {
    let fields = |out: &mut Vec<u8>, tag: u8, fields: &[u64]| {
        out.push(tag);
        fields.iter().for_each(|n| n.encode(out, F));
    };
    let mut leads = vec![0; 12];
    for (tag, term) in [(2, 2), (4, 2)] {
        leads.push(2);
        fields(&mut leads, tag, &[term, 2, 1]);
    }
    leads.push(2);
    fields(&mut leads, 6, &[2, 2, 1, 2, 0, 0]);
    leads.extend([0, 2]);
    fields(&mut leads, 10, &[2, 2, 0]);
    let mut follows = vec![2];
    fields(&mut follows, 5, &[2, 2, 1, 1, 1]);
    1u32.encode(&mut follows, F);
    [2u64, 2].iter().for_each(|n| n.encode(&mut follows, F));
    follows.push(0);
    b"entry".to_vec().encode(&mut follows, F);
    follows.push(2);
    fields(&mut follows, 7, &[2, 2, 9, 2]);
    vec![1u64, 2, 3].encode(&mut follows, F);
    b"state".to_vec().encode(&mut follows, F);
    for tag in [1, 3] {
        follows.push(3);
        fields(&mut follows, tag, &[3, 3, 9, 2]);
    }
    follows.push(3);
    fields(&mut follows, 9, &[3, 3, 1]);
    vec![leads, follows]
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
    out.extend(quorum_seeds().into_iter().map(|seed| ("quorum", seed)));
    let bodies = bodies();
    out.extend(bodies.iter().map(|body| ("peer", peer_seed(std::slice::from_ref(body)))));
    out.push(("peer", peer_seed(&bodies)));
    out
}

/// A new cluster with an OSD and a pool; without them if they cannot be made.
fn sample() -> State {
    sample_of(1)
}

fn sample_of(mons: usize) -> State {
    let key = || CryptoKey::from_secret(std::time::Duration::from_secs(1), [1; 16]);
    let osd = NewOsd { uuid: Uuid([2; 16]), key: key(), bytes: 1 << 40 };
    let pool = NewPoolSpec { name: "data".into(), pg_num: 8, application: "rados".into() };
    let config = MkfsConfig {
        fsid: Uuid([1; 16]),
        mons: ["a", "b", "c"][..mons].iter().map(|n| ((*n).into(), Default::default())).collect(),
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
                "quorum" => quorum(&seed),
                "peer" => peer(&seed),
                _ => snapshot(&seed),
            }
        }
        for cmd in ["{\"prefix\": \"status\"}", "{", "[]"] {
            command(cmd.as_bytes());
        }
    }
}
