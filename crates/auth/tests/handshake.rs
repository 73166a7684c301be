//! Connectors against acceptors in memory: every way in, and every way that must not be one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use spirula_auth::*;
use spirula_wire::types::{EntityNameStr, EntityType};

const NOW: WallTime = Duration::from_secs(1_700_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const WANT: u32 = 53;
const BOTH: [ConMode; 2] = [ConMode::Secure, ConMode::Crc];

#[derive(Clone, Default)]
struct Keys {
    entities: BTreeMap<EntityNameStr, EntityAuth>,
    rotating: BTreeMap<EntityType, RotatingSecrets>,
    next_id: u64,
    /// None may be given out.
    no_ids: bool,
}

impl KeyServer for Keys {
    fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth> {
        self.entities.get(name).cloned()
    }
    fn rotating(&self, service: EntityType) -> Option<RotatingSecrets> {
        self.rotating.get(&service).cloned()
    }
    fn assign_global_id(&mut self) -> Option<u64> {
        self.next_id += 1;
        (!self.no_ids).then_some(self.next_id)
    }
}

struct World {
    keys: Keys,
    config: MonAuthConfig,
}

impl World {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut keys = Keys { next_id: 4100, ..Keys::default() };
        let caps = |list: &[(&str, &str)]| {
            list.iter().map(|(s, c)| (s.to_string(), c.to_string())).collect()
        };
        for (name, list) in [
            ("client.admin", &[("mon", "allow *"), ("osd", "allow *"), ("mgr", "allow *")][..]),
            ("client.ro", &[("mon", "allow r"), ("osd", "allow r pool=p")]),
            ("client.nomon", &[("osd", "allow *")]),
            ("osd.0", &[("mon", "allow profile osd"), ("osd", "allow *")]),
        ] {
            let key = CryptoKey::generate(NOW, &mut rng);
            keys.entities.insert(name.parse().unwrap(), EntityAuth { key, caps: caps(list) });
        }
        for service in [1, 2, 4, 16, 32] {
            let mut secrets = RotatingSecrets::default();
            secrets.rotate(NOW, if service == 32 { 72 * HOUR } else { HOUR }, &mut rng);
            keys.rotating.insert(EntityType(service), secrets);
        }
        Self { keys, config: MonAuthConfig::default() }
    }

    fn principal(&self, name: &str) -> Principal {
        let name: EntityNameStr = name.parse().unwrap();
        let key = self
            .keys
            .entities
            .get(&name)
            .map(|e| e.key.clone())
            .unwrap_or_else(|| CryptoKey::from_secret(NOW, [9; 16]));
        Principal { name, key }
    }

    fn connector(&self, name: &str, previous: &MonGrant, now: WallTime) -> MonConnector {
        let config = MonConnectConfig {
            principal: self.principal(name),
            methods: vec![METHOD_CEPHX],
            modes: BOTH.to_vec(),
            want: WANT,
        };
        MonConnector::new(config, previous, now, [3; 32])
    }

    fn mon(&self) -> MonAcceptor<Keys> {
        MonAcceptor::new(self.config.clone(), self.keys.clone(), [4; 32])
    }

    fn login(&mut self, name: &str) -> (AcceptDone, ConnectDone) {
        let mut connector = self.connector(name, &MonGrant::default(), NOW);
        let done = run(NOW, &mut connector, &mut self.mon()).unwrap();
        self.keys.next_id += 1;
        done
    }

    fn service(&self, type_: EntityType) -> ServiceAcceptor {
        let rotating = self.keys.rotating[&type_].clone();
        let secrets = Arc::new(ServiceSecrets { rotating, own_key: None });
        ServiceAcceptor::new(ServiceAuthConfig::cephx(type_), secrets, [5; 32])
    }
}

#[derive(Debug)]
enum Failed {
    NotYet,
    Refused(i32, Vec<u32>),
    Connector(AuthError),
}

fn run(
    now: WallTime,
    c: &mut dyn ConnectAuth,
    a: &mut dyn AcceptAuth,
) -> Result<(AcceptDone, ConnectDone), Failed> {
    let mut request = c.request();
    let mut step = a.request(now, request.method, &request.modes, &request.payload);
    loop {
        step = match step {
            AcceptStep::More(p) => {
                let p = c.more(&p).map_err(Failed::Connector)?;
                a.more(now, &p)
            }
            AcceptStep::Done(d) => {
                let end = c.done(now, d.global_id, d.mode, &d.payload);
                return end.map(|e| (d, e)).map_err(Failed::Connector);
            }
            AcceptStep::Bad { result, allowed_methods, allowed_modes } => {
                match c.bad_method(request.method, result, &allowed_methods, &allowed_modes) {
                    Ok(again) => {
                        request = again;
                        a.request(now, request.method, &request.modes, &request.payload)
                    }
                    Err(_) => return Err(Failed::Refused(result, allowed_methods)),
                }
            }
            AcceptStep::NotYet => return Err(Failed::NotYet),
        };
    }
}

fn refused(r: Result<(AcceptDone, ConnectDone), Failed>) -> (i32, Vec<u32>) {
    match r {
        Err(Failed::Refused(result, methods)) => (result, methods),
        Err(Failed::Connector(e)) => panic!("{e}"),
        Err(Failed::NotYet) => panic!("no answer"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_client_logs_in_and_gets_all_tickets() {
    let mut w = World::new();
    let (server, client) = w.login("client.admin");
    assert_eq!(server.session_key, client.session_key);
    assert_eq!(server.connection_secret, client.connection_secret);
    assert_eq!((server.connection_secret.len(), server.mode), (64, ConMode::Secure));
    assert_eq!(server.peer.caps, "allow *");
    let grant = client.grant.unwrap();
    assert_eq!(grant.global_id, 4101);
    assert_eq!(grant.tickets.keys().copied().collect::<Vec<_>>(), [1, 4, 16, 32]);
    assert_eq!(grant.tickets[&32].expires, NOW + 72 * HOUR);
    assert_eq!(grant.tickets[&4].renew_after, NOW + HOUR * 3 / 4);
    // The size that a real monitor sends for `client.admin`.
    assert_eq!(server.payload.len(), 824);
}

#[test]
fn tickets_open_services_in_both_modes() {
    let mut w = World::new();
    let (_, client) = w.login("client.ro");
    let grant = client.grant.unwrap();
    for (modes, len) in [(vec![ConMode::Crc], 0), (vec![ConMode::Secure], 64)] {
        let name = "client.ro".parse().unwrap();
        let mut c = ServiceConnector::new(EntityType::OSD, &grant, &name, modes, [6; 32]).unwrap();
        let (server, done) = run(NOW, &mut c, &mut w.service(EntityType::OSD)).unwrap();
        assert_eq!(server.peer.caps, "allow r pool=p");
        assert_eq!((server.global_id, &server.peer.name), (4101, &name));
        assert_eq!(server.session_key, done.session_key);
        assert_eq!(server.connection_secret, done.connection_secret);
        assert_eq!(done.connection_secret.len(), len);
    }
}

#[test]
fn a_monitor_opens_a_service_with_a_grant_of_its_own() {
    let w = World::new();
    let secrets = &w.keys.rotating[&EntityType::MGR];
    let (name, mut rng) = ("mon.a".parse().unwrap(), ChaCha20Rng::from_seed([9; 32]));
    let grant = own_grant(&name, EntityType::MGR, secrets, HOUR, NOW, &mut rng).unwrap();
    let connect = || {
        let modes = vec![ConMode::Crc];
        ServiceConnector::new(EntityType::MGR, &grant, &name, modes, [6; 32]).unwrap()
    };
    let (server, done) = run(NOW, &mut connect(), &mut w.service(EntityType::MGR)).unwrap();
    assert_eq!((&server.peer.name, server.peer.caps.as_str()), (&name, "allow *"));
    assert_eq!(server.session_key, done.session_key);
    let late = run(NOW + 2 * HOUR, &mut connect(), &mut w.service(EntityType::MGR));
    assert!(late.is_err(), "it expires as any ticket");
    let none = RotatingSecrets::default();
    assert_eq!(own_grant(&name, EntityType::MGR, &none, HOUR, NOW, &mut rng), None);
}

#[test]
fn wrong_key_unknown_entity_and_missing_mon_caps_look_the_same() {
    let w = World::new();
    let mut stranger = w.connector("client.nobody", &MonGrant::default(), NOW);
    assert_eq!(refused(run(NOW, &mut stranger, &mut w.mon())), (-13, vec![2]));
    let mut nomon = w.connector("client.nomon", &MonGrant::default(), NOW);
    assert_eq!(refused(run(NOW, &mut nomon, &mut w.mon())), (-13, vec![2]));
    let config = MonConnectConfig {
        principal: Principal { key: CryptoKey::from_secret(NOW, [1; 16]), ..w.principal("osd.0") },
        methods: vec![METHOD_CEPHX],
        modes: BOTH.to_vec(),
        want: WANT,
    };
    let mut wrong = MonConnector::new(config, &MonGrant::default(), NOW, [3; 32]);
    assert_eq!(refused(run(NOW, &mut wrong, &mut w.mon())), (-13, vec![2]));
}

#[test]
fn a_global_id_is_kept_with_its_ticket_only() {
    let mut w = World::new();
    let grant = *w.login("client.admin").1.grant.unwrap();
    let mut mon = MonAcceptor::new(w.config.clone(), w.keys.clone(), [44; 32]);
    let again = run(NOW, &mut w.connector("client.admin", &grant, NOW), &mut mon).unwrap();
    assert_eq!(again.0.global_id, grant.global_id);
    let renewed = again.1.grant.unwrap();
    // Only the AUTH ticket was due, the others are kept.
    assert_ne!(renewed.tickets[&32], grant.tickets[&32]);
    assert_eq!(renewed.tickets[&4], grant.tickets[&4]);

    let no_ticket = MonGrant { global_id: grant.global_id, ..MonGrant::default() };
    let stolen = MonGrant { global_id: grant.global_id + 9, ..grant.clone() };
    let unasked = MonGrant { global_id: 0, ..grant.clone() };
    for (previous, code) in [(no_ticket, -13), (stolen, -13), (unasked, -22)] {
        let mut c = w.connector("client.admin", &previous, NOW);
        assert_eq!(refused(run(NOW, &mut c, &mut w.mon())), (code, vec![2]));
    }
    let late = NOW + 73 * HOUR;
    let mut c = w.connector("client.admin", &grant, late);
    assert_eq!(refused(run(late, &mut c, &mut w.mon())), (-13, vec![2]));
}

#[test]
fn expired_foreign_and_misdirected_tickets_are_refused() {
    let mut w = World::new();
    let grant = w.login("client.admin").1.grant.unwrap();
    let name = "client.admin".parse().unwrap();
    let connector = |service, grant: &MonGrant| {
        ServiceConnector::new(service, grant, &name, BOTH.to_vec(), [6; 32]).unwrap()
    };
    let mut osd = w.service(EntityType::OSD);
    let late = run(NOW + HOUR, &mut connector(EntityType::OSD, &grant), &mut osd);
    assert_eq!(refused(late), (-13, vec![2]));
    let mut osd = w.service(EntityType::OSD);
    let misdirected = run(NOW, &mut connector(EntityType::MGR, &grant), &mut osd);
    assert_eq!(refused(misdirected), (-13, vec![2]));
    let mut thief = (*grant).clone();
    thief.global_id += 1;
    let mut osd = w.service(EntityType::OSD);
    assert_eq!(
        refused(run(NOW, &mut connector(EntityType::OSD, &thief), &mut osd)),
        (-13, vec![2])
    );
    let mut other = World::new();
    other.keys.rotating.values_mut().for_each(|r| {
        r.rotate(NOW + 9 * HOUR, HOUR, &mut ChaCha20Rng::seed_from_u64(99));
    });
    let mut osd = other.service(EntityType::OSD);
    let stale = run(NOW, &mut connector(EntityType::OSD, &grant), &mut osd);
    assert_eq!(refused(stale), (-13, vec![2]));
    assert!(matches!(
        ServiceConnector::new(EntityType::MDS, &grant, &name, BOTH.to_vec(), [0; 32]),
        Err(AuthError::NoTicket { service: 2 })
    ));
}

#[test]
fn a_recorded_or_altered_authorizer_is_refused() {
    let mut w = World::new();
    let grant = w.login("client.admin").1.grant.unwrap();
    let name = "client.admin".parse().unwrap();
    let new = || {
        ServiceConnector::new(EntityType::OSD, &grant, &name, vec![ConMode::Crc], [6; 32]).unwrap()
    };
    let mut c = new();
    let mut osd = w.service(EntityType::OSD);
    let first = c.request();
    let AcceptStep::More(challenge) = osd.request(NOW, 2, &first.modes, &first.payload) else {
        panic!()
    };
    let proof = c.more(&challenge).unwrap();

    // Replayed against a fresh acceptor, which draws another challenge.
    let secrets = Arc::new(ServiceSecrets {
        rotating: w.keys.rotating[&EntityType::OSD].clone(),
        own_key: None,
    });
    let config = ServiceAuthConfig::cephx(EntityType::OSD);
    let mut other = ServiceAcceptor::new(config, secrets, [77; 32]);
    assert!(matches!(other.request(NOW, 2, &first.modes, &first.payload), AcceptStep::More(_)));
    assert!(matches!(other.more(NOW, &proof), AcceptStep::Bad { result: -13, .. }));

    // The proof as the first frame only earns a challenge; a proof without a challenge nothing.
    let mut skip = w.service(EntityType::OSD);
    assert!(matches!(skip.more(NOW, &proof), AcceptStep::Bad { result: -13, .. }));
    assert!(matches!(skip.request(NOW, 2, &[1], &proof), AcceptStep::More(_)));

    // Any flipped bit is refused, or at least never accepted as somebody else.
    for i in 0..proof.len() {
        let mut bent = proof.clone();
        bent[i] ^= 0x10;
        let mut osd = w.service(EntityType::OSD);
        osd.request(NOW, 2, &first.modes, &first.payload);
        match osd.more(NOW, &bent) {
            AcceptStep::Bad { result: -13, .. } => {}
            AcceptStep::Done(d) => assert_eq!(d.peer.name, name, "byte {i}"),
            AcceptStep::More(_) | AcceptStep::Bad { .. } | AcceptStep::NotYet => panic!("byte {i}"),
        }
    }
    assert!(matches!(osd.more(NOW, &proof), AcceptStep::Done(_)));
    assert!(matches!(osd.more(NOW, &proof), AcceptStep::Bad { result: -13, .. }));
}

#[test]
fn a_false_server_is_noticed() {
    let mut w = World::new();
    let grant = w.login("client.admin").1.grant.unwrap();
    let name = "client.admin".parse().unwrap();
    let mut c =
        ServiceConnector::new(EntityType::OSD, &grant, &name, vec![ConMode::Crc], [6; 32]).unwrap();
    c.request();
    assert!(c.more(&[0; 32]).is_err());
    assert!(c.done(NOW, 1, ConMode::Crc, &[]).is_err());
    assert_eq!(c.done(NOW, 1, ConMode::Secure, &[]).unwrap_err(), AuthError::BadMode(2));
    let mut m = w.connector("client.admin", &MonGrant::default(), NOW);
    m.request();
    assert_eq!(
        m.done(NOW, 1, ConMode::Crc, &[0, 1, 0, 0, 0, 0]).unwrap_err(),
        AuthError::OutOfOrder
    );
}

#[test]
fn tickets_are_renewed_on_the_open_session() {
    let mut w = World::new();
    let (server, client) = w.login("osd.0");
    let mut grant = *client.grant.unwrap();
    let key = w.principal("osd.0").key;
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    assert!(!grant.needs_renewal(NOW, WANT));
    assert_eq!(grant.renew_at(WANT), Some(NOW + HOUR * 3 / 4));

    let due = NOW + HOUR * 3 / 4;
    assert_eq!(grant.needed(due, WANT), 1 | 4 | 16);
    let request = grant.renewal_request(due, WANT, &key, &mut rng).unwrap();
    let (rc, reply) =
        handle_auth_message(&w.config, &w.keys, due, &mut rng, &server.peer, &request);
    assert_eq!(rc, 0);
    assert_eq!(grant.handle_reply(due, &key, &reply), Ok(AuthReplyContent::Tickets));
    assert_eq!(grant.tickets[&4].expires, due + HOUR);

    let rotating = MonGrant::rotating_request();
    let (rc, reply) =
        handle_auth_message(&w.config, &w.keys, due, &mut rng, &server.peer, &rotating);
    assert_eq!(rc, 0);
    let secrets = w.keys.rotating[&EntityType::OSD].clone();
    assert_eq!(grant.handle_reply(due, &key, &reply), Ok(AuthReplyContent::Rotating(secrets)));

    // The AUTH ticket itself, hidden under its old session key.
    let due = NOW + 55 * HOUR;
    for service in [1, 2, 4, 16, 32] {
        let secrets = w.keys.rotating.get_mut(&EntityType(service)).unwrap();
        secrets.rotate(due, if service == 32 { 72 * HOUR } else { HOUR }, &mut rng);
    }
    let old = grant.tickets[&32].clone();
    let request = grant.renewal_request(due, WANT, &key, &mut rng).unwrap();
    let (rc, reply) =
        handle_auth_message(&w.config, &w.keys, due, &mut rng, &server.peer, &request);
    assert_eq!(rc, 0);
    assert_eq!(grant.handle_reply(due, &key, &reply), Ok(AuthReplyContent::Tickets));
    assert_ne!(grant.tickets[&32], old);
    assert_eq!(grant.needed(due, WANT), 0);

    let garbage = handle_auth_message(&w.config, &w.keys, due, &mut rng, &server.peer, &[0, 9]);
    assert_eq!(garbage, (-22, vec![]));
}

#[test]
fn none_is_accepted_where_it_is_allowed() {
    let mut w = World::new();
    let config = MonConnectConfig {
        principal: w.principal("client.admin"),
        methods: vec![METHOD_NONE],
        modes: BOTH.to_vec(),
        want: WANT,
    };
    let mut c = MonConnector::new(config.clone(), &MonGrant::default(), NOW, [1; 32]);
    assert_eq!(refused(run(NOW, &mut c, &mut w.mon())), (-95, vec![2]));

    w.config.service_methods = vec![METHOD_NONE];
    let fallback = MonConnectConfig { methods: vec![METHOD_CEPHX, METHOD_NONE], ..config };
    let mut c = MonConnector::new(fallback, &MonGrant::default(), NOW, [1; 32]);
    let (server, client) = run(NOW, &mut c, &mut w.mon()).unwrap();
    assert!(server.peer.allow_all && server.session_key.is_empty());
    assert_eq!(server.mode, ConMode::Crc);
    let grant = client.grant.unwrap();
    let name = "client.admin".parse().unwrap();
    let mut c =
        ServiceConnector::new(EntityType::OSD, &grant, &name, BOTH.to_vec(), [6; 32]).unwrap();
    let refusal = run(NOW, &mut c, &mut w.service(EntityType::OSD));
    assert_eq!(refused(refusal), (-95, vec![2]));
    let config = ServiceAuthConfig {
        methods: vec![METHOD_NONE],
        ..ServiceAuthConfig::cephx(EntityType::OSD)
    };
    let mut osd = ServiceAcceptor::new(config, Arc::default(), [5; 32]);
    let mut c =
        ServiceConnector::new(EntityType::OSD, &grant, &name, BOTH.to_vec(), [6; 32]).unwrap();
    let (server, _) = run(NOW, &mut c, &mut osd).unwrap();
    assert_eq!((server.global_id, server.peer.name), (grant.global_id, name));
}

#[test]
fn a_monitor_without_global_ids_refuses_nobody() {
    let mut w = World::new();
    let (_, known) = w.login("client.admin");
    w.keys.no_ids = true;
    let mut new = w.connector("client.admin", &MonGrant::default(), NOW);
    assert!(matches!(run(NOW, &mut new, &mut w.mon()), Err(Failed::NotYet)));
    let mut known = w.connector("client.admin", &known.grant.unwrap(), NOW);
    assert!(run(NOW, &mut known, &mut w.mon()).is_ok());
}

#[test]
fn a_mode_that_nobody_shares_is_refused() {
    let w = World::new();
    let mut mon = w.mon();
    assert!(matches!(mon.request(NOW, 2, &[7], &[10]), AcceptStep::Bad { result: -95, .. }));
    assert!(matches!(mon.request(NOW, 2, &[1], &[]), AcceptStep::Bad { result: -13, .. }));
    assert!(matches!(mon.request(NOW, 2, &[1], &[1, 2, 3]), AcceptStep::Bad { result: -13, .. }));
    assert!(matches!(mon.more(NOW, &[]), AcceptStep::Bad { result: -13, .. }));
}
