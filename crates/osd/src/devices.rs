//! Which devices a store is on: the main one, and for WAL and pages what the options say, or what lies
//! beside it under Ceph's names, `block.wal` and `block.db`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spirula_bio::{Device, DeviceError, Devices};
use spirula_xstream::sleep;

use crate::options::parse_size;

/// How long a device may stay locked, and how often to look.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Names in options and of files.
const WAL: &str = "wal";
const META: &str = "db";

/// Where the devices of a store are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePaths {
    pub main: PathBuf,
    pub wal: Option<PathBuf>,
    pub meta: Option<PathBuf>,
}

impl DevicePaths {
    /// By `bluestore_block_wal_path` and `bluestore_block_db_path`, or what is there.
    pub fn find(main: &Path, options: &BTreeMap<String, String>) -> DevicePaths {
        let find = |name| {
            let beside = main.with_extension(name);
            configured(options, name).or_else(|| beside.exists().then_some(beside))
        };
        DevicePaths { main: main.into(), wal: find(WAL), meta: find(META) }
    }

    /// Opens all of them, for reading only.
    pub fn open_read_only(&self) -> Result<Devices, DeviceError> {
        let open = |path: &PathBuf| Device::open_read_only(path);
        Ok(Devices {
            main: open(&self.main)?,
            wal: self.wal.as_ref().map(open).transpose()?,
            meta: self.meta.as_ref().map(open).transpose()?,
        })
    }

    /// Opens all of them.
    pub(crate) async fn open(&self) -> Result<Devices, DeviceError> {
        let mut devices = Devices { main: open(&self.main).await?, wal: None, meta: None };
        if let Some(path) = &self.wal {
            devices.wal = Some(open(path).await?);
        }
        if let Some(path) = &self.meta {
            devices.meta = Some(open(path).await?);
        }
        Ok(devices)
    }
}

/// Opens devices to be formatted; files are made. One for the WAL or for pages if it has a path or a size
/// (`bluestore_block_wal_size`, `bluestore_block_db_size`).
pub(crate) fn create(
    main: &Path,
    bytes: Option<u64>,
    options: &BTreeMap<String, String>,
) -> Result<Devices, DeviceError> {
    let other = |name: &str| {
        let size = options.get(&format!("bluestore_block_{name}_size"));
        let size = size.and_then(|text| parse_size(text)).filter(|&bytes| bytes > 0);
        let path = configured(options, name);
        let wanted = size.is_some() || path.is_some();
        let path = path.unwrap_or_else(|| main.with_extension(name));
        wanted.then(|| Device::create(path, size)).transpose()
    };
    Ok(Devices { wal: other(WAL)?, meta: other(META)?, main: Device::create(main, bytes)? })
}

fn configured(options: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    let path = options.get(&format!("bluestore_block_{name}_path"))?;
    (!path.is_empty()).then(|| path.into())
}

/// The kernel may hold the lock of a device that was closed just now for a moment longer.
async fn open(path: &Path) -> Result<Device, DeviceError> {
    let deadline = spirula_xstream::now() + LOCK_PATIENCE;
    loop {
        match Device::open(path) {
            Err(DeviceError::Locked { .. }) if spirula_xstream::now() < deadline => {
                sleep(LOCK_RETRY).await;
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use spirula_store::{Expect, FormatOptions, Store};
    use spirula_xstream::sim::SimWorld;

    use super::*;

    #[test]
    fn devices_are_those_of_the_options() {
        let host = SimWorld::new(1).host("osd");
        ["/osd/block", "/fast/wal"].into_iter().for_each(|path| drop(host.disk(path, 32 << 20)));
        let (path, main) = ("bluestore_block_wal_path", Path::new("/osd/block"));
        let options: BTreeMap<String, String> = [
            (path.to_owned(), "/fast/wal".to_owned()),
            ("bluestore_block_db_size".to_owned(), "16M".to_owned()),
        ]
        .into();
        host.block_on(async move {
            let devices = create(main, None, &options).unwrap();
            assert_eq!(devices.meta.as_ref().unwrap().path(), Path::new("/osd/block.db"));
            Store::format(&devices, &FormatOptions::default()).await.unwrap();
            drop(devices);
            let mut options = options;
            options.insert("bluestore_block_db_path".to_owned(), "/osd/block.db".to_owned());
            let paths = DevicePaths::find(main, &options);
            let devices = paths.open().await.unwrap();
            Store::open(&devices, Expect::default(), Default::default()).await.unwrap();
            drop(devices);
            let alone = DevicePaths::find(main, &BTreeMap::new());
            assert_eq!((alone.wal, alone.meta), (None, None), "nothing lies beside it");
        })
        .unwrap();
    }
}
