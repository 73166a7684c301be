//! Objects of one pool, in one namespace, with one locator key.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use spirula_wire::msg::osd_op::flag;
use spirula_wire::types::{ObjectLocator, SnapContext, SnapId, UTime};

use crate::cluster::Cluster;
use crate::errno::Errno;
use crate::error::Error;
use crate::listing::ObjectList;
use crate::objecter::{OpRequest, OpTarget};
use crate::ops::{OpResult, ReadOp, Stat, WriteOp};

/// Omap entries asked for in one request.
const OMAP_PAGE: u64 = 1024;

/// A pool to read and write in. Cheap to clone.
#[derive(Clone)]
pub struct IoCtx {
    cluster: Cluster,
    pool: i64,
    nspace: Bytes,
    key: Bytes,
}

impl IoCtx {
    pub(crate) fn new(cluster: Cluster, pool: i64) -> Self {
        Self { cluster, pool, nspace: Bytes::new(), key: Bytes::new() }
    }

    /// The same pool, another namespace; `""` is the default one.
    pub fn with_namespace(&self, nspace: impl Into<Bytes>) -> Self {
        Self { nspace: nspace.into(), ..self.clone() }
    }

    /// Objects are placed by `key` instead of by their names; `""` undoes it.
    pub fn with_locator(&self, key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), ..self.clone() }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn pool_id(&self) -> i64 {
        self.pool
    }

    pub fn namespace(&self) -> &Bytes {
        &self.nspace
    }

    /// Up to `length` bytes from `offset`; fewer at the end of the object. `length` 0 means all.
    pub async fn read(&self, oid: &str, offset: u64, length: u64) -> Result<Bytes, Error> {
        let result = self.execute(oid, ReadOp::new().read(offset, length)).await?;
        Ok(result.output(0)?.data.clone())
    }

    pub async fn write(&self, oid: &str, offset: u64, data: impl Into<Bytes>) -> Result<(), Error> {
        self.change(oid, WriteOp::new().write(offset, data)).await
    }

    pub async fn write_full(&self, oid: &str, data: impl Into<Bytes>) -> Result<(), Error> {
        self.change(oid, WriteOp::new().write_full(data)).await
    }

    pub async fn append(&self, oid: &str, data: impl Into<Bytes>) -> Result<(), Error> {
        self.change(oid, WriteOp::new().append(data)).await
    }

    pub async fn truncate(&self, oid: &str, size: u64) -> Result<(), Error> {
        self.change(oid, WriteOp::new().truncate(size)).await
    }

    pub async fn zero(&self, oid: &str, offset: u64, length: u64) -> Result<(), Error> {
        self.change(oid, WriteOp::new().zero(offset, length)).await
    }

    pub async fn create(&self, oid: &str, exclusive: bool) -> Result<(), Error> {
        self.change(oid, WriteOp::new().create(exclusive)).await
    }

    pub async fn remove(&self, oid: &str) -> Result<(), Error> {
        self.change(oid, WriteOp::new().remove()).await
    }

    pub async fn stat(&self, oid: &str) -> Result<Stat, Error> {
        let result = self.execute(oid, ReadOp::new().stat()).await?;
        result.output(0)?.stat()
    }

    pub async fn get_xattr(&self, oid: &str, name: &str) -> Result<Bytes, Error> {
        let result = self.execute(oid, ReadOp::new().get_xattr(name)).await?;
        Ok(result.output(0)?.data.clone())
    }

    pub async fn get_xattrs(&self, oid: &str) -> Result<BTreeMap<String, Bytes>, Error> {
        let result = self.execute(oid, ReadOp::new().get_xattrs()).await?;
        result.output(0)?.map()
    }

    pub async fn set_xattr(
        &self,
        oid: &str,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.change(oid, WriteOp::new().set_xattr(name, value)).await
    }

    pub async fn rm_xattr(&self, oid: &str, name: &str) -> Result<(), Error> {
        self.change(oid, WriteOp::new().rm_xattr(name)).await
    }

    /// ENOENT without the object, ENODATA without the key.
    pub async fn omap_get(&self, oid: &str, key: &str) -> Result<Bytes, Error> {
        let op = ReadOp::new().omap_get_by_keys([key]);
        let mut found = self.execute(oid, op).await?.output(0)?.map()?;
        found.remove(key).ok_or(Error::Server(Errno::ENODATA))
    }

    /// All entries, page by page.
    pub async fn omap_list(&self, oid: &str) -> Result<BTreeMap<String, Bytes>, Error> {
        let mut all = BTreeMap::new();
        let mut after = String::new();
        loop {
            let op = ReadOp::new().omap_get_vals(&after, OMAP_PAGE, "");
            let (page, more) = self.execute(oid, op).await?.output(0)?.map_page()?;
            let last = page.keys().next_back().cloned();
            all.extend(page);
            match last {
                // A page that does not lead on would be asked for again and again.
                Some(last) if more && last > after => after = last,
                _ => return Ok(all),
            }
        }
    }

    pub async fn omap_set<K: Into<String>, V: Into<Bytes>>(
        &self,
        oid: &str,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), Error> {
        self.change(oid, WriteOp::new().omap_set(pairs)).await
    }

    pub async fn omap_rm_keys<K: Into<String>>(
        &self,
        oid: &str,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<(), Error> {
        self.change(oid, WriteOp::new().omap_rm_keys(keys)).await
    }

    pub async fn omap_clear(&self, oid: &str) -> Result<(), Error> {
        self.change(oid, WriteOp::new().omap_clear()).await
    }

    pub async fn omap_get_header(&self, oid: &str) -> Result<Bytes, Error> {
        let result = self.execute(oid, ReadOp::new().omap_get_header()).await?;
        Ok(result.output(0)?.data.clone())
    }

    pub async fn omap_set_header(&self, oid: &str, header: impl Into<Bytes>) -> Result<(), Error> {
        self.change(oid, WriteOp::new().omap_set_header(header)).await
    }

    /// Carries out a compound write.
    pub async fn operate(&self, oid: &str, op: WriteOp) -> Result<OpResult, Error> {
        let flags = op.flags | flag::ONDISK | flag::WRITE;
        let request = self.request(oid, op.ops, flags, now());
        OpResult::of(self.cluster.op(request).await?)
    }

    /// Carries out a compound read.
    pub async fn execute(&self, oid: &str, op: ReadOp) -> Result<OpResult, Error> {
        let flags = op.flags | flag::ONDISK | flag::READ;
        let request = self.request(oid, op.ops, flags, UTime::default());
        OpResult::of(self.cluster.op(request).await?)
    }

    /// The objects of this namespace; of all with [`ALL_NAMESPACES`](crate::ALL_NAMESPACES).
    pub fn list(&self) -> ObjectList {
        ObjectList::new(self.clone())
    }

    async fn change(&self, oid: &str, op: WriteOp) -> Result<(), Error> {
        self.operate(oid, op).await.map(|_| ())
    }

    fn request(
        &self,
        oid: &str,
        ops: Vec<spirula_wire::msg::osd_op::OsdOp>,
        flags: u32,
        mtime: UTime,
    ) -> OpRequest {
        let locator = ObjectLocator {
            key: self.key.clone(),
            nspace: self.nspace.clone(),
            ..ObjectLocator::pool(self.pool)
        };
        OpRequest {
            target: OpTarget::Object { locator, oid: Bytes::copy_from_slice(oid.as_bytes()) },
            ops,
            flags,
            snap: SnapId::HEAD,
            snapc: SnapContext::default(),
            mtime,
        }
    }
}

fn now() -> UTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().into()
}
