//! The client against a monitor in memory: real acceptor, real messages, virtual time.
#![cfg(test)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use spirula_auth::{
    AcceptAuth, AcceptStep, AuthenticatedPeer, CryptoKey, EntityAuth, KeyServer, MonAcceptor,
    MonAuthConfig, Principal, RotatingSecrets, handle_auth_message,
};
use spirula_maps::MonMap;
use spirula_wire::msg::auth::{Auth, AuthReply};
use spirula_wire::msg::mon::{
    Log, LogAck, MonCommand, MonCommandAck, MonGetVersion, MonGetVersionReply, MonMapMsg,
    MonSubscribe, log_priority,
};
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityNameStr, EntityType, UTime, Uuid};
use spirula_wire::{Encode, Features, Message, RawMessage};

use crate::*;

const F: Features = Features::PACIFIC;
const HOUR: Duration = Duration::from_secs(3600);
const FSID: Uuid = Uuid([7; 16]);

#[derive(Clone, Default)]
struct Keys {
    entities: BTreeMap<EntityNameStr, EntityAuth>,
    rotating: BTreeMap<EntityType, RotatingSecrets>,
    next_id: u64,
}

impl KeyServer for Keys {
    fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth> {
        self.entities.get(name).cloned()
    }
    fn rotating(&self, service: EntityType) -> Option<RotatingSecrets> {
        self.rotating.get(&service).cloned()
    }
    fn assign_global_id(&mut self) -> Option<u64> {
        Some(self.next_id)
    }
}

struct World {
    now: Now,
    keys: Keys,
    rng: ChaCha20Rng,
    client: MonClient,
    conn: ConnId,
    addr: Option<SocketAddr>,
    peer: Option<AuthenticatedPeer>,
    sent: Vec<RawMessage>,
    events: Vec<Event>,
    keepalives: usize,
    /// The monitor acknowledges keepalives.
    alive: bool,
    closed: Vec<ConnId>,
    /// The monitor takes connections.
    up: bool,
    attempts: Vec<Duration>,
    opening_payload: usize,
}

impl World {
    fn new(name: &str) -> Self {
        let now = Now { mono: Duration::from_secs(100), wall: Duration::from_secs(1_700_000_000) };
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let name: EntityNameStr = name.parse().unwrap();
        let key = CryptoKey::generate(now.wall, &mut rng);
        let caps = [("mon".to_owned(), "allow *".to_owned())].into();
        let mut keys = Keys { next_id: 4100, ..Keys::default() };
        keys.entities.insert(name.clone(), EntityAuth { key: key.clone(), caps });
        let config = Config::new(Principal { name, key }, vec![addr(1)]);
        let mut w = Self {
            now,
            keys,
            rng,
            client: MonClient::new(config, [9; 32]),
            conn: 0,
            addr: None,
            peer: None,
            sent: Vec::new(),
            events: Vec::new(),
            keepalives: 0,
            alive: true,
            closed: Vec::new(),
            up: true,
            attempts: Vec::new(),
            opening_payload: 0,
        };
        w.rotate();
        w
    }

    fn rotate(&mut self) {
        for service in [1, 2, 4, 16, 32] {
            let ttl = if service == 32 { 72 * HOUR } else { HOUR };
            let secrets = self.keys.rotating.entry(EntityType(service)).or_default();
            secrets.rotate(self.now.wall, ttl, &mut self.rng);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall += time;
    }

    /// Lets the client act until it waits.
    fn settle(&mut self) {
        while let Some(action) = self.client.poll_action() {
            match action {
                Action::Connect { conn, addr, mut auth } => {
                    self.attempts.push(self.now.mono);
                    (self.conn, self.addr) = (conn, Some(addr));
                    if !self.up {
                        self.client.handle_closed(self.now, conn, None);
                        continue;
                    }
                    let seed = [self.attempts.len() as u8; 32];
                    let mut mon =
                        MonAcceptor::new(MonAuthConfig::default(), self.keys.clone(), seed);
                    let request = auth.request();
                    let first = mon.request(self.now.wall, 2, &request.modes, &request.payload);
                    let AcceptStep::More(challenge) = first else { panic!("{first:?}") };
                    let proof = auth.more(&challenge).unwrap();
                    self.opening_payload = proof.len();
                    match mon.more(self.now.wall, &proof) {
                        AcceptStep::Done(done) => {
                            let end = auth
                                .done(self.now.wall, done.global_id, done.mode, &done.payload)
                                .unwrap();
                            self.peer = Some(done.peer);
                            self.client.handle_connected(self.now, conn, end.grant);
                        }
                        AcceptStep::Bad { result, allowed_methods, allowed_modes } => {
                            let why = auth
                                .bad_method(2, result, &allowed_methods, &allowed_modes)
                                .unwrap_err();
                            self.client.handle_closed(self.now, conn, Some(why));
                        }
                        AcceptStep::More(_) | AcceptStep::NotYet => panic!(),
                    }
                }
                Action::Send { conn, message } => {
                    assert_eq!(conn, self.conn);
                    self.sent.push(message);
                }
                Action::Keepalive { conn } => {
                    self.keepalives += 1;
                    if self.alive {
                        self.client.handle_keepalive_ack(conn);
                    }
                }
                Action::Close { conn } => self.closed.push(conn),
                Action::Event(event) => self.events.push(event),
            }
        }
    }

    /// Runs the timer that is due next.
    fn step(&mut self) {
        let at = self.client.poll_timeout(self.now).unwrap();
        self.pass(at.saturating_sub(self.now.mono));
        self.client.handle_timeout(self.now);
        self.settle();
    }

    fn start(&mut self) {
        self.step();
        self.give(&monmap(1, &[1]), 0);
        self.sent.clear();
        self.events.clear();
    }

    fn give<M: Message>(&mut self, message: &M, tid: u64) {
        self.client.handle_message(self.now, self.conn, message.to_raw(tid, F));
        self.settle();
    }

    fn drop_session(&mut self) {
        self.client.handle_closed(self.now, self.conn, None);
        self.settle();
    }

    fn take<M: Message>(&mut self) -> Vec<M> {
        let of_type = self.sent.iter().filter(|m| m.header.type_ == M::TYPE);
        of_type.map(|m| M::from_raw(m).unwrap()).collect()
    }

    fn subscription(&mut self) -> String {
        let mut all = Vec::new();
        for s in self.take::<MonSubscribe>() {
            let items = s.what.iter();
            all.extend(
                items
                    .map(|(k, v)| format!("{k}={}{}", v.start, if v.onetime() { "" } else { "+" })),
            );
        }
        all.join(",")
    }

    /// Answers the `auth` message that the client just sent.
    fn answer_auth(&mut self) {
        let requests = self.take::<Auth>();
        assert_eq!(requests.len(), 1);
        let peer = self.peer.clone().unwrap();
        let config = MonAuthConfig::default();
        let payload = &requests[0].payload;
        let (result, payload) =
            handle_auth_message(&config, &self.keys, self.now.wall, &mut self.rng, &peer, payload);
        self.sent.clear();
        let reply =
            AuthReply { protocol: 2, result, payload: payload.into(), ..AuthReply::default() };
        self.give(&reply, 0);
    }
}

fn addr(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 3300).into()
}

fn monmap(epoch: u32, hosts: &[u8]) -> MonMapMsg {
    let mut map = MonMap { epoch, ..MonMap::new(FSID, UTime::default()) };
    for host in hosts {
        let addrs = EntityAddrVec::one(EntityAddr::msgr2(addr(*host), 0));
        map.add(&format!("m{host}"), addrs);
    }
    MonMapMsg { monmap: map.to_bytes(F).into() }
}

#[test]
fn the_first_session_opens_as_ceph_does_it() {
    let mut w = World::new("client.admin");
    let tid = w.client.command(w.now, r#"{"prefix":"status"}"#, Bytes::new());
    w.step();
    let kinds: Vec<_> = w.sent.iter().map(|m| m.header.type_).collect();
    assert_eq!(kinds, [types::MON_GETMAP, types::MON_SUBSCRIBE]);
    assert_eq!(w.subscription(), "config=0+,monmap=0+");
    assert!(matches!(w.events[..], [Event::Connected { global_id: 4100 }]));

    // The command waits for the cluster's id.
    w.sent.clear();
    w.give(&monmap(1, &[1]), 0);
    let commands = w.take::<MonCommand>();
    assert_eq!((commands.len(), commands[0].fsid), (1, FSID));
    assert!(matches!(w.events.last(), Some(Event::MonMap(m)) if m.epoch == 1));
    w.give(&monmap(1, &[1]), 0);
    assert_eq!(w.events.len(), 2, "the same map twice is one event");

    let ack = MonCommandAck { r: -2, rs: "no".into(), ..MonCommandAck::default() };
    w.give(&ack, tid + 1);
    assert_eq!(w.events.len(), 2, "an answer to nothing");
    w.give(&ack, tid);
    assert!(matches!(&w.events[2], Event::Reply { tid: t, reply: Reply::Command { r: -2, .. } }
        if *t == tid));
    w.give(&ack, tid);
    assert_eq!(w.events.len(), 3, "a second answer");
    assert!(!w.client.is_pending(tid));
}

#[test]
fn hunting_backs_off_and_goes_through_all_monitors() {
    let mut w = World::new("client.admin");
    w.up = false;
    let begin = w.now.mono;
    for _ in 0..8 {
        w.step();
    }
    let at: Vec<_> = w.attempts.iter().map(|t| (*t - begin).as_millis()).collect();
    assert_eq!(at, [0, 200, 600, 1400, 3000, 6200, 9400, 12600]);

    let mut w = World::new("client.admin");
    w.start();
    w.give(&monmap(2, &[1, 2, 3]), 0);
    w.up = false;
    w.attempts.clear();
    let mut tried = std::collections::BTreeSet::new();
    w.client.handle_closed(w.now, w.conn, None);
    for _ in 0..3 {
        let Some(Action::Connect { conn, addr, .. }) =
            std::iter::from_fn(|| w.client.poll_action())
                .find(|a| matches!(a, Action::Connect { .. }))
        else {
            panic!()
        };
        tried.insert(addr);
        w.client.handle_closed(w.now, conn, None);
    }
    assert_eq!(tried.len(), 3, "one round reaches each without a pause");
    assert_eq!(w.client.poll_timeout(w.now), Some(w.now.mono + Duration::from_millis(200)));
}

#[test]
fn a_silent_monitor_is_given_up() {
    let mut w = World::new("client.admin");
    w.client.handle_timeout(w.now);
    let Some(Action::Connect { conn, .. }) = w.client.poll_action() else { panic!() };
    w.step();
    assert_eq!(w.closed, [conn]);
    assert_eq!(w.now.mono, Duration::from_secs(103));
    w.client.handle_connected(w.now, conn, None);
    w.settle();
    assert!(!w.client.is_open() && w.closed == [conn, conn], "too late");
}

#[test]
fn a_new_session_continues_the_old() {
    let mut w = World::new("client.admin");
    w.start();
    w.client.subscribe(w.now, "osdmap", 0, false);
    w.client.subscribe(w.now, "mgrmap", 0, false);
    w.client.subscribe(w.now, "osdmap", 4, true);
    w.settle();
    assert_eq!(w.subscription(), "osdmap=0+,mgrmap=0+");
    let maps = [(12, Bytes::new())].into();
    w.give(&OsdMapMsg { fsid: FSID, maps, ..OsdMapMsg::default() }, 0);
    let tid = w.client.get_version(w.now, "osdmap");
    w.settle();
    w.sent.clear();
    w.drop_session();
    assert!(matches!(
        w.events[..],
        [Event::OsdMap(_), Event::Disconnected, Event::Connected { .. }]
    ));
    assert_eq!(w.subscription(), "config=0+,mgrmap=0+,monmap=2+,osdmap=13+");
    assert_eq!(w.client.global_id(), 4100);
    // CephXAuthenticate with the old ticket, as a real client's is for `client.admin`.
    assert_eq!(w.opening_payload, 132);
    assert_eq!(w.take::<MonGetVersion>()[0].handle, tid);
    w.give(&MonGetVersionReply { handle: tid, version: 12, oldest_version: 1 }, 0);
    assert!(matches!(
        w.events.last(),
        Some(Event::Reply { reply: Reply::Version { newest: 12, oldest: 1 }, .. })
    ));
}

#[test]
fn a_lasting_subscription_goes_back_for_what_is_missing() {
    let mut w = World::new("client.admin");
    w.start();
    w.client.subscribe(w.now, "osdmap", 12, false);
    w.settle();
    w.sent.clear();
    w.client.subscribe(w.now, "osdmap", 12, true);
    w.settle();
    assert!(w.sent.is_empty(), "on its way");
    w.client.subscribe(w.now, "osdmap", 0, true);
    w.settle();
    assert_eq!(w.subscription(), "osdmap=0+");
}

#[test]
fn one_time_subscriptions_end_when_served() {
    let mut w = World::new("client.admin");
    w.start();
    w.client.subscribe(w.now, "osdmap", 5, true);
    let older = OsdMapMsg { maps: [(4, Bytes::new())].into(), ..OsdMapMsg::default() };
    w.give(&older, 0);
    w.sent.clear();
    w.drop_session();
    assert!(w.subscription().contains("osdmap=5"), "not served yet");
    let newer = OsdMapMsg { maps: [(6, Bytes::new())].into(), ..OsdMapMsg::default() };
    w.give(&newer, 0);
    w.sent.clear();
    w.drop_session();
    assert!(!w.subscription().contains("osdmap"));
}

#[test]
fn tickets_and_secrets_are_renewed_in_time() {
    let mut w = World::new("osd.0");
    w.step();
    w.sent.retain(|m| m.header.type_ == types::AUTH);
    w.answer_auth();
    let secrets = |w: &World| match w.events.last() {
        Some(Event::RotatingKeys(s)) => s.rotating.max_ver,
        other => panic!("{other:?}"),
    };
    assert_eq!(secrets(&w), 3);
    w.give(&monmap(1, &[1]), 0);
    w.sent.clear();

    let begin = w.now.mono;
    let expires = w.client.grant().tickets[&4].expires;
    while w.sent.is_empty() {
        w.step();
    }
    assert_eq!(w.now.mono - begin, HOUR * 3 / 4);
    w.answer_auth();
    assert!(w.client.grant().tickets[&4].expires > expires);

    // Unanswered, it is repeated; the session goes on.
    while w.sent.is_empty() {
        w.step();
    }
    let first = w.now.mono;
    w.rotate();
    w.sent.clear();
    while w.sent.is_empty() {
        w.step();
    }
    assert_eq!(w.now.mono - first, Duration::from_secs(5));
    w.answer_auth();

    // The monitor rotates after two hours; we ask half a minute later.
    w.pass(begin + 2 * HOUR - w.now.mono);
    w.rotate();
    w.events.clear();
    while w.events.is_empty() {
        w.step();
        if !w.sent.is_empty() {
            w.answer_auth();
        }
    }
    assert_eq!(secrets(&w), 4);
    assert!(w.now.mono - begin < 2 * HOUR + Duration::from_secs(60));
}

#[test]
fn a_forgotten_ticket_costs_only_the_id() {
    let mut w = World::new("client.admin");
    w.start();
    w.keys.rotating.clear();
    w.rng = ChaCha20Rng::seed_from_u64(77);
    w.rotate();
    w.keys.next_id = 5100;
    w.drop_session();
    assert!(w.client.is_open());
    assert_eq!(w.client.global_id(), 5100);
}

#[test]
fn a_refusal_is_told_and_tried_again() {
    let mut w = World::new("client.admin");
    w.keys.entities.clear();
    w.step();
    assert!(matches!(
        &w.events[..],
        [Event::AuthFailed(spirula_auth::AuthError::Refused { result: -13, .. })]
    ));
    assert_eq!(w.client.poll_timeout(w.now), Some(w.now.mono + Duration::from_millis(200)));
    w.client.close();
    assert_eq!(w.client.poll_timeout(w.now), None);
}

#[test]
fn a_session_without_keepalive_answers_ends() {
    for answered in [0, 1, 5] {
        let mut w = World::new("client.admin");
        w.start();
        let first = w.conn;
        (0..answered).for_each(|_| w.step());
        assert_eq!((w.keepalives, &w.closed[..]), (answered, &[][..]));
        w.alive = false;
        let begin = w.now.mono;
        while w.closed.is_empty() {
            w.step();
        }
        assert_eq!(w.now.mono - begin, Duration::from_secs(40));
        assert_eq!(w.closed, [first], "after {answered} answers");
        assert!(w.client.is_open() && w.conn != first);
    }
}

#[test]
fn log_lines_are_kept_until_acknowledged() {
    let mut w = World::new("osd.3");
    w.start();
    w.client.log(w.now, "cluster", log_priority::INFO, "one");
    w.client.log(w.now, "cluster", log_priority::WARN, "two");
    w.settle();
    let logs = w.take::<Log>();
    assert_eq!(logs.iter().map(|l| l.entries.len()).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(logs[0].entries[0].rank.to_string(), "osd.3");
    w.give(&LogAck { fsid: FSID, last: 1, channel: "cluster".into() }, 0);
    w.sent.clear();
    w.drop_session();
    let logs = w.take::<Log>();
    assert_eq!(logs[0].entries.iter().map(|e| e.msg.as_str()).collect::<Vec<_>>(), ["two"]);
}

#[test]
fn what_is_sent_without_a_session_waits_and_garbage_ends_it() {
    let mut w = World::new("client.admin");
    w.client.send(MonGetVersion { handle: 9, what: "x".into() }.to_raw(0, F));
    w.step();
    assert_eq!(w.take::<MonGetVersion>().len(), 1);
    let first = w.conn;
    let mut garbage = monmap(1, &[1]);
    garbage.monmap = Bytes::from_static(b"\xff\xff");
    w.give(&garbage, 0);
    assert_eq!(w.closed, [first]);
    assert_ne!(w.conn, first);
    w.client.handle_message(w.now, first, monmap(9, &[1]).to_raw(0, F));
    assert!(w.client.monmap().is_none(), "from a dead connection");
}

proptest::proptest! {
    #[test]
    fn any_message_is_survived(data in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        crate::fuzzing::monc_messages(&data);
    }
}
