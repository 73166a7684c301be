//! Takes in connections and hands each message to where it is served.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use spirula_auth::caps::OsdCap;
use spirula_auth::{ConMode, ServiceAcceptor, ServiceAuthConfig};
use spirula_msgr::on_xstream::{self, Event, Incoming};
use spirula_msgr::{Accepted, Peer};
use spirula_wire::msg::osd::OsdBackoff;
use spirula_wire::msg::types;
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Features, Message as _};
use spirula_xstream::{Class, TcpListener, now};

use crate::admin;
use crate::boot::messenger_config;
use crate::front::OpRequest;
use crate::session::{Session, Waiting};
use crate::target::Target;

/// Accepts connections for ever.
pub async fn listen(target: Target, listener: TcpListener) {
    on_xstream::serve(Class::Client, listener, |addr| accept(&target, addr)).await;
}

fn accept(
    target: &Target,
    addr: SocketAddr,
) -> Option<Accepted<impl FnMut(&on_xstream::Session, Event) + use<>>> {
    if target.is_stopping() {
        return None;
    }
    tracing::trace!(%addr, "connection");
    let mut config = messenger_config(target);
    config.limits.dispatch_bytes_max = target.option_number("osd_client_message_size_cap");
    config.limits.dispatch_messages_max = target.option_number("osd_client_message_cap");
    let auth = acceptor(target);
    let target = target.clone();
    let mut session: Option<Rc<Session>> = None;
    let dispatch = move |link: &on_xstream::Session, event: Event| match event {
        Event::Ready(peer) => {
            let new = Rc::new(session_of(*peer, link.clone()));
            target.watching().opened(&new);
            session = Some(new);
        }
        Event::Message(incoming) => {
            if let Some(session) = &session {
                handle(&target, session, incoming);
            }
        }
        Event::KeepaliveAck | Event::Session(_) => {}
        Event::Closed(_) => {
            if let Some(session) = session.take() {
                // The client sends it again (`osd_discard_disconnected_ops`).
                session.waiting.borrow_mut().clear();
                target.watching().closed(&target, &session);
            }
        }
    };
    Some(Accepted { config, auth, dispatch })
}

/// Who checks the tickets of those who connect.
pub(crate) fn acceptor(target: &Target) -> Box<ServiceAcceptor> {
    let auth = ServiceAuthConfig {
        service: EntityType::OSD,
        methods: target.config().auth_methods.clone(),
        modes: vec![ConMode::Crc, ConMode::Secure],
    };
    let mut seed = [0; 32];
    spirula_xstream::fill_random(&mut seed);
    Box::new(ServiceAcceptor::new(auth, target.secrets(), seed))
}

fn session_of(peer: Peer, link: on_xstream::Session) -> Session {
    let (name, caps) = match &peer.auth {
        Some(auth) => (auth.name.clone(), OsdCap::of_peer(auth)),
        None => (EntityNameStr::default(), OsdCap::default()),
    };
    Session {
        entity: peer.entity,
        name,
        addrs: peer.addrs,
        socket_addr: peer.socket_addr,
        features: Features(peer.features.0),
        allow_all: caps.is_allow_all(),
        caps,
        known_epoch: Cell::new(0),
        backoffs: RefCell::default(),
        waiting: RefCell::default(),
        draining: Cell::new(false),
        after_reply: RefCell::default(),
        link,
    }
}

fn handle(target: &Target, session: &Rc<Session>, incoming: Incoming) {
    match incoming.raw.header.type_ {
        types::OSD_OP => match OpRequest::decode(incoming, session.clone(), now()) {
            Ok(request) => target.take_in(session, Waiting::Request(request)),
            Err(e) => {
                tracing::warn!(?session, "request does not decode: {e}");
                session.link.close();
            }
        },
        types::COMMAND => admin::handle_command(target, session, &incoming),
        types::OSD_BACKOFF => match OsdBackoff::from_raw(&incoming.raw) {
            Ok(backoff) => target.take_in(session, Waiting::Acknowledgement(backoff, incoming)),
            Err(e) => {
                tracing::warn!(?session, "backoff does not decode: {e}");
                session.link.close();
            }
        },
        // Liveness of a client that waits.
        types::PING | types::OSD_MAP => {}
        other => tracing::debug!(?session, "ignored message {}", spirula_wire::msg::name(other)),
    }
}
