//! Listing the objects of a pool, PG by PG in the order of their hashes.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, flag};
use spirula_wire::types::{HObject, ListedObject, PgId, PgNlsResponse, SnapContext, SnapId, UTime};
use spirula_wire::{Decode as _, Encode as _, Features};

use crate::error::Error;
use crate::ioctx::IoCtx;
use crate::limits::LIST_PAGE;
use crate::objecter::{OpRequest, OpTarget};
use crate::ops::OpResult;

/// The namespace that stands for all of them in a listing.
pub const ALL_NAMESPACES: &str = "\u{1}";

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub nspace: Bytes,
    pub oid: Bytes,
    /// Empty if the object is placed by its name.
    pub locator: Bytes,
}

impl From<ListedObject> for Listed {
    fn from(o: ListedObject) -> Self {
        Self { nspace: o.nspace, oid: o.oid, locator: o.locator }
    }
}

/// A walk over the objects of a pool. Objects that are there all the time are seen once; those made
/// or removed meanwhile may be seen or not.
pub struct ObjectList {
    io: IoCtx,
    /// Where the next page begins.
    cursor: HObject,
    page: VecDeque<Listed>,
}

impl ObjectList {
    pub(crate) fn new(io: IoCtx) -> Self {
        Self { io, cursor: HObject::min(), page: VecDeque::new() }
    }

    /// The next object; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Listed>, Error> {
        while self.page.is_empty() && !self.cursor.is_max() {
            self.next_page().await?;
        }
        Ok(self.page.pop_front())
    }

    pub fn into_stream(self) -> impl Stream<Item = Result<Listed, Error>> {
        try_unfold(
            self,
            |mut list| async move { Ok(list.next().await?.map(|object| (object, list))) },
        )
    }

    async fn next_page(&mut self) -> Result<(), Error> {
        let epoch = self.io.cluster().map().epoch;
        let args = OpArgs::Pgls { count: LIST_PAGE, start_epoch: epoch };
        let cursor = self.cursor.to_bytes(Features::PACIFIC);
        let request = OpRequest {
            target: OpTarget::Pg {
                pg: PgId::new(self.io.pool_id(), self.cursor.hash),
                nspace: self.io.namespace().clone(),
            },
            ops: vec![OsdOp::new(OpCode::PGNLS, args, cursor.into())],
            flags: flag::ONDISK | flag::READ | flag::IGNORE_OVERLAY,
            snap: SnapId::HEAD,
            snapc: SnapContext::default(),
            mtime: UTime::default(),
        };
        let result = OpResult::of(self.io.cluster().op(request).await?)?;
        let answer = PgNlsResponse::from_bytes(&result.output(0)?.data)?;
        // A cursor that does not move on would be asked for again and again.
        self.cursor = match answer.handle > self.cursor {
            true => answer.handle,
            false => HObject::max(),
        };
        self.page.extend(answer.entries.into_iter().map(Listed::from));
        Ok(())
    }
}
