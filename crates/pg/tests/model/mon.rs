//! The monitor: it turns what it is asked for, and what it notices, into the next map.

use std::sync::Arc;

use spirula_maps::{NewCluster, OsdMap, PgPool, WEIGHT_IN, osd_state};
use spirula_wire::types::{PgId, UTime, Uuid};

pub(crate) const PGID: PgId = PgId { pool: 1, seed: 0 };

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    Boot(i32),
    UpThru(i32, u32),
    PgTemp(i32, Vec<i32>),
    /// Of the life of an OSD that began in this epoch.
    Down {
        osd: i32,
        up_from: u32,
        dead: bool,
    },
    Weight(i32, u32),
    Pool {
        size: u8,
        min_size: u8,
    },
    /// An exception that nobody asked for.
    Temp(Vec<i32>),
}

pub(crate) struct Mon {
    pub(crate) maps: Vec<Arc<OsdMap>>,
    pub(crate) requests: Vec<Request>,
}

impl Mon {
    /// Epoch 1 has the pool, with all OSDs up.
    pub(crate) fn new(osds: usize, size: u8, min_size: u8) -> Self {
        let mut new = NewCluster::new(Uuid([7; 16]), UTime { sec: 1, nsec: 0 });
        new.osds = (0..osds).map(|i| (Uuid([i as u8 + 1; 16]), WEIGHT_IN)).collect();
        new.failure_domain = "osd".into();
        let mut map = new.osdmap().unwrap();
        for osd in &mut map.osds {
            osd.state |= osd_state::UP;
            osd.info.up_from = 1;
        }
        map.pools.insert(1, PgPool::replicated(size, min_size, 1, 0));
        Self { maps: vec![Arc::new(map)], requests: Vec::new() }
    }

    pub(crate) fn current(&self) -> &Arc<OsdMap> {
        self.maps.last().unwrap()
    }

    pub(crate) fn map(&self, epoch: u32) -> Arc<OsdMap> {
        self.maps[epoch as usize - 1].clone()
    }

    pub(crate) fn down(&self, osd: i32, dead: bool) -> Request {
        let up_from = self.current().osds[osd as usize].info.up_from;
        Request::Down { osd, up_from, dead }
    }

    /// The next map, by all that was asked for.
    pub(crate) fn propose(&mut self) {
        let mut map = OsdMap::clone(self.current());
        map.epoch += 1;
        for request in std::mem::take(&mut self.requests) {
            if let Some(later) = apply(&mut map, request) {
                self.requests.push(later);
            }
        }
        // An exception that says nothing goes.
        let mut plain = map.clone();
        plain.pg_temp.clear();
        let (found, bare) = (map.pg_to_up_acting(PGID), plain.pg_to_up_acting(PGID));
        if found == bare {
            map.pg_temp.clear();
        }
        self.maps.push(Arc::new(map));
    }
}

/// What has to wait for the map after is given back.
fn apply(map: &mut OsdMap, request: Request) -> Option<Request> {
    let epoch = map.epoch;
    match request {
        Request::Boot(id) => {
            let osd = &mut map.osds[id as usize];
            if osd.is_up() {
                osd.state &= !osd_state::UP;
                osd.info.down_at = epoch;
                return Some(request);
            }
            if osd.info.down_at == epoch {
                return Some(request);
            }
            osd.state |= osd_state::UP;
            osd.info.up_from = epoch;
        }
        Request::UpThru(id, want) if map.is_up(id) => {
            let info = &mut map.osds[id as usize].info;
            info.up_thru = info.up_thru.max(want);
        }
        Request::PgTemp(from, want) if map.pg_to_up_acting(PGID).acting_primary == from => {
            if want.is_empty() {
                map.pg_temp.remove(&PGID);
            } else {
                map.pg_temp.insert(PGID, want);
            }
        }
        Request::Down { osd, up_from, dead }
            if map.is_up(osd) && map.osds[osd as usize].info.up_from == up_from =>
        {
            let osd = &mut map.osds[osd as usize];
            osd.state &= !osd_state::UP;
            osd.info.down_at = epoch;
            if dead {
                osd.xinfo.dead_epoch = epoch;
            }
        }
        Request::Weight(id, weight) => map.osds[id as usize].weight = weight,
        Request::Pool { size, min_size } => {
            let pool = map.pools.get_mut(&PGID.pool).unwrap();
            (pool.size, pool.min_size) = (size, min_size);
        }
        Request::Temp(osds) => _ = map.pg_temp.insert(PGID, osds),
        _ => {}
    }
    None
}
