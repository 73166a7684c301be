//! The types that messages and maps are made of, all bit-exact with a Pacific (v16) peer.
//!
//! One file per family, re-exported flat.

mod addr;
mod entity;
mod ids;
mod object;

pub use addr::{AddrParseError, AddrType, EntityAddr, EntityAddrVec};
pub use entity::{EntityName, EntityNameStr, EntityType, NameParseError};
pub use ids::{EVersion, PgId, PgParseError, PgShard, ShardId, SpgId, UTime, Uuid};
pub use object::{HObject, ObjectLocator, RequestId, SnapContext, SnapId};
