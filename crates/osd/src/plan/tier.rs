//! Operations of cache tiers and of manifests (redirects, chunks): as Ceph answers them on a pool that
//! is no tier and for an object without a manifest.

use bytes::Bytes;
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::types::ObjectLocator;

use super::cut::Cut;
use super::{Run, Step, err, ok};
use crate::errno::*;
use crate::view::ObjectView;

impl<V: ObjectView> Run<'_, V> {
    /// Whether the object changed since it was made or last said to be clean.
    pub(super) fn is_dirty(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        self.delta.num_rd += 1;
        out.outdata = vec![Bytes::copy_from_slice(&[u8::from(self.exists && !self.info.clean)])];
        ok()
    }

    pub(super) fn undirty(&mut self) -> Step<V::Missing> {
        if self.exists && !self.info.clean {
            self.touched = true;
            self.undirty = true;
            self.delta.num_wr += 1;
        }
        ok()
    }

    /// Nothing but a new version.
    pub(super) fn startsync(&mut self) -> Step<V::Missing> {
        self.touched |= self.exists;
        ok()
    }

    /// Manifests are not kept.
    pub(super) fn set_redirect(&self, input: &Bytes) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        let mut input = Cut::new(input);
        input.blob()?;
        input.decoded::<ObjectLocator, _>()?;
        err(EOPNOTSUPP)
    }

    pub(super) fn set_chunk(&self, input: &Bytes) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        let mut input = Cut::new(input);
        let _range = (input.u64()?, input.u64()?);
        input.decoded::<ObjectLocator, _>()?;
        err(EOPNOTSUPP)
    }

    /// Without a manifest there is nothing to bring in or to write back.
    pub(super) fn without_manifest(&self, result: i32) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        if result == 0 { ok() } else { err(result) }
    }
}
