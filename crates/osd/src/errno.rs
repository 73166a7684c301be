//! Error numbers of OSD replies, with those that go by names of their own.

pub use spirula_wire::errno::*;

/// A client on the blocklist is answered with this (`EBLOCKLISTED`).
pub const EBLOCKLISTED: i32 = ESHUTDOWN;
/// The data of one write request is above `osd_max_write_size` (`OSD_WRITETOOBIG`).
pub const WRITE_TOO_BIG: i32 = EMSGSIZE;
/// `MAX_ERRNO`: a comparison that fails at byte `n` returns `-(4095 + n)`.
pub const MAX_ERRNO: i32 = 4095;
