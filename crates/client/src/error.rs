//! What can go wrong, sorted by who is to blame.

use std::path::PathBuf;
use std::time::Duration;

use spirula_auth::{AuthError, KeyringError};
use spirula_wire::DecodeError;
use spirula_wire::types::EntityNameStr;

use crate::conf::ConfError;
use crate::errno::Errno;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cluster carried the request out, or refused to, and says so.
    #[error("{0}")]
    Server(Errno),
    /// The cluster does not let us in.
    #[error("the cluster refused {name}: {error}")]
    Auth { name: EntityNameStr, error: AuthError },
    /// A daemon sent what cannot be understood.
    #[error("a daemon misbehaved: {0}")]
    Peer(#[from] DecodeError),
    #[error("no answer within {0:?}; it is not known whether the request was carried out")]
    TimedOut(Duration),
    /// The caller, or what it configured, is wrong.
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("there is no pool {0}")]
    NoPool(String),
    #[error("there is no {0}")]
    NoDaemon(String),
    #[error("the client has been shut down")]
    Closed,
}

/// Nothing was sent yet: the configuration does not suffice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Conf(#[from] ConfError),
    #[error("`mon host` names no monitor; give -m, or a configuration file with -c or CEPH_CONF")]
    NoMonitors,
    #[error("no monitor in `{0}` has a v2 address; the legacy messenger v1 is not spoken")]
    OnlyLegacy(String),
    #[error("not a monitor address: {0}")]
    MonHost(String),
    #[error("no keyring for {name}; looked at {}", join(.looked_at))]
    NoKeyring { name: EntityNameStr, looked_at: Vec<PathBuf> },
    #[error("keyring {path} has no key for {name}")]
    NoKey { path: PathBuf, name: EntityNameStr },
    #[error("keyring {path}: {error}")]
    Keyring { path: PathBuf, error: KeyringError },
    #[error("{path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: String },
    #[error("option `key` is not a base64 cephx key")]
    Key,
    #[error("option `{option}` cannot be `{value}`")]
    Option { option: &'static str, value: String },
    #[error("the system gives no randomness")]
    NoEntropy,
}

impl Error {
    pub(crate) fn check(result: i32) -> Result<(), Self> {
        Errno::of(result).map_or(Ok(()), |e| Err(Self::Server(e)))
    }

    /// What librados would return.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Server(errno) => *errno,
            Self::Auth { .. } => Errno::EACCES,
            Self::Peer(_) => Errno::EIO,
            Self::TimedOut(_) => Errno::ETIMEDOUT,
            Self::Setup(SetupError::NoKeyring { .. } | SetupError::NoMonitors) => Errno::ENOENT,
            Self::Setup(_) => Errno::EINVAL,
            Self::NoPool(_) | Self::NoDaemon(_) => Errno::ENOENT,
            Self::Closed => Errno::ESHUTDOWN,
        }
    }
}

impl From<ConfError> for Error {
    fn from(e: ConfError) -> Self {
        Self::Setup(e.into())
    }
}

fn join(paths: &[PathBuf]) -> String {
    let texts: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    texts.join(", ")
}
