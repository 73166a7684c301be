//! An object being read, a part at a time.

use spirula_store::{Still, Store};
use spirula_vos::{Anchor, ContainerId, Export, Extent, ObjectKey, Vos};
use spirula_wire::types::{EVersion, SnapId};

use super::part::Content;
use super::{CopyError, PART_BYTES, PART_ENTRIES, Part, clones, stored_version};

/// Entries of the store in one part.
const ENTRIES_MAX: usize = 1024;

/// An object on its way out.
pub struct Outgoing {
    store: Store,
    cid: ContainerId,
    oid: ObjectKey,
    version: EVersion,
    snaps: Vec<SnapId>,
    number: u32,
    /// Where the next part begins.
    anchor: Option<Anchor>,
    /// Entries that are not too much for a part, as far as is known.
    budget: usize,
    entries_max: usize,
    _still: Still,
}

/// Begins to read an object. `None`: it does not exist here.
pub async fn read_object(
    store: &Store,
    cid: ContainerId,
    oid: &ObjectKey,
) -> Result<Option<Outgoing>, CopyError> {
    let still = store.hold_still(cid, oid);
    let version = store.read(|vos: &Vos| stored_version(vos, cid, oid)).await?;
    let Some(version) = version else {
        return Ok(None);
    };
    let clones = clones(store, cid, oid).await?;
    let mut snaps: Vec<SnapId> = clones.into_iter().flat_map(|clone| clone.snaps).collect();
    snaps.sort_unstable();
    snaps.dedup();
    Ok(Some(Outgoing {
        store: store.clone(),
        cid,
        oid: oid.clone(),
        version,
        snaps,
        number: 0,
        anchor: Some(Anchor::default()),
        budget: ENTRIES_MAX,
        entries_max: ENTRIES_MAX,
        _still: still,
    }))
}

impl Outgoing {
    /// That of the object: it is the same for all parts.
    pub fn version(&self) -> EVersion {
        self.version
    }

    /// Makes parts of about so many keys, values and extents, if that is less.
    pub fn set_entries_max(&mut self, max: usize) {
        self.entries_max = max.clamp(1, ENTRIES_MAX);
        self.budget = self.budget.min(self.entries_max);
    }

    /// The next part; `None` after the last one. After an error there are no more.
    pub async fn next(&mut self) -> Result<Option<Part>, CopyError> {
        let Some(anchor) = self.anchor.take() else {
            return Ok(None);
        };
        loop {
            let (cid, oid, budget) = (self.cid, &self.oid, self.budget);
            let export = self.store.read(|vos| vos.export(cid, oid, &anchor, budget)).await?;
            let export = export.ok_or(CopyError::Gone)?;
            if budget == 1 || fits(&export) {
                return self.finish(export).await.map(Some);
            }
            self.budget = budget / 2;
        }
    }

    /// Reads the data of a part, in the turn in which its places were found.
    async fn finish(&mut self, export: Export) -> Result<Part, CopyError> {
        let extents: Vec<Extent> = export.data.into_iter().map(Extent::Device).collect();
        let data = self.store.read_data(&extents).await?;
        let last = export.next.is_none();
        let snaps = if last { std::mem::take(&mut self.snaps) } else { Vec::new() };
        let content = Content { snaps, entries: export.entries, pieces: data.pieces };
        let part = Part { number: self.number, last, data: content.encode(data.crc) };
        self.number += 1;
        self.budget = (self.budget * 2).min(self.entries_max);
        self.anchor = export.next;
        Ok(part)
    }
}

fn fits(export: &Export) -> bool {
    let data: usize = export.data.iter().map(|extent| extent.len as usize).sum();
    export.entries.len() <= PART_ENTRIES && data <= PART_BYTES
}
