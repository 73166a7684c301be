//! A monitor's keys and a client's, for tests.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use spirula_auth::{
    AcceptAuth, ConMode, ConnectAuth, CryptoKey, EntityAuth, KeyServer, METHOD_CEPHX, METHOD_NONE,
    MonAcceptor, MonAuthConfig, MonConnectConfig, MonConnector, MonGrant, Principal,
    RotatingSecrets,
};
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Header, Payload, RawMessage};

pub const WANT_ALL: u32 = 1 | 4 | 16 | 32;

pub struct Keys(pub Duration);

pub fn client_key() -> CryptoKey {
    CryptoKey::from_secret(Duration::ZERO, *b"a client's key..")
}

impl KeyServer for Keys {
    fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth> {
        (name.to_string() == "client.admin").then(|| EntityAuth {
            key: client_key(),
            caps: [("mon".into(), "allow *".into())].into(),
        })
    }

    fn rotating(&self, _: EntityType) -> Option<RotatingSecrets> {
        let mut secrets = RotatingSecrets::default();
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        secrets.rotate(self.0, Duration::from_secs(3600), &mut rng);
        Some(secrets)
    }

    fn assign_global_id(&mut self) -> Option<u64> {
        Some(4242)
    }
}

pub fn acceptor(cephx: bool, now: Duration) -> Box<dyn AcceptAuth> {
    let methods = vec![if cephx { METHOD_CEPHX } else { METHOD_NONE }];
    let config = MonAuthConfig {
        cluster_methods: methods.clone(),
        service_methods: methods,
        ..MonAuthConfig::default()
    };
    Box::new(MonAcceptor::new(config, Keys(now), [1; 32]))
}

pub fn connector(key: CryptoKey, mode: ConMode, now: Duration) -> Box<dyn ConnectAuth> {
    let config = MonConnectConfig {
        principal: Principal { name: EntityNameStr::new(EntityType::CLIENT, "admin"), key },
        methods: vec![METHOD_CEPHX, METHOD_NONE],
        modes: vec![mode],
        want: WANT_ALL,
    };
    Box::new(MonConnector::new(config, &MonGrant::default(), now, [2; 32]))
}

pub fn client(mode: ConMode, now: Duration) -> Box<dyn ConnectAuth> {
    connector(client_key(), mode, now)
}

pub fn message(tid: u64, front: usize, data: usize) -> RawMessage {
    let bytes = |len: usize| (0..len).map(|i| (i as u64 * 7 + tid) as u8).collect::<Vec<u8>>();
    RawMessage {
        header: Header { type_: 42, tid, version: 1, compat_version: 1, ..Header::default() },
        payload: Payload {
            front: bytes(front).into(),
            data: vec![bytes(data).into()],
            ..Payload::default()
        },
    }
}
