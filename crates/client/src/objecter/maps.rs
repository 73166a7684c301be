//! New maps: following the history, and moving requests where it leads.

use std::time::Duration;

use spirula_wire::msg::osd::OsdMapMsg;

use super::{Action, Objecter};

impl Objecter {
    /// Maps from a monitor or an OSD.
    pub fn handle_map(&mut self, now: Duration, message: &OsdMapMsg) {
        let done = self.maps.handle(message);
        if let Some(error) = done.error {
            tracing::warn!("map not taken: {error}");
        }
        if let Some(start) = done.ask {
            self.actions.push_back(Action::WantMap { start });
        }
        if done.advanced {
            self.map_changed(now);
        }
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
