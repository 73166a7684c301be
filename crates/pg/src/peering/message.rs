//! The messages of peering, with the epochs that say whether they still count.

use spirula_wire::msg::pg::{
    BackfillReserve, OsdPgBackfill, OsdPgInfo2, OsdPgLease, OsdPgLeaseAck, OsdPgLog, OsdPgNotify2,
    OsdPgQuery2, OsdPgRemove, OsdPgTrim, RecoveryReserve,
};
use spirula_wire::types::{PgInfo, PgLogMsg, PgNotify, PgQuery, ShardId, SpgId, pg_query};
use spirula_wire::{Features, Message, RawMessage};

#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    Notify(Box<OsdPgNotify2>),
    Query(Box<OsdPgQuery2>),
    Info(Box<OsdPgInfo2>),
    Log(Box<OsdPgLog>),
    Lease(OsdPgLease),
    LeaseAck(OsdPgLeaseAck),
    Trim(OsdPgTrim),
    Backfill(Box<OsdPgBackfill>),
    Remove(OsdPgRemove),
    RecoveryReserve(RecoveryReserve),
    BackfillReserve(BackfillReserve),
}

impl PeerMessage {
    pub fn epoch_sent(&self) -> u32 {
        match self {
            Self::Notify(m) => m.notify.epoch_sent,
            Self::Query(m) => m.query.epoch_sent,
            Self::Info(m) => m.epoch_sent,
            Self::Log(m) => m.epoch,
            Self::Lease(m) => m.epoch,
            Self::LeaseAck(m) => m.epoch,
            Self::Trim(m) => m.epoch,
            Self::Backfill(m) => m.map_epoch,
            Self::Remove(m) => m.epoch,
            Self::RecoveryReserve(m) => m.query_epoch,
            Self::BackfillReserve(m) => m.query_epoch,
        }
    }

    /// It is void for whoever was reset after this epoch.
    pub fn min_epoch(&self) -> u32 {
        match self {
            Self::Notify(m) => m.notify.query_epoch,
            Self::Info(m) => m.min_epoch,
            Self::Log(m) => m.query_epoch,
            Self::Backfill(m) => m.query_epoch,
            _ => self.epoch_sent(),
        }
    }

    /// What its sender has, if it says so.
    pub fn info(&self) -> Option<&PgInfo> {
        match self {
            Self::Notify(m) => Some(&m.notify.info),
            Self::Info(m) => Some(&m.info),
            Self::Log(m) => Some(&m.info),
            _ => None,
        }
    }

    /// Of these the message has but one; [`OsdPgRemove`] may name several.
    pub fn pgids(&self) -> Vec<SpgId> {
        let whole = |pgid| vec![SpgId::whole(pgid)];
        match self {
            Self::Notify(m) => vec![m.spgid],
            Self::Query(m) => vec![m.spgid],
            Self::Info(m) => vec![m.spgid],
            Self::Log(m) => vec![m.info.pgid],
            Self::Lease(m) => vec![m.spgid],
            Self::LeaseAck(m) => vec![m.spgid],
            Self::Trim(m) => whole(m.pgid),
            Self::Backfill(m) => whole(m.pgid),
            Self::Remove(m) => m.pgs.clone(),
            Self::RecoveryReserve(m) => whole(m.pgid),
            Self::BackfillReserve(m) => whole(m.pgid),
        }
    }

    pub fn to_raw(&self, f: Features) -> RawMessage {
        match self {
            Self::Notify(m) => m.to_raw(0, f),
            Self::Query(m) => m.to_raw(0, f),
            Self::Info(m) => m.to_raw(0, f),
            Self::Log(m) => m.to_raw(0, f),
            Self::Lease(m) => m.to_raw(0, f),
            Self::LeaseAck(m) => m.to_raw(0, f),
            Self::Trim(m) => m.to_raw(0, f),
            Self::Backfill(m) => m.to_raw(0, f),
            Self::Remove(m) => m.to_raw(0, f),
            Self::RecoveryReserve(m) => m.to_raw(0, f),
            Self::BackfillReserve(m) => m.to_raw(0, f),
        }
    }

    /// `None`: a message of another family, or malformed.
    pub fn from_raw(raw: &RawMessage) -> Option<Self> {
        Some(match raw.header.type_ {
            OsdPgNotify2::TYPE => Self::Notify(Message::from_raw(raw).ok().map(Box::new)?),
            OsdPgQuery2::TYPE => Self::Query(Message::from_raw(raw).ok().map(Box::new)?),
            OsdPgInfo2::TYPE => Self::Info(Message::from_raw(raw).ok().map(Box::new)?),
            OsdPgLog::TYPE => Self::Log(Message::from_raw(raw).ok().map(Box::new)?),
            OsdPgLease::TYPE => Self::Lease(Message::from_raw(raw).ok()?),
            OsdPgLeaseAck::TYPE => Self::LeaseAck(Message::from_raw(raw).ok()?),
            OsdPgTrim::TYPE => Self::Trim(Message::from_raw(raw).ok()?),
            OsdPgBackfill::TYPE => Self::Backfill(Message::from_raw(raw).ok().map(Box::new)?),
            OsdPgRemove::TYPE => Self::Remove(Message::from_raw(raw).ok()?),
            RecoveryReserve::TYPE => Self::RecoveryReserve(Message::from_raw(raw).ok()?),
            BackfillReserve::TYPE => Self::BackfillReserve(Message::from_raw(raw).ok()?),
            _ => return None,
        })
    }

    /// The answer for a copy that does not exist, at map `epoch`; `None` if nobody waits for one.
    pub fn answer_without_copy(&self, epoch: u32) -> Option<Self> {
        let Self::Query(m) = self else {
            return None;
        };
        let (info, query_epoch) = (PgInfo::new(m.spgid), m.query.epoch_sent);
        Some(match m.query.kind {
            pg_query::INFO => {
                let notify =
                    PgNotify { query_epoch, epoch_sent: epoch, info, ..PgNotify::default() };
                Self::notify(m.spgid, notify)
            }
            _ => Self::Log(Box::new(OsdPgLog {
                epoch,
                query_epoch,
                info,
                log: PgLogMsg::default(),
                ..OsdPgLog::default()
            })),
        })
    }

    pub(crate) fn notify(spgid: SpgId, notify: PgNotify) -> Self {
        Self::Notify(Box::new(OsdPgNotify2 { spgid, notify }))
    }

    pub(crate) fn query(spgid: SpgId, query: PgQuery) -> Self {
        let query = PgQuery { to: ShardId::NONE, from: ShardId::NONE, ..query };
        Self::Query(Box::new(OsdPgQuery2 { spgid, query }))
    }
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::PgId;

    use super::*;

    #[test]
    fn who_has_no_copy_says_so() {
        let spgid = SpgId::whole(PgId::new(3, 7));
        for (kind, is_info) in [(pg_query::INFO, true), (pg_query::FULLLOG, false)] {
            let query = PgQuery { kind, epoch_sent: 5, ..PgQuery::default() };
            let asked = PeerMessage::query(spgid, query);
            let raw = asked.to_raw(Features::PACIFIC);
            assert_eq!(PeerMessage::from_raw(&raw), Some(asked.clone()));
            assert_eq!(asked.pgids(), [spgid]);
            let answer = asked.answer_without_copy(9).unwrap();
            assert_eq!((answer.epoch_sent(), answer.min_epoch()), (9, 5));
            assert_eq!(answer.pgids(), [spgid]);
            assert_eq!(matches!(answer, PeerMessage::Notify(_)), is_info);
            assert_eq!(answer.answer_without_copy(9), None);
        }
    }
}
