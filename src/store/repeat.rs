//! The upload of an object whose name exists: what comes is compared with what is stored.

use std::rc::Rc;

use crate::io::Buffer;
use crate::io::dir::Meta;
use crate::store::Error;
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fs::Shared;
use crate::store::upload::{Common, Target, Verdict};
use crate::types::Handle;

/// An upload whose name exists.
pub struct Repeat<D: Disk> {
    pub(super) common: Common<D>,
    stored: D::File,
    meta: Meta,
    /// All that came was equal so far.
    same: bool,
}

impl<D: Disk> Repeat<D> {
    /// Of the object in the file `stored`.
    pub(super) fn begin(
        shared: &Rc<Shared<D>>,
        dir: D::Dir,
        handle: &Handle,
        stored: D::File,
        meta: Meta,
    ) -> Self {
        Self { common: Common::new(shared, Target::of(dir), handle), stored, meta, same: true }
    }

    pub(super) async fn write(&mut self, piece: Buffer) -> Result<(), Error> {
        self.common.hash(&piece);
        let end = self.common.offset + piece.len() as u64;
        self.same = self.same && end <= self.meta.size && self.is_stored(&piece).await?;
        self.common.offset = end;
        // What else comes can change nothing, unless it is the stored bytes that are wrong.
        if self.same || self.common.hasher.is_some() { Ok(()) } else { Err(Error::Conflict) }
    }

    /// Whether the stored bytes at the current offset are these.
    async fn is_stored(&self, piece: &[u8]) -> Result<bool, Error> {
        let shared = &self.common.shared;
        let mut buffer = shared.compare.take().await;
        let mut compared = 0;
        while let Some(rest @ [_, ..]) = piece.get(compared..) {
            let (read, back) =
                shared.disk.read_at(&self.stored, buffer, self.common.offset + compared as u64).await;
            buffer = back;
            let count = read.step("read an object back")?.min(rest.len());
            if count == 0 || rest.get(..count) != buffer.get(..count) {
                return Ok(false);
            }
            compared += count;
        }
        Ok(true)
    }

    pub(super) async fn commit(mut self) -> Result<(), Error> {
        let came = self.common.verify();
        if !self.same || self.common.offset != self.meta.size {
            return Err(self.common.differs(came));
        }
        // Equal, but not what the name says: stored without verification, or damaged. Not to be acknowledged again.
        if let Verdict::Wrong = came {
            return Err(Error::Mismatch);
        }
        self.common.acknowledge(&self.stored, self.meta).await
    }
}
