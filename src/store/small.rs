//! The upload of a new object that fits into one buffer: nothing is made before all of it is there, then all is done in one
//! go.

use std::rc::Rc;

use crate::hash::Sha256;
use crate::io::buffer::BUFFER_BYTES;
use crate::io::small::SmallError;
use crate::io::{Buffer, Fault};
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fresh::Fresh;
use crate::store::fs::Shared;
use crate::store::upload::{Common, Target, Verdict};
use crate::store::{Change, Error, layout};
use crate::types::{Handle, UserName};

/// A new, small object.
pub struct Small<D: Disk> {
    pub(super) common: Common<D>,
    length: u64,
    owner: Option<UserName>,
    /// All of it, once it is there.
    content: Option<Buffer>,
}

impl<D: Disk> Small<D> {
    /// Whether an object of this length in `dir` can be stored so.
    pub(super) fn suits(shared: &Shared<D>, dir: &D::Dir, length: u64) -> Result<bool, Error> {
        let fits = (1..=BUFFER_BYTES as u64).contains(&length);
        Ok(fits && shared.options.group_commit && shared.links_unnamed(dir).step("look at a folder")?)
    }

    /// Of `length` bytes; it may have an owner.
    pub(super) fn begin(
        shared: &Rc<Shared<D>>,
        target: Target<D>,
        handle: &Handle,
        length: u64,
        owner: Option<&UserName>,
    ) -> Self {
        Self { common: Common::new(shared, target, handle), length, owner: owner.cloned(), content: None }
    }

    /// Takes the first piece. If it is not all, it comes back in the ordinary upload that this one turns into: no buffer is
    /// held for a client that is slow.
    pub(super) async fn write(&mut self, piece: Buffer) -> Result<Option<Fresh<D>>, Error> {
        if self.content.is_some() || piece.len() as u64 != self.length {
            let pieces = self.content.take().into_iter().chain([piece]);
            return self.begin_anew(pieces).await.map(Some);
        }
        self.common.hash(&piece);
        self.content = Some(piece);
        self.common.offset = self.length;
        Ok(None)
    }

    /// The ordinary upload, with the first pieces. Boxed, as it is rare: every connection has room for what is not.
    async fn begin_anew(&self, pieces: impl IntoIterator<Item = Buffer>) -> Result<Fresh<D>, Error> {
        let begun = async {
            let Common { shared, target, handle, .. } = &self.common;
            let owner = self.owner.as_ref();
            let mut fresh = Fresh::begin(shared, target.clone(), handle, Some(self.length), owner).await?;
            for piece in pieces {
                fresh.write(piece).await?;
            }
            Ok(fresh)
        };
        Box::pin(begun).await
    }

    pub(super) async fn commit(mut self, changed: &mut impl FnMut(Change)) -> Result<(), Error> {
        let Some(content) = self.content.take() else {
            // Nothing came: the body ended early.
            return Box::pin(self.begin_anew([]).await?.commit(changed)).await;
        };
        let came = self.common.verify();
        if let Verdict::Wrong = came {
            return Err(Error::Mismatch);
        }
        self.common.shared.health.check_not_suspended()?;
        self.common.settle_in(changed).await?;
        let Common { shared, target: Target { dir, .. }, handle, .. } = &self.common;
        let (name, owner) = (layout::object_name(handle.object), self.owner.as_ref().map(UserName::as_str));
        let (stored, content) = shared.disk.store_small(dir, &name, content, owner).await;
        match stored {
            Ok(()) => {
                changed(Change::Published);
                shared.health.check_not_suspended()
            }
            // There are no files without a name here after all.
            Err(SmallError::Make(e))
                if matches!(Fault::of(&e), Fault::Unsupported | Fault::Other | Fault::Denied) =>
            {
                Box::pin(self.begin_anew([content]).await?.commit(changed)).await
            }
            Err(SmallError::Make(e)) => shared.wrote(Err(e)).step("make a file"),
            Err(SmallError::Write(e)) => shared.wrote(Err(e)).step("write an object"),
            Err(SmallError::Flush(e)) => shared.flushed("flush an object", Err(e)),
            Err(SmallError::Name(e)) => match Fault::of(&e) {
                Fault::Exists => {
                    let ours = came.digest().unwrap_or_else(|| Sha256::of(&content));
                    self.common.compare_with_winner(came, ours).await
                }
                // The client's next try will do.
                _ if shared.note_link(dir, &e).await => Err(Error::Busy),
                _ => shared.wrote(Err(e)).step("name an object"),
            },
            Err(SmallError::FlushName(e)) => {
                changed(Change::Published);
                shared.flushed("sync a folder", Err(e))
            }
        }
    }
}
