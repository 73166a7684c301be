//! The session with the monitors: drives the sans-I/O monitor client on this xstream and acts on
//! what it brings.

use std::cell::RefCell;
use std::rc::Rc;

use spirula_auth::{AuthError, ConnectAuth, Principal};
use spirula_maps::MgrMap;
use spirula_monc::{ConnId, Event, MonClient};
use spirula_msgr::on_xstream::{self, now};
use spirula_msgr::{MonAction, MonSessions, Outbox, Target as Peer};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode, RawMessage};
use spirula_xstream::Class;
use spirula_xstream::sync::Notify;

use crate::boot::messenger_config;
use crate::boot_maps;
use crate::mgr;
use crate::shard;
use crate::target::{Target, TargetConfig};

/// The monitor client of a target, and the sessions it opened.
pub struct MonLink {
    client: RefCell<MonClient>,
    sessions: RefCell<MonSessions<Rc<RefCell<Outbox>>>>,
    /// A deadline may have moved.
    stirred: Notify,
}

impl MonLink {
    pub fn new(config: &TargetConfig, seed: [u8; 32]) -> Self {
        let name = EntityNameStr::new(EntityType::OSD, config.osd_id.to_string());
        let principal = Principal { name, key: config.key.clone() };
        let mut monc = spirula_monc::Config::new(principal, config.mons.clone());
        monc.hostname = config.hostname.clone();
        monc.methods = config.auth_methods.clone();
        Self {
            client: RefCell::new(MonClient::new(monc, seed)),
            sessions: RefCell::default(),
            stirred: Notify::new(),
        }
    }

    pub fn send(&self, target: &Target, message: RawMessage) {
        self.client.borrow_mut().send(message);
        self.drain(target);
    }

    /// Writes a line to the cluster log.
    pub fn log(&self, target: &Target, priority: u16, text: String) {
        self.client.borrow_mut().log(now(), "cluster", priority, text);
        self.drain(target);
    }

    /// Wants the maps that follow the one we have.
    pub fn want_maps(&self, target: &Target) {
        self.ask_maps(target, target.next_epoch());
    }

    /// Wants the maps from epoch `start` on; 0 stands for a whole map.
    fn ask_maps(&self, target: &Target, start: u32) {
        self.client.borrow_mut().subscribe(now(), "osdmap", start.into(), false);
        self.drain(target);
    }

    /// Credentials for a connection to the manager.
    pub fn mgr_authorizer(&self) -> Result<Box<dyn ConnectAuth>, AuthError> {
        let connector = self.client.borrow_mut().authorizer_for(EntityType::MGR)?;
        Ok(Box::new(connector))
    }

    /// Credentials for a connection to another OSD.
    pub fn osd_authorizer(&self) -> Result<Box<dyn ConnectAuth>, AuthError> {
        let connector = self.client.borrow_mut().authorizer_for(EntityType::OSD)?;
        Ok(Box::new(connector))
    }

    pub fn global_id(&self) -> u64 {
        self.client.borrow().global_id()
    }

    /// The number of the open session, while there is one.
    pub fn session(&self) -> Option<u64> {
        self.client.borrow().session()
    }

    /// Keeps the session until the target stops.
    pub async fn run(&self, target: &Target) {
        self.client.borrow_mut().subscribe(now(), "mgrmap", 0, false);
        self.want_maps(target);
        loop {
            self.client.borrow_mut().handle_timeout(now());
            self.drain(target);
            let deadline = self.client.borrow().poll_timeout(now());
            match deadline {
                Some(at) => {
                    let wait = at.saturating_sub(spirula_xstream::now());
                    // Either way the deadline is looked at again.
                    let _ = spirula_xstream::timeout(wait, self.stirred.notified()).await;
                }
                None => self.stirred.notified().await,
            }
        }
    }

    pub fn close(&self, target: &Target) {
        self.client.borrow_mut().close();
        self.drain(target);
    }

    /// Does what the client wants done. Handling an event may make it want more.
    fn drain(&self, target: &Target) {
        loop {
            let action = self.sessions.borrow_mut().poll(&mut self.client.borrow_mut());
            match action {
                Some(MonAction::Connect { conn, target: peer, auth }) => {
                    let session = open(target, conn, peer, auth);
                    self.sessions.borrow_mut().opened(conn, session);
                }
                Some(MonAction::Event(event)) => handle_event(target, event),
                None => break,
            }
        }
        self.stirred.notify_all();
    }

    fn handle_session(&self, target: &Target, conn: ConnId, event: on_xstream::Event) {
        if let on_xstream::Event::Closed(reason) = &event {
            tracing::debug!("monitor session ended: {reason}");
        }
        self.sessions.borrow_mut().handle(&mut self.client.borrow_mut(), now(), conn, event);
        self.drain(target);
    }
}

fn open(
    target: &Target,
    conn: ConnId,
    peer: Peer,
    auth: Box<dyn ConnectAuth>,
) -> on_xstream::Session {
    let config = messenger_config(target);
    let target = target.clone();
    on_xstream::open(Class::Client, config, peer, auth, move |_, event| {
        target.mon().handle_session(&target, conn, event);
    })
}

fn handle_event(target: &Target, event: Event) {
    match event {
        Event::Connected { .. } => {
            target.heartbeat().mon_connected();
            target.clog().mon_connected(target);
            target.want_up_thru(0);
            shard::drive::mon_connected(target);
            boot_maps::ask_again(target);
            target.boot(true);
        }
        Event::Disconnected => tracing::debug!("the monitor session was lost"),
        Event::AuthFailed(e) => tracing::error!("the monitor refuses this OSD: {e}"),
        Event::MonMap(_) | Event::Reply { .. } => {}
        Event::Config(options) => target.set_mon_options(options),
        Event::OsdMap(maps) => {
            let before = target.epoch();
            if let Some(start) = target.handle_maps(&maps) {
                target.mon().ask_maps(target, start);
            } else if before == 0 && target.is_catching_up() && target.epoch() > 0 {
                // The subscription has gone on to what was put aside.
                target.mon().want_maps(target);
            }
            target.boot(false);
        }
        Event::MgrMap(raw) => match MgrMap::from_bytes(&raw) {
            Ok(map) => mgr::follow_map(target, map),
            Err(e) => tracing::error!("mgrmap from the monitor: {e}"),
        },
        Event::RotatingKeys(secrets) => target.set_secrets(secrets),
        Event::Message(raw) => match raw.header.type_ {
            types::OSD_MARK_ME_DOWN => target.marked_down(),
            types::OSD_PG_CREATE2 => shard::follow::create(target, &raw),
            types::LOG_ACK => target.clog().acknowledged(&raw),
            _ => {}
        },
    }
}
