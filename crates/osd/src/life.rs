//! The life of a target: listen, join the cluster, serve until told to stop, leave cleanly.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use spirula_store::{Expect, FormatOptions, OpenError, Options, Store};
use spirula_wire::types::EntityAddr;
use spirula_xstream::{Class, TcpListener, timeout};

use crate::boot::mark_me_down_message;
use crate::devices::{self, DevicePaths};
use crate::heartbeat::Channel;
use crate::target::{Addrs, Target, TargetConfig, TargetError};
use crate::watch::drive::run_timer;
use crate::{full, heartbeat, mgr, peers, scrub, serve, shard, snap};

/// How long the monitor may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(2);

/// Makes an empty store for this OSD on a device, and on others that its options name; a file is made,
/// and grown to `bytes`.
pub async fn format(
    device: &Path,
    bytes: Option<u64>,
    config: &TargetConfig,
) -> Result<(), OpenError> {
    let devices = devices::create(device, bytes, &config.options)?;
    let options = FormatOptions {
        fsid: config.fsid.0,
        osd_uuid: config.osd_uuid.0,
        osd_id: config.osd_id,
        ..FormatOptions::default()
    };
    Store::format(&devices, &options).await
}

/// Opens the store on a device, which must be this OSD's, and runs the target on it.
pub async fn start(
    config: TargetConfig,
    device: &Path,
    options: Options,
    started: impl FnOnce(&Target, SocketAddr),
) -> Result<(), TargetError> {
    let devices = DevicePaths::find(device, &config.options).open().await;
    let devices = devices.map_err(OpenError::from)?;
    let expect = Expect { fsid: Some(config.fsid.0), osd_id: Some(config.osd_id) };
    let store = Store::open(&devices, expect, options).await?;
    run(config, store, started).await
}

/// Runs a target on this xstream until it is told to stop ([`spirula_xstream::stopping`]) or fails.
/// `started` is called once it listens.
pub async fn run(
    config: TargetConfig,
    store: Store,
    started: impl FnOnce(&Target, SocketAddr),
) -> Result<(), TargetError> {
    let nonce = (spirula_xstream::random_u64() as u32) | 1;
    let public = Listening::on(config.bind, nonce)?;
    // Peers learn these from the map, so that any free port does.
    let inner = SocketAddr::new(config.bind.ip(), 0);
    let cluster = Listening::on(inner, nonce)?;
    let (back, front) = (Listening::on(inner, nonce)?, Listening::on(inner, nonce)?);
    let addr = public.addr;
    let addrs = Addrs {
        public: public.entity.into(),
        cluster: cluster.entity.into(),
        hb_front: front.entity.into(),
        hb_back: back.entity.into(),
    };
    let target = Target::new(config, store, addrs);
    shard::follow::find(&target).await?;
    let tasks = [
        spirula_xstream::spawn(Class::Client, serve::listen(target.clone(), public.listener)),
        spirula_xstream::spawn(Class::Client, peers::listen(target.clone(), cluster.listener)),
        spirula_xstream::spawn(Class::Client, peers::run(target.clone())),
        spirula_xstream::spawn(Class::Client, beats(&target, back.listener, Channel::Back)),
        spirula_xstream::spawn(Class::Client, beats(&target, front.listener, Channel::Front)),
        spirula_xstream::spawn(Class::Client, heartbeat::run(target.clone())),
        spirula_xstream::spawn(Class::Client, {
            let target = target.clone();
            async move { target.mon().run(&target).await }
        }),
    ];
    target.spawn(Class::Background, mgr::report);
    target.spawn(Class::Background, full::watch);
    target.spawn(Class::Client, run_timer);
    target.spawn(Class::Client, shard::drive::run_timer);
    target.spawn(Class::Background, snap::trim::run);
    target.spawn(Class::Background, scrub::schedule::run);
    tracing::info!(%addr, "osd.{} serves", target.config().osd_id);
    started(&target, addr);
    let failure = match select(pin!(target.ended()), pin!(spirula_xstream::stopping())).await {
        Either::Left((error, _)) => error,
        Either::Right(_) => None,
    };
    target.set_stopping();
    let outcome = match failure {
        Some(error) => Err(error),
        None => leave(&target).await,
    };
    target.mon().close(&target);
    tasks.iter().for_each(|task| task.abort());
    outcome
}

fn beats(
    target: &Target,
    listener: TcpListener,
    channel: Channel,
) -> impl Future<Output = ()> + 'static {
    heartbeat::listen(target.clone(), listener, channel)
}

/// A listener and where it is reached.
struct Listening {
    listener: TcpListener,
    addr: SocketAddr,
    entity: EntityAddr,
}

impl Listening {
    fn on(bind: SocketAddr, nonce: u32) -> Result<Self, TargetError> {
        let error = |source| TargetError::Listen { addr: bind, source };
        let listener = TcpListener::bind(bind).map_err(error)?;
        let addr = listener.local_addr().map_err(error)?;
        Ok(Self { listener, addr, entity: EntityAddr::msgr2(addr, nonce) })
    }
}

/// Says good-bye to the monitor and leaves the store such that opening it again is quick.
async fn leave(target: &Target) -> Result<(), TargetError> {
    if target.is_up() {
        target.mon().send(target, mark_me_down_message(target));
        if timeout(FAREWELL, target.wait_marked_down()).await.is_err() {
            tracing::warn!("the monitor did not acknowledge that this OSD goes down");
        }
    }
    target.store().close().await?;
    Ok(())
}
