//! What an object holds, in one number.

use bytes::Bytes;
use spirula_store::Store;
use spirula_vos::{ContainerId, Extent, Keys, ObjectKey, ReadError, Vos};
use spirula_xstream::yield_now;

use super::{CopyError, NOW, clones};

/// Keys read in one go.
const BATCH: usize = 256;
/// Bytes read in one go.
const WINDOW: u64 = 1 << 20;

/// A sum of numbers and bytes in their order.
struct Sum(u64);

impl Sum {
    fn number(&mut self, n: u64) {
        // FNV, by words instead of bytes; what comes in late reaches the low bits by the rotation.
        self.0 = (self.0 ^ n).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number((bytes.len() as u64) << 32 | u64::from(crc32c::crc32c(bytes)));
    }
}

/// A digest of the object: head and clones, with their data, xattrs, omap and records. It is the same for
/// objects that are read alike, however their stores keep them. `None`: it is not here. What cannot be
/// read is an error. The object must not be written meanwhile.
pub async fn digest(
    store: &Store,
    cid: ContainerId,
    oid: &ObjectKey,
) -> Result<Option<u64>, CopyError> {
    if store.read(|vos: &Vos| Ok(vos.at(NOW).open(cid, oid)?.is_none())).await? {
        return Ok(None);
    }
    let mut sum = Sum(0xcbf2_9ce4_8422_2325);
    let clones = clones(store, cid, oid).await?;
    for epoch in clones.iter().map(|clone| clone.epoch).chain([NOW]) {
        sum.number(epoch);
        At { store, cid, oid, epoch }.add(&mut sum).await?;
    }
    Ok(Some(sum.0))
}

/// An object at an epoch.
struct At<'a> {
    store: &'a Store,
    cid: ContainerId,
    oid: &'a ObjectKey,
    epoch: u64,
}

/// An akey, its value and, of an array, the size.
type Item = (Bytes, Bytes, Option<u64>);

impl At<'_> {
    async fn add(&self, sum: &mut Sum) -> Result<(), CopyError> {
        let Self { store, cid, oid, epoch } = *self;
        let mut keys = Some(Keys::default());
        while let Some(from) = &keys {
            let dkeys = store.read(|vos| vos.at(epoch).dkeys(cid, oid, from, BATCH)).await?;
            for dkey in &dkeys {
                sum.bytes(dkey);
                self.add_dkey(dkey, sum).await?;
            }
            keys = page_behind(dkeys.len(), dkeys.last());
        }
        Ok(())
    }

    async fn add_dkey(&self, dkey: &Bytes, sum: &mut Sum) -> Result<(), CopyError> {
        let mut keys = Some(Keys::default());
        while let Some(from) = &keys {
            let items = self.store.read(|vos| self.items(vos, dkey, from)).await?;
            for (akey, value, size) in &items {
                sum.bytes(akey);
                match size {
                    Some(size) => self.add_array(dkey, akey, *size, sum).await?,
                    None => sum.bytes(value),
                }
            }
            keys = page_behind(items.len(), items.last().map(|(akey, ..)| akey));
            yield_now().await;
        }
        Ok(())
    }

    fn items(&self, vos: &Vos, dkey: &[u8], from: &Keys) -> Result<Vec<Item>, ReadError> {
        let view = vos.at(self.epoch);
        let listed = view.akeys(self.cid, self.oid, dkey, from, BATCH)?;
        let Some(object) = view.open(self.cid, self.oid)? else {
            return Ok(Vec::new());
        };
        let item = |(akey, value): (Bytes, Bytes)| {
            let size = if value.is_empty() { object.array_size(dkey, &akey)? } else { None };
            Ok((akey, value, size))
        };
        listed.into_iter().map(item).collect()
    }

    /// Bytes in windows, so that it does not matter how they are cut into extents; holes are left out.
    async fn add_array(
        &self,
        dkey: &[u8],
        akey: &[u8],
        size: u64,
        sum: &mut Sum,
    ) -> Result<(), CopyError> {
        let Self { store, cid, oid, epoch } = *self;
        sum.number(size);
        for at in (0..size).step_by(WINDOW as usize) {
            let extents = |vos: &Vos| match vos.at(epoch).open(cid, oid)? {
                Some(object) => object.extents(dkey, akey, at, WINDOW),
                None => Ok(Vec::new()),
            };
            let extents = store.read(extents).await?;
            let data = store.read_data(&extents).await?;
            let (mut run, mut at) = (Run::default(), at);
            for (extent, piece) in extents.iter().zip(&data.pieces) {
                if !matches!(extent, Extent::Hole { .. }) {
                    run = run.extended(at, piece, sum);
                }
                at += piece.len() as u64;
            }
            run.end(sum);
        }
        Ok(())
    }
}

/// Bytes between two holes.
#[derive(Default)]
struct Run {
    from: u64,
    len: u64,
    crc: u32,
}

impl Run {
    /// With a piece behind it, if there is no hole between them; else the piece.
    fn extended(self, at: u64, piece: &Bytes, sum: &mut Sum) -> Self {
        let (from, len) = (self.from, self.len + piece.len() as u64);
        if self.len > 0 && self.from + self.len == at {
            return Self { from, len, crc: crc32c::crc32c_append(self.crc, piece) };
        }
        self.end(sum);
        Self { from: at, len: piece.len() as u64, crc: crc32c::crc32c(piece) }
    }

    fn end(self, sum: &mut Sum) {
        if self.len > 0 {
            [self.from, self.len, self.crc.into()].into_iter().for_each(|n| sum.number(n));
        }
    }
}

/// The keys behind a page that is full.
fn page_behind(count: usize, last: Option<&Bytes>) -> Option<Keys> {
    let last = last.filter(|_| count == BATCH)?;
    Some(Keys { from: [last, &[0][..]].concat().into(), ..Keys::default() })
}
