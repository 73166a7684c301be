//! Tickets and secrets: renewal on open sessions, global ids, rotation.

use std::time::Duration;

use spirula_auth::{
    ConMode, EntityAuth, KeyServer, METHOD_CEPHX, METHOD_NONE, MonAuthConfig, MonGrant,
    RotatingSecrets, handle_auth_message, own_grant,
};
use spirula_wire::msg::auth::{Auth, AuthReply};
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{DecodeError, Message, RawMessage};

use super::{Service, SessionId};
use crate::Now;
use crate::limits::GLOBAL_IDS_STEP;
use crate::options::Settings;
use crate::peer::PeerMessage;
use crate::quorum::Role;
use crate::state::{AuthDb, Change, Proposal};

/// Services whose tickets the monitor seals with rotating secrets.
const SERVICES: [EntityType; 5] =
    [EntityType::MON, EntityType::MDS, EntityType::OSD, EntityType::MGR, EntityType::AUTH];

/// A question for global ids is repeated after this.
const ASK_AGAIN: Duration = Duration::from_secs(2);

impl Service {
    /// Answers ticket renewals and requests for rotating secrets.
    pub(super) fn auth(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<(), DecodeError> {
        let request = Auth::from_raw(raw)?;
        let Some(session) = self.sessions.get(&id) else {
            return Ok(());
        };
        let peer = session.peer.auth.clone();
        let config = self.auth_config();
        let keys = Keys(&self.state.auth);
        let (result, payload) =
            handle_auth_message(&config, &keys, now.wall, &mut self.rng, &peer, &request.payload);
        let reply = AuthReply {
            protocol: if peer.allow_all { METHOD_NONE } else { METHOD_CEPHX },
            result,
            global_id: peer.global_id,
            payload: payload.into(),
            message: String::new(),
        };
        self.reply(id, raw, &reply);
        Ok(())
    }

    /// What a handshake needs of an entity.
    pub fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth> {
        self.state.auth.get(name).cloned()
    }

    /// Whether an entity is let in: monitors always, others where they can be answered and get an
    /// id.
    pub fn lets_in(&self, now: Now, name: &EntityNameStr) -> bool {
        name.type_ == EntityType::MON || (self.is_served(now) && !self.own_ids.is_empty())
    }

    pub fn rotating(&self, service: EntityType) -> Option<RotatingSecrets> {
        self.state.auth.rotating.get(&service.0).cloned()
    }

    /// A global id that was never given out; `None` until more are reserved.
    pub fn assign_global_id(&mut self) -> Option<u64> {
        let range = self.own_ids.front_mut()?;
        let id = range.next();
        if range.is_empty() {
            self.own_ids.pop_front();
        }
        id
    }

    /// What this monitor needs for a session of its own to a service; `None` while there are no
    /// secrets of that service.
    pub fn own_grant(&mut self, now: Now, service: EntityType) -> Option<MonGrant> {
        let secrets = self.state.auth.rotating.get(&service.0)?;
        let ttl = self.settings.secs("auth_service_ticket_ttl");
        let name = EntityNameStr::new(EntityType::MON, self.live.name.clone());
        own_grant(&name, service, secrets, ttl, now.wall, &mut self.rng)
    }

    /// The handshake's configuration as the options say.
    pub fn handshake_config(&self) -> MonAuthConfig {
        self.auth_config()
    }

    /// Changes that keep secrets rotating and global ids in reserve.
    pub(super) fn auth_upkeep(&mut self, now: Now) -> Vec<Change> {
        let mut changes = rotation(&self.state.auth, &self.settings, now, &mut self.rng);
        if self.is_short_of_ids() {
            changes.push(Change::GlobalIds { run: self.run, count: GLOBAL_IDS_STEP });
        }
        changes
    }

    fn is_short_of_ids(&self) -> bool {
        let left: u64 = self.own_ids.iter().map(|r| r.end() + 1 - r.start()).sum();
        left < GLOBAL_IDS_STEP / 2
    }

    /// A follower asks the leader for more of them.
    pub(super) fn ask_for_ids(&mut self, now: Now) {
        let due = now.mono >= self.asked_ids + ASK_AGAIN || self.asked_ids.is_zero();
        if let Role::Follows(leader) = self.quorum.role()
            && self.is_short_of_ids()
            && due
        {
            self.asked_ids = now.mono;
            self.tell(leader, &PeerMessage::WantIds(self.run));
        }
    }

    /// Takes the global ids that a proposal, just applied, gave to this monitor.
    pub(super) fn take_ids(&mut self, proposal: &Proposal) {
        let given = |c: &Change| match c {
            Change::GlobalIds { run, count } => Some((*run, *count)),
            _ => None,
        };
        let mut last = self.state.auth.max_global_id;
        for (run, count) in proposal.changes.iter().rev().filter_map(given) {
            let first = last.saturating_sub(count) + 1;
            if run == self.run && first <= last {
                self.own_ids.push_back(first..=last);
            }
            last = first - 1;
        }
    }
}

/// New rotating secrets where they are due.
pub(crate) fn rotation(
    auth: &AuthDb,
    settings: &Settings,
    now: Now,
    rng: &mut rand_chacha::ChaCha20Rng,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for service in SERVICES {
        let mut secrets = auth.rotating.get(&service.0).cloned().unwrap_or_default();
        let ttl = match service {
            EntityType::AUTH => settings.secs("auth_mon_ticket_ttl"),
            _ => settings.secs("auth_service_ticket_ttl"),
        };
        if secrets.rotate(now.wall, ttl, rng) > 0 {
            changes.push(Change::Rotate { service: service.0, secrets });
        }
    }
    changes
}

pub(super) fn config(settings: &Settings) -> MonAuthConfig {
    let methods = |option: &str| -> Vec<u32> {
        let names = settings.str(option).split([',', ' ', ';']);
        names
            .filter_map(|name| match name.trim() {
                "cephx" => Some(METHOD_CEPHX),
                "none" => Some(METHOD_NONE),
                _ => None,
            })
            .collect()
    };
    let modes =
        settings.str("ms_mon_service_mode").split([',', ' ']).filter_map(|m| match m.trim() {
            "secure" => Some(ConMode::Secure),
            "crc" => Some(ConMode::Crc),
            _ => None,
        });
    MonAuthConfig {
        cluster_methods: methods("auth_cluster_required"),
        service_methods: methods("auth_service_required"),
        modes: modes.collect(),
        mon_ticket_ttl: settings.secs("auth_mon_ticket_ttl"),
        service_ticket_ttl: settings.secs("auth_service_ticket_ttl"),
        allow_insecure_global_id_reclaim: settings.bool("auth_allow_insecure_global_id_reclaim"),
    }
}

/// The auth database as renewal reads it.
struct Keys<'a>(&'a AuthDb);

impl KeyServer for Keys<'_> {
    fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth> {
        self.0.get(name).cloned()
    }

    fn rotating(&self, service: EntityType) -> Option<RotatingSecrets> {
        self.0.rotating.get(&service.0).cloned()
    }

    /// Renewal never needs one.
    fn assign_global_id(&mut self) -> Option<u64> {
        None
    }
}
