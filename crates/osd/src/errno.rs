//! Linux error numbers as OSD replies carry them (negated), independent of the host's `errno.h`.

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EIO: i32 = 5;
pub const EAGAIN: i32 = 11;
pub const EBUSY: i32 = 16;
pub const EEXIST: i32 = 17;
pub const EINVAL: i32 = 22;
pub const EFBIG: i32 = 27;
pub const ENOSPC: i32 = 28;
pub const ERANGE: i32 = 34;
pub const ENAMETOOLONG: i32 = 36;
pub const ENODATA: i32 = 61;
pub const EOVERFLOW: i32 = 75;
pub const EMSGSIZE: i32 = 90;
pub const EOLDSNAPC: i32 = 85;
pub const EOPNOTSUPP: i32 = 95;
pub const ENOTCONN: i32 = 107;
pub const ESHUTDOWN: i32 = 108;
pub const ETIMEDOUT: i32 = 110;
pub const EDQUOT: i32 = 122;
pub const ECANCELED: i32 = 125;

/// A client on the blocklist is answered with this (`EBLOCKLISTED`).
pub const EBLOCKLISTED: i32 = ESHUTDOWN;
/// The data of one write request is above `osd_max_write_size` (`OSD_WRITETOOBIG`).
pub const WRITE_TOO_BIG: i32 = EMSGSIZE;
/// `MAX_ERRNO`: a comparison that fails at byte `n` returns `-(4095 + n)`.
pub const MAX_ERRNO: i32 = 4095;
