//! A PG becomes two: its copy here hands over what belongs to the child.

use spirula_maps::pool::stable_mod;
use spirula_wire::types::{HObject, PgId, SpgId};

use super::{Peering, Stored};

impl Peering {
    /// Takes off what is `child`'s when there are `pg_num` PGs, with the map in which that is first so
    /// and before [`Peering::advance`] to it. The driver moves the objects in the same transaction,
    /// and starts the child with [`Peering::load`] at this PG's epoch.
    ///
    /// Both keep the history, and head and tail of the log: a copy of the child connects with another
    /// one if the copies of the parent did.
    pub fn split_off(&mut self, child: PgId, pg_num: u32) -> Stored {
        let in_child = |object: &HObject| stable_mod(object.hash, pg_num) == child.seed;
        let log = self.log.split(in_child);
        let missing = self.missing.split(in_child);
        let mut info = self.info_now();
        info.pgid = SpgId { pgid: child, shard: self.pgid.shard };
        let epoch = self.map.epoch + 1;
        info.history.last_epoch_split = epoch;
        self.info.history.last_epoch_split = epoch;
        self.refresh_info();
        if missing.is_empty() {
            info.last_complete = info.last_update;
        }
        self.dirty_log = true;
        Stored { info, past: self.past.clone(), log, missing }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use spirula_maps::OsdMap;
    use spirula_wire::types::EVersion;

    use super::*;
    use crate::log::tests::{entry, v};
    use crate::peering::Config;

    #[test]
    fn objects_go_by_their_hash() {
        let pgid = SpgId::whole(PgId::new(1, 0));
        let map = Arc::new(OsdMap::default());
        let mut pg = Peering::create(0, pgid, map, Config::default());
        for (n, name) in (1..).zip(["a", "b", "c", "d"]) {
            pg.append(entry(name, v(1, n), EVersion::default()));
        }
        pg.missing.add_event(&entry("b", v(1, 2), EVersion::default()));
        pg.refresh_info();
        // "a" is 0x61.
        let child = pg.split_off(PgId::new(1, 1), 2);
        let names =
            |log: &crate::PgLog| -> Vec<u8> { log.entries().map(|e| e.object.oid[0]).collect() };
        assert_eq!((names(&pg.log), names(&child.log)), (b"bd".to_vec(), b"ac".to_vec()));
        assert_eq!((pg.missing.len(), child.missing.len()), (1, 0));
        assert_eq!((pg.info.last_update, child.info.last_update), (v(1, 4), v(1, 4)));
        assert_eq!((pg.info.last_complete, child.info.last_complete), (v(0, 0), v(1, 4)));
        assert_eq!(child.info.pgid.to_string(), "1.1");
        let map = Arc::new(OsdMap::default());
        let again = Peering::load(0, child, map, Config::default(), Duration::ZERO);
        assert_eq!(again.log().head(), v(1, 4));
    }
}
