//! Subscriptions: what is wanted, from which version on, and what the monitor was told.
//!
//! Invariant: after a reconnect everything still wanted is asked for again, from the next version
//! that we do not have.

use std::collections::BTreeMap;

use spirula_wire::msg::mon::{MonSubscribe, SubscribeItem};

#[derive(Default)]
pub(crate) struct Subs {
    wanted: BTreeMap<String, Sub>,
}

struct Sub {
    item: SubscribeItem,
    sent: bool,
}

impl Subs {
    /// Wants `what` from `start` on. A lasting subscription is not narrowed to one time: it brings
    /// what the other would, once it is set back to where that starts.
    pub(crate) fn want(&mut self, what: &str, start: u64, onetime: bool) {
        let old = self.wanted.get(what).map(|sub| sub.item);
        let lasting = !onetime || old.is_some_and(|item| !item.onetime());
        let flags = if lasting { 0 } else { SubscribeItem::ONETIME };
        let item = SubscribeItem { start, flags };
        let unchanged =
            old.is_some_and(|old| old == item || onetime && lasting && old.start <= start);
        if !unchanged {
            self.wanted.insert(what.to_owned(), Sub { item, sent: false });
        }
    }

    pub(crate) fn unwant(&mut self, what: &str) {
        self.wanted.remove(what);
    }

    /// Version `got` of `what` is here.
    pub(crate) fn got(&mut self, what: &str, got: u64) {
        let Some(sub) = self.wanted.get_mut(what) else {
            return;
        };
        if sub.item.start > got {
            return;
        }
        if sub.item.onetime() {
            self.wanted.remove(what);
        } else {
            sub.item.start = got + 1;
        }
    }

    /// A new session knows of nothing.
    pub(crate) fn reset(&mut self) {
        self.wanted.values_mut().for_each(|s| s.sent = false);
    }

    /// What the monitor has to be told.
    pub(crate) fn renew(&mut self, hostname: &str) -> Option<MonSubscribe> {
        let unsent = self.wanted.iter_mut().filter(|(_, s)| !s.sent);
        let what: BTreeMap<_, _> = unsent
            .map(|(name, sub)| {
                sub.sent = true;
                (name.clone(), sub.item)
            })
            .collect();
        (!what.is_empty()).then(|| MonSubscribe { what, hostname: hostname.to_owned() })
    }
}
