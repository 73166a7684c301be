//! A monitor over storage in memory, with sessions that are lists of messages.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{AuthenticatedPeer, CryptoKey};
use spirula_maps::OsdMap;
use spirula_mon::{
    Action, MemoryStorage, MkfsConfig, NewOsd, NewPoolSpec, Now, Peer, Service, ServiceConfig,
    Storage, mkfs, open,
};
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mgr::MgrBeacon;
use spirula_wire::msg::mon::{MonCommand, MonCommandAck, MonSubscribe, SubscribeItem};
use spirula_wire::msg::osd::{OsdBeacon, OsdBoot};
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityNameStr, OsdSuperblock, PgId, Uuid};
use spirula_wire::{Features, Message, RawMessage};

pub(crate) const F: Features = Features::PACIFIC;
pub(crate) const FSID: Uuid = Uuid([7; 16]);
pub(crate) const START: Duration = Duration::from_secs(1_795_000_000);

/// A monitor over storage in memory, with everything it sent.
pub(crate) struct Mon {
    pub(crate) service: Service,
    pub(crate) storage: MemoryStorage,
    pub(crate) now: Now,
    pub(crate) sent: Vec<(u64, RawMessage)>,
    pub(crate) closed: Vec<u64>,
    /// Log commands to carry out, and `levels` when options changed.
    pub(crate) log: Vec<String>,
    /// Commits are held back while set.
    pub(crate) stalled: bool,
    pub(crate) held: Vec<u64>,
    pub(crate) sessions: u64,
}

pub(crate) fn options() -> BTreeMap<String, String> {
    let pairs = [
        ("osd pool default size", "1"),
        ("mon allow pool size one", "true"),
        ("mon allow pool delete", "true"),
        ("mon warn on pool no redundancy", "false"),
        ("osd crush chooseleaf type", "0"),
        ("mon osd reporter subtree level", "osd"),
    ];
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

pub(crate) fn key(n: u8) -> CryptoKey {
    CryptoKey::from_secret(START, [n; 16])
}

pub(crate) fn service_config() -> ServiceConfig {
    ServiceConfig {
        name: "a".into(),
        options: options(),
        seed: [3; 32],
        ..ServiceConfig::default()
    }
}

impl Mon {
    pub(crate) fn new(osds: u8) -> Self {
        let mut storage = MemoryStorage::default();
        let config = MkfsConfig {
            fsid: FSID,
            mons: vec![("a".into(), addr("v2:127.0.0.1:3300/0"))],
            hostname: "host1".into(),
            admin_key: key(1),
            mgrs: vec![("x".into(), key(2))],
            osds: (0..osds)
                .map(|n| NewOsd { uuid: Uuid([n + 1; 16]), key: key(10 + n), bytes: 1 << 30 })
                .collect(),
            device_class: "ssd".into(),
            pools: vec![NewPoolSpec { name: "rbd".into(), pg_num: 8, application: "rbd".into() }],
            options: options(),
            seed: [5; 32],
        };
        let now = Now { mono: Duration::ZERO, wall: START };
        mkfs(&config, now, &mut storage).unwrap();
        Self::over(storage, now)
    }

    pub(crate) fn over(storage: MemoryStorage, now: Now) -> Self {
        Self::over_with(storage, now, service_config())
    }

    /// The same store with one line less in the configuration file, which wins over `config set`.
    pub(crate) fn without_option(self, name: &str) -> Self {
        let mut config = service_config();
        config.options.remove(name).unwrap();
        Self::over_with(self.storage, self.now, config)
    }

    fn over_with(mut storage: MemoryStorage, now: Now, config: ServiceConfig) -> Self {
        let (state, stored) = open(&mut storage, Some(FSID)).unwrap();
        let service = Service::new(config, state, &stored, now);
        let mut mon = Self {
            service,
            storage,
            now,
            sent: Vec::new(),
            closed: Vec::new(),
            log: Vec::new(),
            stalled: false,
            held: Vec::new(),
            sessions: 0,
        };
        mon.pump();
        mon
    }

    /// As after a crash: a new service from what the storage holds.
    pub(crate) fn restart(self) -> Self {
        Self::over(self.storage.clone(), self.now)
    }

    pub(crate) fn pump(&mut self) {
        while let Some(action) = self.service.poll_action() {
            match action {
                Action::Send(id, raw) => self.sent.push((id, raw)),
                Action::Log(what, id, reply) => {
                    self.log.push(what);
                    self.sent.push((id, reply));
                }
                Action::OptionsChanged => self.log.push("levels".into()),
                Action::Close(id) => self.closed.push(id),
                Action::Write(number, writes) => {
                    self.storage.write(&writes).unwrap();
                    self.held.push(number);
                }
                Action::Peer(..) | Action::Fail(_) | Action::Removed => panic!("{action:?}"),
            }
            if !self.stalled {
                self.commit();
            }
        }
    }

    pub(crate) fn commit(&mut self) {
        for version in std::mem::take(&mut self.held) {
            self.service.written(self.now, version);
        }
    }

    pub(crate) fn unstall(&mut self) {
        self.stalled = false;
        self.commit();
        self.pump();
    }

    pub(crate) fn session(&mut self, name: &str, caps: &str) -> u64 {
        self.session_at(name, caps, &format!("v2:127.0.0.1:{}/{}", 6800 + self.sessions, 77))
    }

    pub(crate) fn session_at(&mut self, name: &str, caps: &str, at: &str) -> u64 {
        self.session_from(name, caps, at, at)
    }

    /// A session of a peer that says it is `at`, over a socket at `from`.
    pub(crate) fn session_from(&mut self, name: &str, caps: &str, at: &str, from: &str) -> u64 {
        self.sessions += 1;
        let auth = AuthenticatedPeer {
            name: name.parse::<EntityNameStr>().unwrap(),
            global_id: 5000 + self.sessions,
            caps: caps.into(),
            allow_all: false,
            expires: Duration::MAX,
            server_challenge: 1,
        };
        let socket_addr = addr(from).front();
        let peer = Peer { auth, addrs: addr(at), socket_addr, features: F.0 };
        self.service.session_opened(self.now, self.sessions, peer);
        self.sessions
    }

    pub(crate) fn admin(&mut self) -> u64 {
        self.session("client.admin", "allow *")
    }

    pub(crate) fn send(&mut self, id: u64, message: &impl Message) {
        self.service.message(self.now, id, message.to_raw(9, F));
        self.pump();
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            let second = Duration::from_secs(1);
            self.now = Now { mono: self.now.mono + second, wall: self.now.wall + second };
            self.service.tick(self.now);
            self.pump();
        }
    }

    /// What session `id` was sent since the last look, oldest first.
    pub(crate) fn take(&mut self, id: u64) -> Vec<RawMessage> {
        let (mine, others) =
            std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == id);
        self.sent = others;
        let mine: Vec<(u64, RawMessage)> = mine;
        mine.into_iter().map(|(_, raw)| raw).collect()
    }

    pub(crate) fn take_one<M: Message>(&mut self, id: u64) -> M {
        let all = self.take(id);
        let found = all.iter().find(|raw| raw.header.type_ == M::TYPE);
        M::from_raw(found.unwrap_or_else(|| panic!("no such message among {all:?}"))).unwrap()
    }

    pub(crate) fn command_with(
        &mut self,
        id: u64,
        json: &str,
        input: &'static [u8],
    ) -> MonCommandAck {
        let message = MonCommand {
            fsid: FSID,
            cmd: vec![json.into()],
            inbl: Bytes::from_static(input),
            ..MonCommand::default()
        };
        self.send(id, &message);
        self.take_one(id)
    }

    pub(crate) fn command(&mut self, id: u64, json: &str) -> (i32, String, String) {
        let ack = self.command_with(id, json, b"");
        (ack.r, ack.rs, String::from_utf8_lossy(&ack.outbl).into_owned())
    }

    pub(crate) fn ok(&mut self, id: u64, json: &str) -> String {
        let (r, rs, out) = self.command(id, json);
        assert_eq!(r, 0, "{json}: {rs}");
        if out.is_empty() { rs } else { out }
    }

    pub(crate) fn map(&self) -> &OsdMap {
        self.service.state().osd.map()
    }

    /// Boots osd.N at its usual address; returns its session.
    pub(crate) fn boot(&mut self, osd: u8) -> u64 {
        let at = format!("v2:127.0.0.1:{}/1", 7000 + u32::from(osd));
        let id = self.session_at(&format!("osd.{osd}"), "allow profile osd", &at);
        self.send(id, &boot_message(osd));
        id
    }

    /// Session `id` says that its OSD has the newest map, and all PGs of pool 1 clean at `clean`.
    pub(crate) fn beacon(&mut self, id: u64, clean: u32) {
        let pgs = (0..self.map().pools[&1].pg_num).map(|seed| PgId::new(1, seed)).collect();
        let paxos = Paxos::at(self.map().epoch.into());
        let beacon = OsdBeacon { paxos, pgs, min_last_epoch_clean: clean, ..OsdBeacon::default() };
        self.send(id, &beacon);
    }

    /// Changes the OSD map `times` times.
    pub(crate) fn churn(&mut self, admin: u64, times: u32) {
        for n in 0..times {
            let prefix = if n % 2 == 0 { "osd set" } else { "osd unset" };
            self.ok(admin, &format!(r#"{{"prefix":"{prefix}","key":"noout"}}"#));
        }
    }

    pub(crate) fn manager(&mut self) -> u64 {
        let id = self.session("mgr.x", "allow profile mgr");
        self.send(id, &beacon(4711));
        id
    }
}

pub(crate) fn addr(text: &str) -> EntityAddrVec {
    EntityAddrVec::one(text.parse::<EntityAddr>().unwrap())
}

pub(crate) fn boot_message(osd: u8) -> OsdBoot {
    OsdBoot {
        sb: OsdSuperblock {
            cluster_fsid: FSID,
            whoami: osd.into(),
            osd_fsid: Uuid([osd + 1; 16]),
            ..OsdSuperblock::default()
        },
        cluster_addrs: addr("v2:127.0.0.1:8000/1"),
        metadata: [("hostname".to_owned(), "host1".to_owned())].into(),
        osd_features: F.0,
        ..OsdBoot::default()
    }
}

pub(crate) fn beacon(gid: u64) -> MgrBeacon {
    MgrBeacon {
        gid,
        name: "x".into(),
        fsid: FSID,
        available: true,
        server_addrs: addr("v2:127.0.0.1:6900/1"),
        ..MgrBeacon::default()
    }
}

pub(crate) fn subscribe(items: &[(&str, u64, bool)]) -> MonSubscribe {
    let item = |start, onetime| SubscribeItem { start, flags: u8::from(onetime) };
    MonSubscribe {
        what: items.iter().map(|(w, start, once)| ((*w).to_owned(), item(*start, *once))).collect(),
        hostname: "host1".into(),
    }
}

pub(crate) fn types_of(messages: &[RawMessage]) -> Vec<u16> {
    messages.iter().map(|m| m.header.type_).collect()
}
