//! The daemons behind admin sockets: OSDs on their xstreams, the others by a function, and what the
//! log does for each of them.

use std::sync::Arc;

use serde_json::{Map, Value};
use spirula_osd::Target;
use spirula_osd::admin::run_json;
use spirula_wire::errno::ESHUTDOWN;
use spirula_xstream::{Receiver, Sender, mailbox_bounded};
use tokio::sync::oneshot;

use super::{AdminReply, CONNECTIONS_MAX, DaemonAdmin, ReplyFuture};
use crate::logging::LogHandle;

/// A command on its way to an xstream.
type Asked = (String, oneshot::Sender<AdminReply>);

/// The two ends of an OSD's admin socket: one for [`super::AdminSocket::bind`], one to be served on
/// the OSD's xstream.
pub(crate) fn osd() -> (OsdAdmin, OsdInbox) {
    let (sender, receiver) = mailbox_bounded(CONNECTIONS_MAX);
    (OsdAdmin(sender), OsdInbox(receiver))
}

pub(crate) struct OsdAdmin(Sender<Asked>);

impl DaemonAdmin for OsdAdmin {
    fn command(&self, json: String) -> ReplyFuture<'_> {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.send((json, answer));
        Box::pin(async move {
            let gone = || AdminReply::refusal(ESHUTDOWN, "the OSD is stopping");
            if sent.is_err() {
                return gone();
            }
            answered.await.unwrap_or_else(|_| gone())
        })
    }
}

pub(crate) struct OsdInbox(Receiver<Asked>);

impl OsdInbox {
    /// Answers with the target's own table until the socket is closed. Spawn it on the target's
    /// xstream, in class `Background`.
    pub(crate) async fn serve(mut self, target: Target) {
        while let Some((json, answer)) = self.0.recv().await {
            let result = run_json(&target, &json);
            // The client may have left.
            let _ = answer.send(AdminReply { code: result.r, status: result.rs, out: result.out });
        }
    }
}

/// A daemon on tokio, whose table answers at once.
pub(crate) struct FnAdmin<F>(pub(crate) F);

impl<F> DaemonAdmin for FnAdmin<F>
where
    F: Fn(&str) -> AdminReply + Send + Sync + 'static,
{
    fn command(&self, json: String) -> ReplyFuture<'_> {
        let reply = (self.0)(&json);
        Box::pin(std::future::ready(reply))
    }
}

/// The manager, whose task answers.
pub(crate) struct MgrAdmin(pub(crate) spirula_mgr::server::Admin);

impl DaemonAdmin for MgrAdmin {
    fn command(&self, json: String) -> ReplyFuture<'_> {
        Box::pin(async move {
            match self.0.command(json).await {
                Some(reply) => {
                    AdminReply { code: reply.r, status: reply.rs, out: reply.outbl.to_vec() }
                }
                None => AdminReply::refusal(ESHUTDOWN, "the manager is stopping"),
            }
        })
    }
}

/// A daemon whose log commands act on its log file, and whose debug levels are those of its
/// options.
pub(super) struct WithLog {
    pub(super) name: String,
    pub(super) log: LogHandle,
    pub(super) daemon: Arc<dyn DaemonAdmin>,
}

impl DaemonAdmin for WithLog {
    fn command(&self, json: String) -> ReplyFuture<'_> {
        Box::pin(async move {
            let (prefix, json) = with_format(json);
            match prefix.as_str() {
                "log flush" | "log reopen" | "log dump" => {
                    self.log_command(&prefix).await;
                    AdminReply::ok("{}\n")
                }
                "config set" | "config unset" | "injectargs" => {
                    let reply = self.daemon.command(json).await;
                    self.follow_options().await;
                    reply
                }
                _ => self.daemon.command(json).await,
            }
        })
    }
}

impl WithLog {
    /// Keeps the log's levels those of the daemon's options, for ever. Others may change those as
    /// well: `ceph config set`, `ceph tell`.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            self.follow_options().await;
            self.log.options_changed(&self.name).await;
        }
    }

    async fn follow_options(&self) {
        let shown = self.daemon.command(r#"{"prefix":"config show","format":"json"}"#.into()).await;
        let Ok(options) = serde_json::from_slice::<Map<String, Value>>(&shown.out) else {
            return;
        };
        let text = |(name, value)| Some((name, Value::as_str(value)?));
        let levels = options.iter().map(|(n, v)| (n.as_str(), v)).filter_map(text);
        self.log.apply_options(&self.name, levels);
    }

    async fn log_command(&self, prefix: &str) {
        let (done, is_done) = oneshot::channel();
        self.log.command(&self.name, prefix, Box::new(move || _ = done.send(())));
        // It fails only while the log ends.
        let _ = is_done.await;
    }
}

/// The prefix of a command, and the command with the format that admin sockets have if none is
/// asked for.
fn with_format(json: String) -> (String, String) {
    let Ok(mut command) = serde_json::from_str::<Map<String, Value>>(&json) else {
        return (String::new(), json);
    };
    let prefix = command.get("prefix").and_then(Value::as_str).unwrap_or_default().to_owned();
    command.entry("format").or_insert_with(|| "json-pretty".into());
    (prefix, Value::Object(command).to_string())
}
