//! The door of the fuzz crate: messages of other OSDs, in any order, to copies in several states.

use std::sync::Arc;
use std::time::Duration;

use spirula_maps::{Osd, OsdMap, osd_state};
use spirula_wire::types::{PgId, SpgId};
use spirula_wire::{Features, Header, Payload, RawMessage, msg::types as t};

use crate::interval::Mapping;
use crate::peering::{Action, Config, PeerMessage, Peering, Slot, State};

const TYPES: [u16; 11] = [
    t::OSD_PG_NOTIFY2,
    t::OSD_PG_QUERY2,
    t::OSD_PG_INFO2,
    t::OSD_PG_LOG,
    t::OSD_PG_LEASE,
    t::OSD_PG_LEASE_ACK,
    t::OSD_PG_TRIM,
    t::OSD_PG_BACKFILL,
    t::OSD_PG_REMOVE,
    t::OSD_RECOVERY_RESERVE,
    t::OSD_BACKFILL_RESERVE,
];

/// Of `data`, each record is: which message, its version, the length of its front (two bytes), front.
pub fn messages(data: &[u8]) {
    let mut copies = copies();
    let mut rest = data;
    while let Some((&[which, version, high, low], body)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(body.len());
        let (front, next) = body.split_at(len);
        rest = next;
        let type_ = TYPES[usize::from(which) % TYPES.len()];
        let header = Header { type_, version: version.into(), ..Header::default() };
        let payload = Payload { front: front.to_vec().into(), ..Payload::default() };
        let Some(message) = PeerMessage::from_raw(&RawMessage { header, payload }) else {
            continue;
        };
        copies.iter_mut().for_each(|pg| feed(pg, &message));
    }
}

/// The record of a message; `None` if it is none of these.
pub fn input_of(raw: &RawMessage) -> Option<Vec<u8>> {
    let which = TYPES.iter().position(|t| *t == raw.header.type_)?;
    let len = u16::try_from(raw.payload.front.len()).ok()?;
    let mut input = vec![which as u8, raw.header.version as u8];
    input.extend_from_slice(&len.to_be_bytes());
    input.extend_from_slice(&raw.payload.front);
    Some(input)
}

fn copies() -> Vec<Peering> {
    let up = Osd { state: osd_state::EXISTS | osd_state::UP, ..Osd::default() };
    let osds = vec![up.clone(), up.clone(), up];
    let map = Arc::new(OsdMap { epoch: u32::MAX, osds, ..OsdMap::default() });
    let states = [
        (0, State::GetInfo),
        (0, State::GetLog),
        (0, State::GetMissing),
        (0, State::Active),
        (1, State::Unknown),
        (1, State::Stray),
        (1, State::ReplicaActive),
    ];
    let make = |(me, state)| {
        let spgid = SpgId::whole(PgId::new(1, 0));
        let mut pg = Peering::create(me, spgid, map.clone(), Config::default());
        let mapping =
            Mapping { up: vec![0, 1, 2], acting: vec![0, 1, 2], size: 3, ..Mapping::default() };
        pg.set_for_fuzzing(mapping, state);
        pg
    };
    states.into_iter().map(make).collect()
}

fn feed(pg: &mut Peering, message: &PeerMessage) {
    for from in [0, 1, 2] {
        pg.handle(from, message.clone(), Duration::from_secs(1));
        while let Some(action) = pg.poll() {
            match action {
                Action::Send { message, .. } => {
                    message.to_raw(Features::PACIFIC);
                }
                Action::AwaitCommit(number) => pg.committed(number, Duration::from_secs(1)),
                Action::LocalReserve { .. } => pg.reserved(Slot::Local),
                Action::RemoteReserve { .. } => pg.reserved(Slot::Remote),
                _ => {}
            }
        }
        pg.recover(3);
        pg.backfill_scans();
        pg.state_bits(Duration::from_secs(1));
    }
}
