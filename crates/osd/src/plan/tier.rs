//! Operations of cache tiers, as Ceph answers them on a pool that is no tier, and of manifests: an
//! object may be a redirect, whose requests go to another object.
//!
//! What has to be done elsewhere is an [`Errand`]: the plan ends there, and is made again with what the
//! errand brought. Chunked manifests are in [`super::chunk`].

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, OpCode, op_flag};
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::types::{HObject, ObjectLocator, SnapId};

use super::cut::Cut;
use super::{Effect, Request, Run, Step, err, ok};
use crate::errno::*;
use crate::object::{Chunk, ObjectInfo, Redirect};
use crate::view::{Fault, ObjectView, Viewed};

/// What has to be done at another object before a request can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// The whole request is for that object.
    Forward(HObject),
    /// The target of operation `op` is looked for, and `counted` a reference to it.
    Reach { op: usize, name: Bytes, locator: ObjectLocator, snap: SnapId, counted: bool },
    /// Operation `op` needs the object's content.
    Fetch { op: usize, target: HObject },
    /// The contents of these chunks are needed.
    Fill(Vec<Chunk>),
    /// The source of operation `op` leads elsewhere: it is to be read as a client reads it.
    Follow { op: usize },
}

/// Where an operation leads, or why it does not (negative).
pub type Reached = (usize, Result<HObject, i32>);

/// The object that a request is for, if it is another one than it names. Requests about the manifest
/// are for the object itself, and so are reads once it has data of its own.
pub(super) fn leads_to(request: &Request<'_>, info: Option<&ObjectInfo>) -> Option<HObject> {
    let info = info?;
    let redirect = info.redirect.as_ref()?;
    let shown = info.size != 0 && !request.may_write && !request.ordered;
    let stays = request.ignores_redirects
        || shown
        || request.ops.iter().any(|op| is_about_manifest(op.code));
    (!stays).then(|| redirect.target.clone())
}

pub(super) fn is_about_manifest(code: OpCode) -> bool {
    matches!(
        code,
        OpCode::SET_REDIRECT
            | OpCode::SET_CHUNK
            | OpCode::UNSET_MANIFEST
            | OpCode::TIER_PROMOTE
            | OpCode::TIER_FLUSH
            | OpCode::TIER_EVICT
    )
}

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

    /// The object gives up its data and omap, but not its xattrs, and takes the version it is told.
    pub(super) fn set_redirect(
        &mut self,
        input: &Bytes,
        out: &mut OsdOpResult,
    ) -> Step<V::Missing> {
        self.require_present()?;
        let mut input = Cut::new(input);
        let (name, locator) = (input.blob()?, input.decoded::<ObjectLocator, _>()?);
        let OpArgs::CopyFrom { snapid, src_version, .. } = out.args else {
            return err(EINVAL);
        };
        if self.info.redirect.as_ref().is_some_and(|r| r.referenced) {
            return err(EINVAL);
        }
        let counted = out.flags & op_flag::WITH_REFERENCE != 0;
        let op = self.current;
        let target = match self.reached.iter().find(|(at, _)| *at == op) {
            Some((_, Ok(target))) => target.clone(),
            Some((_, Err(errno))) => return Err(Fault::Errno(*errno)),
            None => {
                let snap = snapid;
                return self.leave(Errand::Reach { op, name, locator, snap, counted });
            }
        };
        self.touched = true;
        self.effect(Effect::Truncate(0));
        if self.info.omap {
            self.effect(Effect::ClearOmap);
            self.info.omap = false;
        }
        self.resize(0);
        self.copied_version = Some(src_version);
        self.info.redirect = Some(Box::new(Redirect { target, referenced: counted }));
        ok()
    }

    /// The target's content becomes the object's own, besides the xattrs that it has; if there is
    /// no target, the object goes too.
    pub(super) fn promote(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        self.require_present()?;
        if !self.info.chunks.is_empty() {
            return self.promote_chunks();
        }
        let Some(redirect) = self.info.redirect.clone() else {
            return ok();
        };
        let op = self.current;
        let found = self.sources.iter().find(|(at, _)| *at == op).map(|(_, source)| source.clone());
        match found {
            None => self.leave(Errand::Fetch { op, target: redirect.target }),
            Some(Ok(source)) => {
                self.release();
                self.effect(Effect::Truncate(0));
                self.effect(Effect::ClearOmap);
                self.take_over(source);
                ok()
            }
            Some(Err(errno)) if errno == -ENOENT => self.delete(),
            Some(Err(errno)) => {
                out.flags &= !op_flag::FAILOK;
                Err(Fault::Errno(errno))
            }
        }
    }

    /// A redirect has nothing of its own to write back, and says that it is busy.
    pub(super) fn flush(&self) -> Step<V::Missing> {
        self.require_present()?;
        if !self.info.chunks.is_empty() {
            return self.flush_chunks();
        }
        if self.info.redirect.is_some() { err(EBUSY) } else { ok() }
    }

    pub(super) fn evict(&mut self) -> Step<V::Missing> {
        self.require_present()?;
        if !self.info.chunks.is_empty() {
            return self.evict_chunks();
        }
        if self.info.redirect.is_some() { ok() } else { err(EINVAL) }
    }

    /// The object shows itself again.
    pub(super) fn unset_manifest(&mut self) -> Step<V::Missing> {
        self.require_present()?;
        if self.info.redirect.is_none() && self.info.chunks.is_empty() {
            return err(EOPNOTSUPP);
        }
        self.release();
        self.touched = true;
        self.delta.num_wr += 1;
        ok()
    }

    /// Takes the manifest away; who counted a reference is told once that is published.
    pub(super) fn release(&mut self) {
        if let Some(redirect) = self.info.redirect.take()
            && redirect.referenced
        {
            self.released.push(redirect.target);
        }
        self.drop_chunks(&Effect::Remove);
    }

    pub(super) fn require_present(&self) -> Viewed<(), V::Missing> {
        if self.exists { Ok(()) } else { Err(Fault::Errno(-ENOENT)) }
    }

    /// The request ends here until the errand is done.
    pub(super) fn leave(&mut self, errand: Errand) -> Step<V::Missing> {
        self.errand = Some(errand);
        err(EAGAIN)
    }
}
