//! Entry points of the fuzz targets. Input that has to be authentic is sealed with a fixed key, so
//! that the decoders behind the cipher are reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode, Encode, Features, Reader};

use crate::protocol::{
    AuthTicket, Authenticate, Authorize, AuthorizeReply, AuthorizerHead, MODE_AUTHORIZER,
    ServiceTicket, ServiceTicketInfo,
};
use crate::*;

const NOW: WallTime = Duration::from_secs(1_700_000_000);
const SECRET_ID: u64 = 2;

/// Capability texts; the first byte selects the service.
pub fn auth_caps(data: &[u8]) {
    let Some((which, text)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let service = ["mon", "osd", "mgr", "mds"][usize::from(which % 4)];
    let _ = caps::check_caps(service, text);
}

/// Keyring files: what parses must print and parse again.
pub fn auth_keyring(data: &[u8]) {
    if let Ok(keyring) = Keyring::parse_bytes(data) {
        let _ = Keyring::parse(&keyring.format());
    }
}

/// All structures, as plaintext.
pub fn auth_protocol(data: &[u8]) {
    let _ = CryptoKey::from_bytes(data);
    let _ = TicketBlob::from_bytes(data);
    let _ = RotatingSecrets::from_bytes(data);
    let _ = AuthTicket::from_bytes(data);
    let _ = Authenticate::from_bytes(data);
    let _ = Authorize::from_bytes(data);
    let _ = AuthorizeReply::from_bytes(data);
    let _ = AuthorizerHead::from_bytes(data);
    let _ = ServiceTicket::from_bytes(data);
    let _ = ServiceTicketInfo::from_bytes(data);
    let _ = key().open_from::<RotatingSecrets>(&mut Reader::new(data));
}

/// A monitor's acceptor and its `auth` messages: the first byte selects which payload is whose.
pub fn auth_accept_mon(data: &[u8]) {
    let Some((which, payload)) = data.split_first() else {
        return;
    };
    let config = MonAuthConfig::default();
    let mut acceptor = MonAcceptor::new(config.clone(), Keys, [0; 32]);
    let name = EntityNameStr::new(EntityType::OSD, "0");
    match which % 3 {
        0 => drop(acceptor.request(NOW, METHOD_CEPHX, &[1], payload)),
        1 => {
            let mut hello = vec![protocol::MODE_MON];
            name.encode(&mut hello, Features::PACIFIC);
            0u64.encode(&mut hello, Features::PACIFIC);
            acceptor.request(NOW, METHOD_CEPHX, &[1], &hello);
            acceptor.more(NOW, payload);
        }
        _ => {
            let mut peer = accept_mon::none_done(name, 7).peer;
            peer.server_challenge = 1;
            let mut rng = ChaCha20Rng::seed_from_u64(0);
            handle_auth_message(&config, &Keys, NOW, &mut rng, &peer, payload);
        }
    }
}

/// A service's acceptor, with the payload as authorizer and as what a ticket holds.
pub fn auth_accept_service(data: &[u8]) {
    let secrets = ServiceSecrets { rotating: rotating(), own_key: Some(key()) };
    let config = ServiceAuthConfig::cephx(EntityType::OSD);
    let mut acceptor = ServiceAcceptor::new(config, Arc::new(secrets), [0; 32]);
    acceptor.request(NOW, METHOD_CEPHX, &[1, 2], data);
    acceptor.more(NOW, data);
    if let Ok(blob) = key().seal(&Raw(data)) {
        let mut authorizer = vec![MODE_AUTHORIZER];
        7u64.encode(&mut authorizer, Features::PACIFIC);
        4u32.encode(&mut authorizer, Features::PACIFIC);
        TicketBlob { secret_id: SECRET_ID, blob }.encode(&mut authorizer, Features::PACIFIC);
        acceptor.request(NOW, METHOD_CEPHX, &[1, 2], &authorizer);
    }
}

/// A connecting client: the payload as AUTH_DONE, and as the reply to an `auth` message.
pub fn auth_connect(data: &[u8]) {
    let config = MonConnectConfig {
        principal: Principal { name: EntityNameStr::new(EntityType::CLIENT, "a"), key: key() },
        methods: vec![METHOD_CEPHX],
        modes: vec![ConMode::Crc],
        want: 53,
    };
    let mut connector = MonConnector::new(config, &MonGrant::default(), NOW, [0; 32]);
    connector.request();
    let _ = connector.more(data);
    let _ = connector.more(&[1; 9]);
    let _ = connector.done(NOW, 1, ConMode::Crc, data);
    let ticket =
        Ticket { session_key: key(), blob: TicketBlob::default(), renew_after: NOW, expires: NOW };
    let mut grant =
        MonGrant { method: METHOD_CEPHX, tickets: [(32, ticket)].into(), ..MonGrant::default() };
    let _ = grant.handle_reply(NOW, &key(), data);
}

struct Raw<'a>(&'a [u8]);

impl Encode for Raw<'_> {
    fn encode(&self, out: &mut Vec<u8>, _: Features) {
        out.extend_from_slice(self.0);
    }
}

struct Keys;

impl KeyServer for Keys {
    fn auth_of(&self, _: &EntityNameStr) -> Option<EntityAuth> {
        let caps = BTreeMap::from([("mon".to_owned(), "allow *".to_owned())]);
        Some(EntityAuth { key: key(), caps })
    }

    fn rotating(&self, _: EntityType) -> Option<RotatingSecrets> {
        Some(rotating())
    }

    fn assign_global_id(&mut self) -> Option<u64> {
        Some(7)
    }
}

fn key() -> CryptoKey {
    CryptoKey::from_secret(NOW, [1; 16])
}

fn rotating() -> RotatingSecrets {
    let secret = ExpiringKey { key: key(), expires: NOW * 2 };
    RotatingSecrets { secrets: [(SECRET_ID, secret)].into(), max_ver: SECRET_ID }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            super::auth_caps(&data);
            super::auth_keyring(&data);
            super::auth_protocol(&data);
            super::auth_accept_mon(&data);
            super::auth_accept_service(&data);
            super::auth_connect(&data);
        }
    }
}
