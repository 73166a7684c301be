//! The manager's core: sessions, reports and what goes to the monitor. Sans-I/O.
//!
//! Methods: inputs are `handle_*` and [`Manager::tick`]; outputs wait in [`Manager::poll_output`].
//! Drain the outputs after every input.
//!
//! Invariants: a daemon's report counts only when its session proved to be that daemon; a command is
//! answered only within the capabilities of the session's ticket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::AuthenticatedPeer;
use spirula_auth::caps::{CommandAccess, MgrCap};
use spirula_maps::OsdMap;
use spirula_wire::msg::command::{Command, CommandReply, Ping};
use spirula_wire::msg::mgr::{
    HealthChecks, MgrBeacon, MgrClose, MgrCommand, MgrCommandReply, MgrConfigure, MgrOpen,
    MgrReport, MonMgrReport,
};
use spirula_wire::msg::osd::{PgStats, PgStatsAck};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddrVec, EntityType, Uuid};
use spirula_wire::{DecodeError, Encode as _, Features, Message, RawMessage};

use crate::command;
use crate::digest;
use crate::pgmap::PgMap;

/// How often daemons report (`mgr_stats_period`).
pub const STATS_PERIOD: Duration = Duration::from_secs(5);
/// How often the monitor hears from us (`mgr_tick_period`).
pub const TICK_PERIOD: Duration = Duration::from_secs(2);
/// Sessions at most; a client that finds the manager full is hung up on.
const SESSIONS_MAX: usize = 10_000;

/// Who this manager is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub fsid: Uuid,
    pub gid: u64,
    pub addrs: EntityAddrVec,
    pub metadata: BTreeMap<String, String>,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Output {
    /// To the session of this id.
    Send(u64, RawMessage),
    Close(u64),
    ToMon(RawMessage),
}

#[derive(Debug)]
struct SessionState {
    auth: Option<AuthenticatedPeer>,
    features: Features,
}

#[derive(Debug)]
pub struct Manager {
    identity: Identity,
    pgmap: PgMap,
    osdmap: Option<Arc<OsdMap>>,
    sessions: BTreeMap<u64, SessionState>,
    /// States of all PGs at the last report: a change is reported at once.
    reported_states: BTreeMap<u64, i32>,
    outputs: VecDeque<Output>,
}

impl Manager {
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            pgmap: PgMap::default(),
            osdmap: None,
            sessions: BTreeMap::new(),
            reported_states: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The monitor knows us by this number.
    pub fn set_gid(&mut self, gid: u64) {
        self.identity.gid = gid;
        self.beacon();
    }

    pub fn pgmap(&self) -> &PgMap {
        &self.pgmap
    }

    pub fn handle_ready(
        &mut self,
        session: u64,
        auth: Option<AuthenticatedPeer>,
        features: Features,
    ) {
        if self.sessions.len() >= SESSIONS_MAX {
            self.outputs.push_back(Output::Close(session));
            return;
        }
        self.sessions.insert(session, SessionState { auth, features });
    }

    pub fn handle_closed(&mut self, session: u64) {
        self.sessions.remove(&session);
    }

    /// A newer OSDMap: PGs and OSDs come and go with it.
    pub fn handle_osdmap(&mut self, map: Arc<OsdMap>, now: Duration) {
        let pools = map.pools.iter().map(|(id, p)| (*id, p.pg_num)).collect();
        self.pgmap.handle_map(&pools, |osd| map.exists(osd), now);
        let was_first = self.osdmap.replace(map).is_none();
        if was_first {
            self.beacon();
        }
        self.report_if_changed();
    }

    /// A message from a daemon or a client; an error means that the session should be closed.
    pub fn handle_message(
        &mut self,
        session: u64,
        raw: &RawMessage,
        now: Duration,
    ) -> Result<(), DecodeError> {
        match raw.header.type_ {
            types::MGR_OPEN => self.handle_open(session, raw),
            types::PG_STATS => self.handle_pg_stats(session, raw, now),
            types::MGR_REPORT => MgrReport::from_raw(raw).map(drop),
            types::MGR_CLOSE => self.handle_close(session, raw),
            types::MGR_COMMAND => self.handle_command(session, raw),
            types::COMMAND => self.handle_tell(session, raw),
            types::PING => {
                self.send(session, &Ping::default(), raw.header.tid);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Call it every [`TICK_PERIOD`].
    pub fn tick(&mut self, now: Duration) {
        self.pgmap.sample(now);
        self.beacon();
        self.report();
    }

    fn handle_open(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        MgrOpen::from_raw(raw)?;
        let configure =
            MgrConfigure { stats_period: STATS_PERIOD.as_secs() as u32, ..MgrConfigure::default() };
        self.send(session, &configure, 0);
        Ok(())
    }

    fn handle_close(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let close = MgrClose::from_raw(raw)?;
        self.send(session, &close, 0);
        Ok(())
    }

    fn handle_pg_stats(
        &mut self,
        session: u64,
        raw: &RawMessage,
        now: Duration,
    ) -> Result<(), DecodeError> {
        let report = PgStats::from_raw(raw)?;
        let Some(osd) = self.osd_of(session) else { return Ok(()) };
        let acked = report.pg_stat.iter().map(|(pg, s)| (*pg, (s.reported_seq, s.reported_epoch)));
        let ack = PgStatsAck { pg_stat: acked.collect() };
        self.pgmap.handle_report(osd, report, now);
        self.send(session, &ack, raw.header.tid);
        self.report_if_changed();
        Ok(())
    }

    /// The OSD that the session proved to be.
    fn osd_of(&self, session: u64) -> Option<i32> {
        let name = &self.sessions.get(&session)?.auth.as_ref()?.name;
        (name.type_ == EntityType::OSD).then(|| name.id.parse().ok()).flatten()
    }

    fn handle_command(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let command = MgrCommand::from_raw(raw)?;
        let reply = self.answer(session, &command.cmd);
        self.send(session, &reply, raw.header.tid);
        Ok(())
    }

    /// `ceph tell mgr`: the same table, in the envelope that every daemon answers.
    fn handle_tell(&mut self, session: u64, raw: &RawMessage) -> Result<(), DecodeError> {
        let command = Command::from_raw(raw)?;
        let reply = self.answer(session, &command.cmd);
        let reply = CommandReply { r: reply.r, rs: reply.rs, outbl: reply.outbl };
        self.send(session, &reply, raw.header.tid);
        Ok(())
    }

    fn answer(&self, session: u64, cmd: &[String]) -> MgrCommandReply {
        let auth = self.sessions.get(&session).and_then(|s| s.auth.as_ref());
        let empty = OsdMap::default();
        let osdmap = self.osdmap.as_deref().unwrap_or(&empty);
        command::answer(cmd, &self.pgmap, osdmap, |asked| auth.is_some_and(|peer| may(peer, asked)))
    }

    fn send(&mut self, session: u64, message: &impl Message, tid: u64) {
        if let Some(state) = self.sessions.get(&session) {
            self.outputs.push_back(Output::Send(session, message.to_raw(tid, state.features)));
        }
    }

    /// Says to the monitor that we live.
    fn beacon(&mut self) {
        if self.identity.gid == 0 {
            return;
        }
        let beacon = MgrBeacon {
            server_addrs: self.identity.addrs.clone(),
            gid: self.identity.gid,
            available: self.osdmap.is_some(),
            name: self.identity.name.clone(),
            fsid: self.identity.fsid,
            module_names: BTreeSet::new(),
            command_descs: command::descriptions(),
            metadata: self.identity.metadata.clone(),
            mgr_features: Features::PACIFIC.0,
            ..MgrBeacon::default()
        };
        self.outputs.push_back(Output::ToMon(beacon.to_raw(0, Features::PACIFIC)));
    }

    /// Users wait for "active+clean": a changed state does not wait for the tick.
    fn report_if_changed(&mut self) {
        if self.pgmap.states() != self.reported_states {
            self.report();
        }
    }

    fn report(&mut self) {
        let Some(osdmap) = &self.osdmap else { return };
        self.reported_states = self.pgmap.states();
        let digest = digest::of(&self.pgmap, osdmap);
        let report = MonMgrReport {
            health_checks: HealthChecks::default(),
            service_map: empty_service_map(self.pgmap.stamp),
            gid: self.identity.gid,
            digest: Bytes::from(digest.to_bytes(Features::PACIFIC)),
            ..MonMgrReport::default()
        };
        self.outputs.push_back(Output::ToMon(report.to_raw(0, Features::PACIFIC)));
    }
}

/// A ServiceMap without services: epoch, time and an empty map (Ceph's `mgr/ServiceMap.cc`).
fn empty_service_map(now: Duration) -> Bytes {
    let f = Features::PACIFIC;
    let mut out = Vec::new();
    spirula_wire::denc::encode_versioned(&mut out, 2, 1, |out| {
        1u32.encode(out, f);
        spirula_wire::types::UTime::from(now).encode(out, f);
        0u32.encode(out, f);
    });
    out.into()
}

fn may(peer: &AuthenticatedPeer, asked: &command::Asked<'_>) -> bool {
    MgrCap::of_peer(peer).is_capable(&CommandAccess {
        name: &peer.name,
        service: asked.module,
        module: "",
        command: asked.prefix,
        args: asked.args,
        need: asked.need,
        addr: None,
    })
}
