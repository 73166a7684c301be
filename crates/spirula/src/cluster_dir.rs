//! The directory of a `vstart` cluster: what is in it, who may open it, and the files that Ceph's
//! clients read (`ceph.conf`, `keyring`).
//!
//! Layout: `spirula.json` (identity and version), `lock`, `ceph.conf`, `keyring`, `mon.NAME/`,
//! `osd.N/block`, `run/` (pid files, admin sockets), `log/`.
//!
//! Invariants: one process tree owns a directory at a time (advisory lock on `lock`); a directory
//! of another version is refused before anything in it is touched.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Mode of files that hold keys.
const SECRET: u32 = 0o600;

/// Version of the directory's layout; another one is refused.
pub(crate) const VERSION: u32 = 1;

/// What can be wrong with a cluster directory; each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirError {
    #[error("{path}: cannot be written; choose another directory with --dir")]
    NotWritable { path: PathBuf, source: io::Error },
    #[error("{path}: another spirula has this cluster open; stop it, or choose another --dir")]
    AlreadyOpen { path: PathBuf },
    #[error(
        "{path}: written by layout version {found}, this spirula reads version {VERSION}; start with --fresh to erase it, or use the other release"
    )]
    OtherVersion { path: PathBuf, found: u32 },
    #[error("{path}: not a valid cluster description; start with --fresh to erase it")]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error(
        "{path}: holds files but no spirula.json, so it is not a Spirula cluster; choose an empty directory"
    )]
    NotACluster { path: PathBuf },
    #[error(
        "{path}: this cluster has {what} {found}, the command line asks for {asked}; leave the option out, or start with --fresh"
    )]
    OtherShape { path: PathBuf, what: &'static str, found: String, asked: String },
    #[error(
        "{path}: the device of osd.{osd} is missing; put it back, or start with --fresh to erase the cluster"
    )]
    DeviceMissing { path: PathBuf, osd: u32 },
}

/// What identifies a cluster and its daemons; made once, by mkfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) version: u32,
    pub(crate) fsid: String,
    pub(crate) mon_port: u16,
    /// Of the monitors after the first.
    #[serde(default)]
    pub(crate) more_mon_ports: Vec<u16>,
    /// Port base for mgr and OSDs; without one they take whatever port is free.
    pub(crate) port_base: Option<u16>,
    /// Copies of new pools.
    #[serde(default = "one")]
    pub(crate) size: u8,
    pub(crate) device_bytes: u64,
    /// Of devices for WAL and metadata; 0: none.
    #[serde(default)]
    pub(crate) wal_device_bytes: u64,
    #[serde(default)]
    pub(crate) meta_device_bytes: u64,
    pub(crate) class: DeviceClass,
    pub(crate) admin_key: String,
    pub(crate) mgr_key: String,
    pub(crate) osds: Vec<OsdIdentity>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OsdIdentity {
    pub(crate) id: u32,
    pub(crate) uuid: String,
    pub(crate) key: String,
}

fn one() -> u8 {
    1
}

impl Identity {
    /// `osd_pool_default_min_size`: of several copies more than half (Ceph's 0).
    pub(crate) fn min_size(&self) -> u8 {
        u8::from(self.size == 1)
    }

    /// Names and ports of the monitors, by rank.
    pub(crate) fn mons(&self) -> Vec<(String, u16)> {
        let ports = std::iter::once(&self.mon_port).chain(&self.more_mon_ports);
        (0..).zip(ports).map(|(n, port)| (mon_name(n), *port)).collect()
    }
}

/// `a` for the first monitor.
pub(crate) fn mon_name(n: u8) -> String {
    char::from(b'a' + n % 26).to_string()
}

/// What an OSD stores on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeviceClass {
    /// A file in the cluster directory, durable.
    File,
    /// Memory; gone when the cluster stops.
    Ram,
}

/// An open, locked cluster directory.
#[derive(Debug)]
pub(crate) struct ClusterDir {
    path: PathBuf,
    _lock: File,
}

impl ClusterDir {
    /// Opens and locks `path`, creating it when absent.
    pub(crate) fn open(path: &Path, fresh: bool) -> Result<Self, DirError> {
        let not_writable = |source| DirError::NotWritable { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(not_writable)?;
        let path = path.canonicalize().map_err(not_writable)?;
        refuse_foreign(&path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirError::AlreadyOpen { path }),
            Err(TryLockError::Error(source)) => return Err(not_writable(source)),
        }
        if fresh {
            erase(&path).map_err(not_writable)?;
        }
        for sub in ["run", "log"] {
            std::fs::create_dir_all(path.join(sub)).map_err(not_writable)?;
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster's identity, or `None` in a new directory. A cluster without one of its devices
    /// is refused: an empty one in its place would pass for the loss of all its objects.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, DirError> {
        let identity = read_identity(&self.path)?;
        if let Some(identity) = identity.as_ref().filter(|i| i.class == DeviceClass::File) {
            for osd in &identity.osds {
                let path = osd_dir(&self.path, osd.id).join("block");
                if !path.exists() {
                    return Err(DirError::DeviceMissing { path, osd: osd.id });
                }
            }
        }
        Ok(identity)
    }

    /// Writes the identity and the files that clients read. The identity goes last and by rename:
    /// a directory with one is complete.
    pub(crate) fn publish(&self, identity: &Identity) -> Result<(), DirError> {
        self.write("ceph.conf", 0o644, &ceph_conf(&self.path, identity))?;
        self.write("keyring", SECRET, &admin_keyring(identity))?;
        let text = serde_json::to_string_pretty(identity).expect("an identity has no odd keys");
        self.write("spirula.json", SECRET, &text)
    }

    /// Takes the identity away again: the cluster never came up, so the next start makes a new one.
    pub(crate) fn unpublish(&self) {
        // Not there when the start failed early.
        let _ = std::fs::remove_file(self.path.join("spirula.json"));
    }

    /// Removes the stores that a start left which never came to publish an identity.
    pub(crate) fn clear_unfinished(&self) -> Result<(), DirError> {
        let not_writable = |source| DirError::NotWritable { path: self.path.clone(), source };
        for entry in std::fs::read_dir(&self.path).map_err(not_writable)? {
            let entry = entry.map_err(not_writable)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let osd = name.strip_prefix("osd.").is_some_and(|id| id.parse::<u32>().is_ok());
            let mon = name.strip_prefix("mon.").is_some_and(|id| id.len() == 1);
            if osd || mon {
                std::fs::remove_dir_all(entry.path()).map_err(not_writable)?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> Result<(), DirError> {
        let target = self.path.join(name);
        let temp = self.path.join(format!(".{name}.new"));
        // The mode holds for a new file only.
        let _ = std::fs::remove_file(&temp);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        options
            .open(&temp)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temp, &target))
            .map_err(|source| DirError::NotWritable { path: target, source })
    }
}

/// Where an OSD keeps its device.
pub(crate) fn osd_dir(cluster: &Path, osd: u32) -> PathBuf {
    cluster.join(format!("osd.{osd}"))
}

/// Makes a directory for a store, which holds keys or users' data: only for its owner.
pub(crate) fn create_store_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads the identity without locking, for the daemons that `--procs` starts.
pub(crate) fn read_identity(path: &Path) -> Result<Option<Identity>, DirError> {
    let file = path.join("spirula.json");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DirError::NotWritable { path: file, source }),
    };
    #[derive(Deserialize)]
    struct VersionOnly {
        version: u32,
    }
    let damaged = |source| DirError::Damaged { path: file.clone(), source };
    let found = serde_json::from_str::<VersionOnly>(&text).map_err(damaged)?.version;
    if found != VERSION {
        return Err(DirError::OtherVersion { path: path.to_owned(), found });
    }
    serde_json::from_str(&text).map(Some).map_err(damaged)
}

/// Refuses a directory that holds somebody else's files.
fn refuse_foreign(path: &Path) -> Result<(), DirError> {
    let ours = ["spirula.json", "lock"].iter().any(|f| path.join(f).exists());
    let empty = std::fs::read_dir(path)
        .map_err(|source| DirError::NotWritable { path: path.to_owned(), source })?
        .next()
        .is_none();
    if ours || empty { Ok(()) } else { Err(DirError::NotACluster { path: path.to_owned() }) }
}

/// Removes everything but the lock that is held.
fn erase(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == "lock" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The configuration that real clients read, with what a one-host cluster needs.
fn ceph_conf(dir: &Path, id: &Identity) -> String {
    let dir = dir.display();
    format!(
        "[global]\n\
         fsid = {fsid}\n\
         mon host = {mons}\n\
         keyring = {dir}/keyring\n\
         auth cluster required = cephx\n\
         auth service required = cephx\n\
         auth client required = cephx\n\
         osd pool default size = {size}\n\
         osd pool default min size = {min_size}\n\
         osd pool default pg num = 32\n\
         osd pool default pgp num = 32\n\
         osd pool default pg autoscale mode = off\n\
         osd crush chooseleaf type = 0\n\
         mon allow pool size one = true\n\
         mon allow pool delete = true\n\
         mon warn on pool no redundancy = false\n\
         mon osd reporter subtree level = osd\n\
         log file = {dir}/log/$name.log\n\
         [mon]\n\
         admin socket = {dir}/run/$cluster-$name.asok\n\
         [mgr]\n\
         admin socket = {dir}/run/$cluster-$name.asok\n\
         [osd]\n\
         admin socket = {dir}/run/$cluster-$name.asok\n\
         [client]\n\
         log file =\n",
        fsid = id.fsid,
        size = id.size,
        min_size = id.min_size(),
        mons = id
            .mons()
            .iter()
            .map(|(_, port)| format!("[v2:127.0.0.1:{port}]"))
            .collect::<Vec<_>>()
            .join(","),
    )
}

fn admin_keyring(id: &Identity) -> String {
    format!(
        "[client.admin]\n\tkey = {}\n\tcaps mds = \"allow *\"\n\tcaps mgr = \"allow *\"\n\tcaps mon = \"allow *\"\n\tcaps osd = \"allow *\"\n",
        id.admin_key
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            version: VERSION,
            fsid: "3f6a8d2e-0000-4000-8000-000000000001".into(),
            mon_port: 6789,
            more_mon_ports: vec![],
            port_base: None,
            size: 1,
            device_bytes: 1 << 30,
            wal_device_bytes: 0,
            meta_device_bytes: 0,
            class: DeviceClass::File,
            admin_key: "k".into(),
            mgr_key: "m".into(),
            osds: vec![],
        }
    }

    #[test]
    fn an_identity_survives_and_the_lock_excludes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = ClusterDir::open(temp.path(), false).unwrap();
        assert_eq!(dir.identity().unwrap(), None);
        dir.publish(&identity()).unwrap();
        assert_eq!(dir.identity().unwrap(), Some(identity()));
        let second = ClusterDir::open(temp.path(), false).unwrap_err();
        assert!(matches!(second, DirError::AlreadyOpen { .. }), "{second}");
    }

    #[test]
    fn clients_read_how_many_copies_pools_get() {
        for (size, min_size) in [(1, 1), (3, 0)] {
            let conf = ceph_conf(Path::new("/c"), &Identity { size, ..identity() });
            assert!(conf.contains(&format!("\nosd pool default size = {size}\n")), "{conf}");
            let line = format!("\nosd pool default min size = {min_size}\n");
            assert!(conf.contains(&line), "{conf}");
        }
    }

    #[test]
    fn keys_are_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let dir = ClusterDir::open(temp.path(), false).unwrap();
        dir.publish(&identity()).unwrap();
        create_store_dir(&osd_dir(temp.path(), 0)).unwrap();
        let mode = |name| {
            let metadata = std::fs::metadata(temp.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(["keyring", "spirula.json", "osd.0"].map(mode), [0o600, 0o600, 0o700]);
    }

    #[test]
    fn a_missing_device_is_not_made_anew() {
        let temp = tempfile::tempdir().unwrap();
        let dir = ClusterDir::open(temp.path(), false).unwrap();
        let osd = OsdIdentity { id: 0, uuid: "u".into(), key: "k".into() };
        let made = Identity { osds: vec![osd], ..identity() };
        dir.publish(&made).unwrap();
        let missing = dir.identity().unwrap_err();
        assert!(matches!(missing, DirError::DeviceMissing { osd: 0, .. }), "{missing}");
        create_store_dir(&osd_dir(temp.path(), 0)).unwrap();
        std::fs::write(osd_dir(temp.path(), 0).join("block"), "").unwrap();
        assert_eq!(dir.identity().unwrap(), Some(made));
    }

    #[test]
    fn an_unfinished_cluster_is_cleared() {
        let temp = tempfile::tempdir().unwrap();
        let dir = ClusterDir::open(temp.path(), false).unwrap();
        dir.publish(&identity()).unwrap();
        for name in ["mon.a", "osd.0", "osd.notes"] {
            std::fs::create_dir(temp.path().join(name)).unwrap();
        }
        dir.unpublish();
        assert_eq!(dir.identity().unwrap(), None);
        dir.clear_unfinished().unwrap();
        let left = |name| temp.path().join(name).exists();
        assert_eq!(["mon.a", "osd.0", "osd.notes"].map(left), [false, false, true]);
    }

    #[test]
    fn another_version_and_foreign_files_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = ClusterDir::open(temp.path(), false).unwrap();
        dir.publish(&Identity { version: 7, ..identity() }).unwrap();
        assert!(matches!(dir.identity(), Err(DirError::OtherVersion { found: 7, .. })));
        drop(dir);
        let foreign = tempfile::tempdir().unwrap();
        std::fs::write(foreign.path().join("thesis.txt"), "mine").unwrap();
        let refused = ClusterDir::open(foreign.path(), true).unwrap_err();
        assert!(matches!(refused, DirError::NotACluster { .. }), "{refused}");
    }
}
