//! Entry points of the fuzz targets.

use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{CryptoKey, METHOD_CEPHX, MonGrant, Principal};
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Header, Payload, RawMessage};

use crate::{Action, Config, MonClient, Now};

/// Feeds messages to an open session: per message a type, a length and that many bytes of front.
pub fn monc_messages(data: &[u8]) {
    let now = Now { mono: Duration::from_secs(1), wall: Duration::from_secs(1_700_000_000) };
    let name = EntityNameStr::new(EntityType::OSD, "0");
    let principal = Principal { name, key: CryptoKey::from_secret(now.wall, [1; 16]) };
    let mut client =
        MonClient::new(Config::new(principal, vec![([127, 0, 0, 1], 1).into()]), [0; 32]);
    client.handle_timeout(now);
    let mut conn = 0;
    let mut rest = data;
    client.command(now, "{}", Bytes::new());
    loop {
        while let Some(action) = client.poll_action() {
            if let Action::Connect { conn: new, .. } = action {
                conn = new;
                let grant = MonGrant { method: METHOD_CEPHX, global_id: 1, ..MonGrant::default() };
                client.handle_connected(now, conn, Some(Box::new(grant)));
            }
        }
        let Some(([type_, version, len], tail)) = rest.split_first_chunk() else {
            return;
        };
        let (front, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        let header = Header {
            type_: u16::from(*type_),
            version: u16::from(*version % 10),
            compat_version: 1,
            tid: 1,
            ..Header::default()
        };
        let payload = Payload { front: Bytes::copy_from_slice(front), ..Payload::default() };
        client.handle_message(now, conn, RawMessage { header, payload });
    }
}
