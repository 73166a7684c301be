//! The cluster's log: what an operator should know of this OSD, as lines at the monitor.
//!
//! A line is kept until the monitor acknowledges it, and sent again on each new session: it may come
//! twice, if the acknowledgement was lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use spirula_wire::msg::Paxos;
use spirula_wire::msg::mon::{Log, LogAck, LogEntry, log_priority};
use spirula_wire::types::{EntityName, EntityNameStr, EntityType, UTime};
use spirula_wire::{Features, Message as _, RawMessage};
use spirula_xstream::wall_now;

use crate::target::Target;

/// Lines kept for a monitor that does not answer; older ones are lost.
const KEEP: usize = 1000;

/// The lines that the monitor may not have.
#[derive(Debug, Default)]
pub struct ClusterLog {
    last: Cell<u64>,
    lines: RefCell<VecDeque<LogEntry>>,
}

impl ClusterLog {
    pub fn warn(&self, target: &Target, text: String) {
        tracing::warn!("{text}");
        self.add(target, log_priority::WARN, text);
    }

    pub fn error(&self, target: &Target, text: String) {
        tracing::error!("{text}");
        self.add(target, log_priority::ERROR, text);
    }

    pub fn debug(&self, target: &Target, text: String) {
        tracing::debug!("{text}");
        self.add(target, log_priority::DEBUG, text);
    }

    fn add(&self, target: &Target, prio: u16, msg: String) {
        let id = target.config().osd_id;
        self.last.set(self.last.get() + 1);
        let entry = LogEntry {
            name: EntityNameStr::new(EntityType::OSD, id.to_string()),
            rank: EntityName::osd(id.into()),
            addrs: target.addrs().clone(),
            stamp: UTime::from(wall_now()),
            seq: self.last.get(),
            prio,
            msg,
            channel: "cluster".into(),
        };
        let mut lines = self.lines.borrow_mut();
        lines.push_back(entry.clone());
        if lines.len() > KEEP {
            lines.pop_front();
        }
        drop(lines);
        send(target, vec![entry]);
    }

    /// The session with the monitor is a new one.
    pub fn mon_connected(&self, target: &Target) {
        let entries: Vec<LogEntry> = self.lines.borrow().iter().cloned().collect();
        if !entries.is_empty() {
            send(target, entries);
        }
    }

    /// The monitor has the lines up to one.
    pub fn acknowledged(&self, raw: &RawMessage) {
        match LogAck::from_raw(raw) {
            Ok(ack) => self.lines.borrow_mut().retain(|line| line.seq > ack.last),
            Err(e) => tracing::warn!("log_ack does not decode: {e}"),
        }
    }
}

fn send(target: &Target, entries: Vec<LogEntry>) {
    let fsid = target.config().fsid;
    let message = Log { paxos: Paxos::default(), fsid, entries };
    target.mon().send(target, message.to_raw(0, Features::PACIFIC));
}
