//! Error numbers as Ceph sends them (Linux's), with the names and texts its tools print.

use std::fmt;

/// A positive error number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $n:literal;)*) => {
        impl Errno {
            $(pub const $name: Self = Self($n);)*

            /// `ENOENT`, or `Unknown`.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($n => stringify!($name),)*
                    _ => "Unknown",
                }
            }
        }
    };
}

errnos! {
    EPERM = 1; ENOENT = 2; ESRCH = 3; EINTR = 4; EIO = 5; ENXIO = 6; E2BIG = 7; ENOEXEC = 8;
    EBADF = 9; ECHILD = 10; EAGAIN = 11; ENOMEM = 12; EACCES = 13; EFAULT = 14; EBUSY = 16;
    EEXIST = 17; EXDEV = 18; ENODEV = 19; ENOTDIR = 20; EISDIR = 21; EINVAL = 22; ENFILE = 23;
    EMFILE = 24; EFBIG = 27; ENOSPC = 28; EROFS = 30; EPIPE = 32; EDOM = 33; ERANGE = 34;
    EDEADLK = 35; ENAMETOOLONG = 36; ENOSYS = 38; ENOTEMPTY = 39; ELOOP = 40; ENODATA = 61;
    ETIME = 62; EOVERFLOW = 75; EILSEQ = 84; EPROTO = 71; EBADMSG = 74; EOPNOTSUPP = 95;
    ENETUNREACH = 101; ECONNRESET = 104; ENOTCONN = 107; ESHUTDOWN = 108; ETIMEDOUT = 110;
    ECONNREFUSED = 111; EHOSTUNREACH = 113; EALREADY = 114; ESTALE = 116; EDQUOT = 122;
    ECANCELED = 125;
}

impl Errno {
    /// From a result code: negative means an error.
    pub fn of(result: i32) -> Option<Self> {
        (result < 0).then(|| Self(result.saturating_neg()))
    }

    /// The system's text: `No such file or directory`.
    pub fn text(self) -> String {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        match text.rfind(" (os error") {
            Some(end) => text[..end].to_owned(),
            None => text,
        }
    }
}

/// `(2) No such file or directory`
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}) {}", self.0, self.text())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts() {
        let e = Errno::of(-2).unwrap();
        assert_eq!(e.name(), "ENOENT");
        assert_eq!(e.to_string(), "(2) No such file or directory");
        assert_eq!(Errno::of(0), None);
        assert_eq!(Errno(9999).name(), "Unknown");
    }
}
