//! Operations on watches and notifies. What they change outside of the object happens when the request
//! is published ([`WatchEffect`]).

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, watch_op};
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::types::{ListWatchResponse, WatchItem};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use super::{Run, Step, err, ok};
use crate::errno::*;
use crate::view::ObjectView;
use crate::watch::{WatchEffect, WatchInfo, WatchKey};

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn watch_op(&mut self, out: &OsdOpResult) -> Step<V::Missing> {
        let OpArgs::Watch { cookie, op, timeout, .. } = out.args else {
            return err(EINVAL);
        };
        if !self.exists {
            return err(ENOENT);
        }
        let key = WatchKey { cookie, entity: self.caller.name };
        let is_known = self.info.watchers.contains_key(&key);
        let timeout_seconds =
            if timeout == 0 { self.limits.watch_timeout_seconds } else { timeout };
        let info = WatchInfo { timeout_seconds, addr: self.caller.addr };
        match op {
            watch_op::WATCH | watch_op::LEGACY_WATCH => {
                if !is_known {
                    self.touched = true;
                    self.info.watchers.insert(key, info);
                }
                let pings = op == watch_op::WATCH;
                self.watching.push(WatchEffect::Connect { key, info, pings });
            }
            watch_op::UNWATCH if is_known => {
                self.touched = true;
                self.info.watchers.remove(&key);
                self.watching.push(WatchEffect::Remove { key, tell: false });
            }
            watch_op::RECONNECT | watch_op::PING if !is_known => return err(ENOTCONN),
            watch_op::RECONNECT => {
                self.watching.push(WatchEffect::Connect { key, info, pings: true });
            }
            // The client has to reconnect.
            watch_op::PING if self.watch.connected.binary_search(&key).is_err() => {
                return err(ETIMEDOUT);
            }
            watch_op::PING => {
                self.watching.push(WatchEffect::Ping(key));
                return ok();
            }
            _ => {}
        }
        Ok(None)
    }

    /// The client gets the notify's id; the outcome comes in a message of its own.
    pub(super) fn notify(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let cookie = match out.args {
            OpArgs::Notify { cookie } => cookie,
            _ => 0,
        };
        // What does not decode is an empty notify with the default time-out.
        let (timeout, payload) = notify_input(input).unwrap_or_default();
        let timeout_seconds =
            if timeout == 0 { self.limits.notify_timeout_seconds } else { timeout };
        let started = self.watching.iter().filter(|e| matches!(e, WatchEffect::Notify { .. }));
        let id = self.watch.notify_id + started.count() as u64;
        self.watching.push(WatchEffect::Notify { id, cookie, timeout_seconds, payload });
        out.outdata = vec![id.to_bytes(Features::PACIFIC).into()];
        Ok(None)
    }

    pub(super) fn notify_ack(&mut self, input: &Bytes, out: &OsdOpResult) -> Step<V::Missing> {
        let old_form = |_| {
            let OpArgs::Raw([a, b, c, d, e, f, g, h, ..]) = out.args else {
                return (0, None, Bytes::new());
            };
            (u64::from_le_bytes([a, b, c, d, e, f, g, h]), None, Bytes::new())
        };
        let (id, cookie, reply) = ack_input(input).unwrap_or_else(old_form);
        self.watching.push(WatchEffect::Acknowledge { id, cookie, reply });
        Ok(None)
    }

    pub(super) fn list_watchers(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        let item = |(key, info): (&WatchKey, &WatchInfo)| WatchItem {
            name: key.entity,
            cookie: key.cookie,
            timeout_seconds: info.timeout_seconds,
            addr: info.addr,
        };
        let entries = self.info.watchers.iter().map(item).collect();
        out.outdata = vec![ListWatchResponse { entries }.to_bytes(self.caller.features).into()];
        self.delta.num_rd += 1;
        ok()
    }

    /// The object goes, and with it everybody's watch.
    pub(super) fn drop_watches(&mut self) {
        let gone = std::mem::take(&mut self.info.watchers);
        let told = |key| WatchEffect::Remove { key, tell: true };
        self.watching.retain(|effect| !matches!(effect, WatchEffect::Connect { .. }));
        self.watching.extend(gone.into_keys().map(told));
    }
}

/// Time-out and payload.
fn notify_input(input: &Bytes) -> Result<(u32, Bytes), DecodeError> {
    let mut r = Reader::new(input);
    let _version = r.u32()?;
    Ok((r.u32()?, Bytes::decode(&mut r)?))
}

fn ack_input(input: &Bytes) -> Result<(u64, Option<u64>, Bytes), DecodeError> {
    let mut r = Reader::new(input);
    let (id, cookie) = (r.u64()?, r.u64()?);
    let reply = if r.is_empty() { Bytes::new() } else { Bytes::decode(&mut r)? };
    Ok((id, Some(cookie), reply))
}
