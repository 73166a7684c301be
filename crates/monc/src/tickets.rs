//! Keeping tickets and rotating secrets fresh on an open session.
//!
//! Invariant: at most one `auth` message is unanswered, since a reply does not name its request.

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use spirula_auth::{
    AuthError, AuthReplyContent, METHOD_CEPHX, MonGrant, RotatingSecrets, ServiceSecrets, WallTime,
};
use spirula_wire::msg::Paxos;
use spirula_wire::msg::auth::{Auth, AuthReply};
use spirula_wire::{Features, Message, RawMessage};

use crate::config::Config;

/// Rotating secrets are asked for so long after the monitor rotates them.
const ROTATION_SLACK: Duration = Duration::from_secs(30);

pub(crate) struct Tickets {
    pub(crate) grant: MonGrant,
    secrets: Option<RotatingSecrets>,
    /// When the unanswered or refused `auth` message may be repeated (wall time).
    retry_at: Option<WallTime>,
    in_flight: bool,
}

/// What an `auth_reply` changed.
pub(crate) enum Refreshed {
    Tickets,
    Secrets(Arc<ServiceSecrets>),
}

impl Tickets {
    pub(crate) fn new() -> Self {
        Self { grant: MonGrant::default(), secrets: None, retry_at: None, in_flight: false }
    }

    pub(crate) fn session_opened(&mut self, grant: MonGrant) {
        self.grant = grant;
        self.session_closed();
    }

    pub(crate) fn session_closed(&mut self) {
        self.in_flight = false;
        self.retry_at = None;
    }

    /// The `auth` message that is due, if any.
    pub(crate) fn due(
        &mut self,
        now: WallTime,
        config: &Config,
        rng: &mut ChaCha20Rng,
        monmap_epoch: u32,
    ) -> Result<Option<RawMessage>, AuthError> {
        if self.grant.method != METHOD_CEPHX || self.retry_at.is_some_and(|t| now < t) {
            return Ok(None);
        }
        let payload = if self.grant.needs_renewal(now, config.want) {
            self.grant.renewal_request(now, config.want, &config.principal.key, rng)?
        } else if config.keep_rotating && now >= self.secrets_due_at() {
            MonGrant::rotating_request()
        } else {
            return Ok(None);
        };
        self.in_flight = true;
        self.retry_at = Some(now + config.timing.auth_retry);
        let message = Auth {
            paxos: Paxos::default(),
            protocol: METHOD_CEPHX,
            payload: payload.into(),
            monmap_epoch,
        };
        Ok(Some(message.to_raw(0, Features::PACIFIC)))
    }

    /// When [`due`](Self::due) is worth a call.
    pub(crate) fn due_at(&self, config: &Config) -> Option<WallTime> {
        if self.grant.method != METHOD_CEPHX {
            return None;
        }
        let tickets = self.grant.renew_at(config.want);
        let secrets = config.keep_rotating.then(|| self.secrets_due_at());
        let due = tickets.into_iter().chain(secrets).min()?;
        Some(self.retry_at.map_or(due, |retry| retry.max(due)))
    }

    pub(crate) fn handle_reply(
        &mut self,
        now: WallTime,
        config: &Config,
        reply: &AuthReply,
    ) -> Result<Option<Refreshed>, AuthError> {
        if !std::mem::take(&mut self.in_flight) {
            return Ok(None);
        }
        if reply.result < 0 {
            return Err(AuthError::Status(reply.result));
        }
        let key = &config.principal.key;
        let content = self.grant.handle_reply(now, key, &reply.payload)?;
        self.retry_at = None;
        Ok(Some(match content {
            AuthReplyContent::Tickets => {
                if self.grant.needs_renewal(now, config.want) {
                    // The monitor left a service out; it may have secrets for it later.
                    self.retry_at = Some(now + config.timing.auth_retry);
                }
                Refreshed::Tickets
            }
            AuthReplyContent::Rotating(secrets) => {
                if self.secrets.as_ref() == Some(&secrets) {
                    // The monitor has not rotated yet.
                    self.retry_at = Some(now + config.timing.auth_retry);
                }
                self.secrets = Some(secrets.clone());
                let own_key = Some(key.clone());
                Refreshed::Secrets(Arc::new(ServiceSecrets { rotating: secrets, own_key }))
            }
        }))
    }

    fn secrets_due_at(&self) -> WallTime {
        self.secrets.as_ref().map_or(Duration::ZERO, |s| s.rotates_at() + ROTATION_SLACK)
    }
}
