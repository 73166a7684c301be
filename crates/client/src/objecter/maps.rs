//! New maps: following the history, and moving requests where it leads.

use std::sync::Arc;
use std::time::Duration;

use spirula_maps::{Incremental, OsdMap};
use spirula_wire::Decode as _;
use spirula_wire::msg::osd::OsdMapMsg;

use super::{Action, Objecter};

/// How far a message brought us.
enum Led {
    ToTheEnd,
    /// Epochs in between are missing.
    Gap,
    /// A map does not decode or does not fit.
    Broken,
}

impl Objecter {
    /// Maps from a monitor or an OSD. One that does not fit or decode is skipped, and a whole map
    /// asked for instead.
    pub fn handle_map(&mut self, now: Duration, message: &OsdMapMsg) {
        if self.map.as_ref().is_some_and(|m| m.fsid != message.fsid) {
            tracing::warn!("map of another cluster ignored");
            return;
        }
        let before = self.epoch();
        let last = message.maps.keys().chain(message.incremental_maps.keys());
        let Some(&last) = last.max() else {
            return;
        };
        if last <= before {
            return;
        }
        match self.follow(message, last) {
            Led::ToTheEnd => {}
            Led::Gap => self.want_newer(),
            // Only a whole map helps; if that was one, asking at once would go on for ever.
            Led::Broken if message.maps.is_empty() => {
                self.actions.push_back(Action::WantMap { start: 0 });
            }
            Led::Broken => tracing::warn!(last, "a map cannot be used"),
        }
        if self.epoch() > before {
            self.map_changed(now);
        }
    }

    /// Steps from epoch to epoch as far as the message leads.
    fn follow(&mut self, message: &OsdMapMsg, last: u32) -> Led {
        while self.epoch() < last {
            let next = self.epoch() + 1;
            let inc = message.incremental_maps.get(&next);
            let step = self.map.as_ref().zip(inc).and_then(|(old, inc)| {
                let mut map = OsdMap::clone(old);
                map.apply(&Incremental::from_bytes(inc).ok()?).ok()?;
                Some(map)
            });
            // A whole map may skip epochs that nobody has any more.
            let mut wholes = message.maps.range(next..).peekable();
            let offered = inc.is_some() && self.map.is_some() || wholes.peek().is_some();
            let map = step.or_else(|| wholes.find_map(|(_, b)| OsdMap::from_bytes(b).ok()));
            match map {
                Some(map) if map.epoch >= next => self.map = Some(Arc::new(map)),
                Some(_) => return Led::Broken,
                None if offered => return Led::Broken,
                None => return Led::Gap,
            }
        }
        Led::ToTheEnd
    }

    fn map_changed(&mut self, now: Duration) {
        self.primaries.clear();
        self.drop_stale_sessions();
        let tids: Vec<u64> = self.ops.keys().copied().collect();
        for tid in tids {
            self.place(now, tid);
        }
        let epoch = self.epoch();
        self.actions.push_back(Action::MapChanged { epoch });
        if epoch < self.newest {
            self.want_newer();
        }
    }
}
