//! Tickets and secrets: renewal on open sessions, global ids, rotation.

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
use crate::state::{AuthDb, Change};

/// Services whose tickets the monitor seals with rotating secrets.
const SERVICES: [EntityType; 5] =
    [EntityType::MON, EntityType::MDS, EntityType::OSD, EntityType::MGR, EntityType::AUTH];

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

    pub fn rotating(&self, service: EntityType) -> Option<RotatingSecrets> {
        self.state.auth.rotating.get(&service.0).cloned()
    }

    /// A global id that was never given out; `None` until more are reserved.
    pub fn assign_global_id(&mut self) -> Option<u64> {
        let id = self.next_global_id;
        (id <= self.state.auth.max_global_id).then(|| {
            self.next_global_id += 1;
            id
        })
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
        let left = (self.state.auth.max_global_id + 1).saturating_sub(self.next_global_id);
        if left < GLOBAL_IDS_STEP / 2 {
            changes.push(Change::MaxGlobalId(self.state.auth.max_global_id + GLOBAL_IDS_STEP));
        }
        changes
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
