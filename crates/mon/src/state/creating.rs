//! PGs that the monitor wants made although their pool is not new.

use std::collections::BTreeMap;

use spirula_maps::{OsdMap, pool_flags};
use spirula_wire::types::PgId;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

/// How the primary of a PG that it knows nothing of makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creating {
    /// Empty, whoever may have had it: an operator gave up its data.
    Anyway,
    /// Once every OSD that exists has said that it has nothing of it, or was declared lost.
    Unless,
}

impl Encode for Creating {
    fn encode(&self, out: &mut Vec<u8>, _: Features) {
        out.push(u8::from(*self == Self::Unless));
    }
}

impl Decode for Creating {
    const MIN_SIZE: usize = 1;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            0 => Ok(Self::Anyway),
            1 => Ok(Self::Unless),
            other => Err(DecodeError::Invalid { what: "creating", value: other.into() }),
        }
    }
}

/// Releases whose pools had one copy stored nothing of a PG that was never written: of their pools any PG
/// may be such a one.
pub(super) fn of_older(map: &OsdMap) -> BTreeMap<PgId, Creating> {
    let old = map.pools.iter().filter(|(_, p)| p.size == 1 && !p.has_flag(pool_flags::CREATING));
    let pgs = old.flat_map(|(id, pool)| (0..pool.pg_num).map(|seed| PgId::new(*id, seed)));
    pgs.map(|pg| (pg, Creating::Unless)).collect()
}

/// What is left to be made after the map changed.
pub(super) fn follow(creating: &mut BTreeMap<PgId, Creating>, old: &OsdMap, new: &OsdMap) {
    let exists = |pg: &PgId| new.pool(pg.pool).is_some_and(|pool| pg.seed < pool.pg_num);
    // With an OSD that was given up data may have gone. That shall be seen, and be an operator's to forget.
    let given_up = old.existing_osds().any(|(id, osd)| {
        let now = new.osd(id).filter(|now| now.exists());
        now.is_none_or(|now| {
            now.info.lost_at != osd.info.lost_at || now.is_destroyed() && !osd.is_destroyed()
        })
    });
    creating.retain(|pg, how| exists(pg) && !(given_up && *how == Creating::Unless));
}

#[cfg(test)]
mod tests {
    use spirula_maps::{PgPool, osd_state};

    use super::*;

    fn map() -> OsdMap {
        let mut map = OsdMap::default();
        map.set_max_osd(2);
        map.osds.iter_mut().for_each(|osd| osd.state = osd_state::EXISTS);
        map.pools.insert(1, PgPool::replicated(1, 1, 2, 0));
        map.pools.insert(2, PgPool::replicated(3, 2, 2, 0));
        let mut new = PgPool::replicated(1, 1, 2, 0);
        new.flags |= pool_flags::CREATING;
        map.pools.insert(3, new);
        map
    }

    #[test]
    fn pgs_of_one_copy_may_never_have_been_stored() {
        let found: Vec<PgId> = of_older(&map()).into_keys().collect();
        assert_eq!(found, [PgId::new(1, 0), PgId::new(1, 1)]);
    }

    #[test]
    fn nothing_is_made_by_itself_once_an_osd_was_given_up() {
        let (old, forced) = (map(), PgId::new(2, 1));
        let all = || {
            let mut all = of_older(&map());
            all.insert(forced, Creating::Anyway);
            all
        };
        let after = |change: &dyn Fn(&mut OsdMap)| {
            let (mut new, mut creating) = (map(), all());
            change(&mut new);
            follow(&mut creating, &old, &new);
            creating.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(after(&|_| {}).len(), 3);
        assert_eq!(after(&|map| map.osds[1].state = 0), [forced]);
        assert_eq!(after(&|map| map.osds[1].info.lost_at = 4), [forced]);
        assert_eq!(after(&|map| map.osds[1].state |= osd_state::DESTROYED), [forced]);
        assert_eq!(after(&|map| _ = map.pools.remove(&2)).len(), 2);
    }
}
