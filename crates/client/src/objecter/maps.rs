//! New maps: following the history, and moving requests where it leads.

use std::time::Duration;

use spirula_wire::msg::osd::OsdMapMsg;

use super::op::Work;
use super::{Action, Objecter};

impl Objecter {
    /// Maps from a monitor or an OSD.
    pub fn handle_map(&mut self, now: Duration, message: &OsdMapMsg) {
        let before = self.epoch();
        let done = self.maps.handle(message);
        if let Some(error) = done.error {
            tracing::warn!("map not taken: {error}");
        }
        if let Some(start) = done.ask {
            self.actions.push_back(Action::WantMap { start });
        }
        if done.advanced {
            self.map_changed(now, before);
        }
    }

    fn map_changed(&mut self, now: Duration, before: u32) {
        self.primaries.clear();
        self.drop_stale_sessions();
        if self.epoch() > before + 1 {
            self.forget_all_sent();
        }
        let tids: Vec<u64> = self.ops.keys().copied().collect();
        for tid in tids {
            self.place(now, tid);
            self.send(now, tid);
        }
        let epoch = self.epoch();
        self.actions.push_back(Action::MapChanged { epoch });
        if epoch < self.newest {
            self.want_newer();
        }
    }

    /// Maps were skipped: by one of them a PG may have left its primary, which then drops what was sent
    /// before, and have come back. An operation that was executed is known by its identity.
    fn forget_all_sent(&mut self) {
        for op in self.ops.values_mut().filter(|op| matches!(op.work, Work::Op(_))) {
            op.sent_at = None;
        }
    }
}
