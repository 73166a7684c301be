//! Commands: `mon_command` from the cluster's clients and `command` (`ceph tell mon.a`).

use bytes::Bytes;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::command::{Command as CommandMsg, CommandReply, Ping};
use spirula_wire::msg::mon::{Log, LogAck, LogEntry, MonCommand, MonCommandAck, log_priority};
use spirula_wire::types::{EntityAddrVec, EntityName, EntityNameStr, EntityType};
use spirula_wire::{DecodeError, Message, RawMessage};
use tracing::debug;

use super::{Action, F, Handled, Service, Session, SessionId, plain_addr};
use crate::Now;
use crate::command::{
    self, Answer, COMMANDS, Command, Context, Described, Format, Refusal, TELL_COMMANDS, describe,
    errno, refuse,
};
use crate::json::Json;
use crate::obj;
use crate::state::Change;

/// What a command came to, before it is put in a reply.
pub struct CommandResult {
    /// 0 or a negative errno.
    pub code: i32,
    pub status: String,
    pub out: Bytes,
}

/// Whether a command's row says that it may change something. A message that cannot be decoded or
/// is unknown changes nothing.
pub(super) fn may_write(raw: &RawMessage) -> bool {
    let Ok(request) = MonCommand::from_raw(raw) else {
        return false;
    };
    command::parse(&request.cmd.concat(), COMMANDS).is_ok_and(|r| r.command.perm.contains('w'))
}

impl Service {
    pub(super) fn mon_command(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = MonCommand::from_raw(raw)?;
        let text = request.cmd.concat();
        let (result, changes) = self.run(now, id, &text, request.inbl, COMMANDS);
        let touches_osdmap = changes.iter().any(|c| matches!(c, Change::OsdMap(_)));
        let epoch = self.state.osd.epoch() + u32::from(touches_osdmap);
        let ack = MonCommandAck {
            paxos: Paxos::at(epoch.into()),
            r: result.code,
            rs: result.status,
            cmd: request.cmd,
            outbl: result.out,
        };
        let ack = ack.to_raw(raw.header.tid, F);
        if changes.is_empty() {
            self.send(id, ack);
            return Ok(Handled::Done);
        }
        self.audit(now, id, &text);
        Ok(Handled::Propose(changes, vec![(id, ack)]))
    }

    /// `ceph tell mon.a ...`: answered by this monitor for itself, at once.
    pub(super) fn tell_command(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = CommandMsg::from_raw(raw)?;
        let text = request.cmd.concat();
        let (result, changes) = self.run(now, id, &text, request.inbl, TELL_COMMANDS);
        debug_assert!(changes.is_empty(), "a tell command changes no state");
        let reply = CommandReply { r: result.code, rs: result.status, outbl: result.out };
        match log_command(&text).filter(|_| result.code == 0) {
            Some(prefix) => {
                let reply = reply.to_raw(raw.header.tid, F);
                self.actions.push_back(Action::Log(prefix, id, reply));
            }
            None => self.reply(id, raw, &reply),
        }
        Ok(Handled::Done)
    }

    /// A command of the admin socket, from whoever may open the socket file.
    pub fn admin_command(&mut self, now: Now, text: &str) -> CommandResult {
        let name = EntityNameStr::new(EntityType::CLIENT, "admin");
        let outcome = command::parse(text, TELL_COMMANDS).and_then(|request| {
            let (outcome, _) =
                self.execute(now, &name, &EntityAddrVec::default(), Bytes::new(), &request);
            outcome
        });
        result_of(self.described(text, TELL_COMMANDS).unwrap_or(outcome))
    }

    fn run(
        &mut self,
        now: Now,
        id: SessionId,
        text: &str,
        input: Bytes,
        table: &'static [Command],
    ) -> (CommandResult, Vec<Change>) {
        let Some(session) = self.sessions.get(&id) else {
            return (result_of(refuse(errno::EIO, "")), Vec::new());
        };
        let (name, addrs) = (session.name().clone(), session.peer.addrs.clone());
        if let Some(outcome) = self.described(text, table) {
            return (result_of(outcome), Vec::new());
        }
        let request = match command::parse(text, table) {
            Ok(request) => request,
            Err(refusal) => {
                return (result_of(self.maybe_the_manager_s(text, refusal)), Vec::new());
            }
        };
        if !allowed(session, &request) {
            debug!(name = %name, command = request.command.signature, "access denied");
            return (result_of(refuse(errno::EACCES, "access denied")), Vec::new());
        }
        let (outcome, changes) = self.execute(now, &name, &addrs, input, &request);
        let changes = if outcome.is_ok() { changes } else { Vec::new() };
        (result_of(outcome), changes)
    }

    fn execute(
        &mut self,
        now: Now,
        caller: &EntityNameStr,
        caller_addrs: &EntityAddrVec,
        input: Bytes,
        request: &command::Request,
    ) -> (Result<Answer, Refusal>, Vec<Change>) {
        let mut ctx = Context {
            state: &self.state,
            live: &self.live,
            settings: &self.settings,
            now,
            rng: &mut self.rng,
            caller,
            caller_addrs,
            input,
            format: request.format,
            changes: Vec::new(),
            overrides: Vec::new(),
        };
        let outcome = (request.command.run)(&mut ctx, &request.args);
        let (changes, overrides) = (ctx.changes, ctx.overrides);
        if !overrides.is_empty() {
            self.actions.push_back(Action::OptionsChanged);
        }
        for (name, value) in overrides {
            self.settings.set_here(name, value);
        }
        (outcome, changes)
    }

    /// The answer to `get_command_descriptions`, which is always allowed.
    fn described(&self, text: &str, table: &'static [Command]) -> Option<Result<Answer, Refusal>> {
        let args = command::Args::parse(text).ok()?;
        if args.str("prefix").ok()? != "get_command_descriptions" {
            return None;
        }
        let own = table.iter().map(Described::from);
        let json = if std::ptr::eq(table, COMMANDS) {
            describe(own.chain(self.state.mgr.commands()))
        } else {
            describe(own)
        };
        Some(Ok(Answer::text(json.compact())))
    }

    /// A better refusal for a command that the manager answers.
    fn maybe_the_manager_s(&self, text: &str, refusal: Refusal) -> Result<Answer, Refusal> {
        let args = command::Args::parse(text).ok();
        let prefix = args.as_ref().and_then(|a| a.str("prefix").ok()).unwrap_or_default();
        let known = self.state.mgr.commands().any(|c| command::words_of(&c.signature) == prefix);
        if known {
            return refuse(
                errno::EOPNOTSUPP,
                format!(
                    "'{prefix}' is answered by the manager: send it there (the ceph tool does so by itself)"
                ),
            );
        }
        Err(refusal)
    }

    /// Notes a command that changes something in the audit channel.
    fn audit(&mut self, now: Now, id: SessionId, text: &str) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let who = EntityName::new(session.name().type_, -1);
        let addr = plain_addr(&session.peer.addrs.front());
        let entity = session.name().clone();
        let line = format!("from='{who} {addr}' entity='{entity}' cmd='[{text}]': finished");
        self.clog(now, log_priority::INFO, "audit", line);
    }

    /// Entries for the cluster log, from daemons.
    pub(super) fn log(
        &mut self,
        _: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = Log::from_raw(raw)?;
        let allowed = self.sessions.get(&id).is_some_and(|s| s.caps.may("log", "w"));
        let entries: Vec<LogEntry> = request.entries;
        let Some(last) = entries.last().filter(|_| allowed) else {
            return Ok(Handled::Done);
        };
        let ack = LogAck { fsid: self.state.fsid, last: last.seq, channel: last.channel.clone() };
        let ack = ack.to_raw(raw.header.tid, F);
        Ok(Handled::Propose(vec![Change::Log(entries)], vec![(id, ack)]))
    }

    /// `ping`: health and status, for whoever can reach the port.
    pub(super) fn ping(&mut self, now: Now, id: SessionId, raw: &RawMessage) {
        let json = obj! { "health" => self.health_json(now), "mon_status" => self.mon_status(now) };
        self.reply(id, raw, &Ping::with_text(&json.pretty()));
    }

    pub(super) fn health_json(&mut self, now: Now) -> Json {
        self.with_context(now, |ctx| command::health_json(ctx))
    }

    pub(super) fn mon_status(&mut self, now: Now) -> Json {
        self.with_context(now, |ctx| command::mon_status_json(ctx))
    }

    /// Runs `body` as if this monitor itself had sent a command.
    pub(super) fn with_context<T>(
        &mut self,
        now: Now,
        body: impl FnOnce(&mut Context<'_>) -> T,
    ) -> T {
        let caller = EntityNameStr::new(EntityType::MON, self.live.name.clone());
        body(&mut Context {
            state: &self.state,
            live: &self.live,
            settings: &self.settings,
            now,
            rng: &mut self.rng,
            caller: &caller,
            caller_addrs: &self.live.addrs,
            input: Bytes::new(),
            format: Format::Json,
            changes: Vec::new(),
            overrides: Vec::new(),
        })
    }
}

/// The prefix of a command that acts on the log's file.
fn log_command(text: &str) -> Option<String> {
    let prefix = command::Args::parse(text).ok()?.str("prefix").ok()?.to_owned();
    matches!(prefix.as_str(), "log dump" | "log flush" | "log reopen").then_some(prefix)
}

fn allowed(session: &Session, request: &command::Request) -> bool {
    let command = request.command;
    let words = command::words_of(command.signature);
    session.caps.may_command(command.module, words, &request.args.texts(), command.perm)
}

fn result_of(outcome: Result<Answer, Refusal>) -> CommandResult {
    match outcome {
        Ok(answer) => CommandResult { code: 0, status: answer.status, out: answer.out },
        Err(refusal) => {
            CommandResult { code: -refusal.errno, status: refusal.text, out: refusal.out }
        }
    }
}
