//! The other sites that a pool is mirrored with: `mirror_peer_<uuid>`.

use bytes::Bytes;
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::UTime;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use super::{key, listing, pool, uuid};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL, ENOENT, ESTALE};
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"mirror_peer_";

pub(super) const METHODS: &[Method] = &[
    Method::both("mirror_peer_ping", ping),
    Method::reads("mirror_peer_list", list),
    Method::both("mirror_peer_add", add),
    Method::both("mirror_peer_remove", remove),
    Method::both("mirror_peer_set_client", set_client),
    Method::both("mirror_peer_set_cluster", set_cluster),
    Method::both("mirror_peer_set_direction", set_direction),
];

/// Which way images go between a site and this pool. Any number is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Direction(u8);

impl Direction {
    /// To this pool.
    pub(super) const RX: Self = Self(0);
    /// From this pool.
    pub(super) const TX: Self = Self(1);
    pub(super) const RX_TX: Self = Self(2);
}

/// `cls::rbd::MirrorPeer`. A pool id that once was part of it is always -1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uuid: Bytes,
    pub(super) site: Bytes,
    pub(super) client: Bytes,
    pub(super) direction: Direction,
    pub(super) mirror_uuid: Bytes,
    pub(super) last_seen: UTime,
}

impl Peer {
    /// Images come in only with a client that fetches them.
    fn is_valid(&self) -> bool {
        let direction_ok = match self.direction {
            Direction::TX => true,
            Direction::RX | Direction::RX_TX => !self.client.is_empty(),
            _ => false,
        };
        direction_ok && !self.uuid.is_empty() && !self.site.is_empty()
    }
}

impl Encode for Peer {
    fn encode(&self, out: &mut Vec<u8>, features: Features) {
        encode_versioned(out, 2, 1, |out| {
            for name in [&self.uuid, &self.site, &self.client] {
                name.encode(out, features);
            }
            (-1i64).encode(out, features);
            self.direction.0.encode(out, features);
            self.mirror_uuid.encode(out, features);
            self.last_seen.encode(out, features);
        });
    }
}

impl Decode for Peer {
    const MIN_SIZE: usize = 26;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("MirrorPeer", 2, |version, r| {
            let (uuid, site, client) = (Bytes::decode(r)?, Bytes::decode(r)?, Bytes::decode(r)?);
            r.i64()?;
            let mut peer = Self {
                uuid,
                site,
                client,
                direction: Direction::RX_TX,
                mirror_uuid: Bytes::new(),
                last_seen: UTime::default(),
            };
            if version >= 2 {
                peer.direction = Direction(r.u8()?);
                peer.mirror_uuid = Bytes::decode(r)?;
                peer.last_seen = UTime::decode(r)?;
            }
            Ok(peer)
        })
    }
}

/// In order of their uuids.
pub(super) fn all(ctx: &mut dyn Context) -> Outcome<Vec<Peer>> {
    let found = listing::all(ctx, PREFIX)?;
    found.iter().map(|(_, value)| key::stored(value)).collect()
}

fn write(ctx: &mut dyn Context, peer: &Peer) -> Outcome {
    key::write(ctx, &key::join(PREFIX, &peer.uuid), peer)
}

fn require_enabled(ctx: &mut dyn Context) -> Outcome {
    if pool::is_enabled(ctx)? { Ok(()) } else { fail(EINVAL) }
}

fn list(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &all(ctx)?);
    Ok(())
}

/// A site says that it receives from this pool. It is found by its name, else by its uuid, else new.
fn ping(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (site, (mirror_uuid, direction)): (Bytes, (Bytes, u8)) = arguments(input, Decode::decode)?;
    if Direction(direction) != Direction::TX {
        return fail(EINVAL);
    }
    require_enabled(ctx)?;
    if site.is_empty() || mirror_uuid.is_empty() {
        return fail(EINVAL);
    }
    let peers = all(ctx)?;
    let mut peer = match known(&peers, &site, &mirror_uuid) {
        Some(peer) => peer,
        None => Peer {
            uuid: new_uuid(ctx, &peers, &mirror_uuid),
            site,
            client: Bytes::new(),
            direction: Direction::TX,
            mirror_uuid,
            last_seen: UTime::default(),
        },
    };
    if peer.direction == Direction::RX {
        peer.direction = Direction::RX_TX;
    }
    peer.last_seen = ctx.now();
    if !peer.is_valid() {
        return fail(EINVAL);
    }
    write(ctx, &peer)
}

/// The peer that pings, with what it says of itself.
fn known(peers: &[Peer], site: &Bytes, mirror_uuid: &Bytes) -> Option<Peer> {
    let by_site = peers.iter().find(|peer| peer.site == *site);
    if let Some(peer) = by_site
        && (peer.mirror_uuid.is_empty() || peer.mirror_uuid == *mirror_uuid)
    {
        return Some(Peer { mirror_uuid: mirror_uuid.clone(), ..peer.clone() });
    }
    let by_uuid = peers.iter().find(|peer| peer.mirror_uuid == *mirror_uuid);
    match (by_site, by_uuid) {
        // Another peer has the name: it stays with that one.
        (Some(_), Some(peer)) => Some(peer.clone()),
        (None, Some(peer)) => Some(Peer { site: site.clone(), ..peer.clone() }),
        // The site was set up anew.
        (Some(peer), None) => Some(Peer { mirror_uuid: mirror_uuid.clone(), ..peer.clone() }),
        (None, None) => None,
    }
}

fn new_uuid(ctx: &dyn Context, peers: &[Peer], mirror_uuid: &[u8]) -> Bytes {
    let mut salt = mirror_uuid.to_vec();
    loop {
        let uuid = Bytes::from(uuid::fresh(ctx, &salt));
        if peers.iter().all(|peer| peer.uuid != uuid) {
            return uuid;
        }
        salt.push(0);
    }
}

fn add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let peer: Peer = arguments(input, Decode::decode)?;
    require_enabled(ctx)?;
    if !peer.is_valid() {
        return fail(EINVAL);
    }
    if peer.uuid == pool::uuid(ctx)? || peer.direction == Direction::TX {
        return fail(EINVAL);
    }
    for other in all(ctx)? {
        if other.uuid == peer.uuid {
            return fail(ESTALE);
        }
        let same_pool = !peer.mirror_uuid.is_empty() && other.mirror_uuid == peer.mirror_uuid;
        if other.site == peer.site || same_pool {
            return fail(EEXIST);
        }
    }
    write(ctx, &peer)
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let uuid: Bytes = arguments(input, Decode::decode)?;
    key::remove(ctx, &key::join(PREFIX, &uuid))
}

fn set_client(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (uuid, client): (Bytes, Bytes) = arguments(input, Decode::decode)?;
    let peer: Peer = key::read(ctx, &key::join(PREFIX, &uuid))?;
    write(ctx, &Peer { client, ..peer })
}

fn set_cluster(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (uuid, site): (Bytes, Bytes) = arguments(input, Decode::decode)?;
    let (own, others): (Vec<_>, Vec<_>) = all(ctx)?.into_iter().partition(|peer| peer.uuid == uuid);
    if others.iter().any(|peer| peer.site == site) {
        return fail(EEXIST);
    }
    match own.into_iter().next_back() {
        Some(peer) => write(ctx, &Peer { site, ..peer }),
        None => fail(ENOENT),
    }
}

fn set_direction(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (uuid, direction): (Bytes, u8) = arguments(input, Decode::decode)?;
    let peer: Peer = key::read(ctx, &key::join(PREFIX, &uuid))?;
    write(ctx, &Peer { direction: Direction(direction), ..peer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryObject;

    /// As measured, but for uuid and time.
    const NEW: &[u8] =
        b"\x04\0\0\0site\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x01\x06\0\0\0remote";

    #[test]
    fn a_ping_of_an_unknown_site_makes_a_peer() {
        let mut object = MemoryObject { exists: true, ..MemoryObject::default() };
        object.omap.insert(Bytes::from_static(b"mirror_mode"), key::encoded(&1u32));
        object.now = UTime { sec: 1, nsec: 2 };
        let input = Bytes::from_static(b"\x04\0\0\0site\x06\0\0\0remote\x01");
        ping(&mut object, &input, &mut Vec::new()).unwrap();
        let (key, value) = object.omap.pop_last().unwrap();
        let uuid = key.strip_prefix(PREFIX).unwrap();
        assert_eq!(uuid.len(), 36);
        let head = [b"\x02\x01\x4f\0\0\0\x24\0\0\0", uuid].concat();
        assert_eq!(value, [&head, NEW, b"\x01\0\0\0\x02\0\0\0"].concat());
    }
}
