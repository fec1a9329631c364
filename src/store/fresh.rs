//! The upload of a new object: written to a file that gets its name when all of it is right and durable.

use std::rc::Rc;

use crate::io::{Buffer, Fault};
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fs::Shared;
use crate::store::temp::Temp;
use crate::store::upload::{Common, Target, Verdict};
use crate::store::{Change, Error, layout};
use crate::types::{AHEAD_BYTES, Handle, UserName};

/// Shorter objects are not worth a reservation.
const PREALLOCATE_FROM: u64 = 1 << 20;

/// A new object.
pub struct Fresh<D: Disk> {
    pub(super) common: Common<D>,
    temp: Temp<D>,
    /// Bytes of room reserved, where the file ends then, and announced bytes for which none is yet.
    reserved: u64,
    unreserved: u64,
    /// Up to where room may be reserved before bytes come.
    ahead: u64,
    /// The length was not announced: every piece is to fit above what `--min-free` keeps.
    metered: bool,
}

impl<D: Disk> Fresh<D> {
    /// Of `length` bytes, if that is known; it may have an owner.
    pub(super) async fn begin(
        shared: &Rc<Shared<D>>,
        target: Target<D>,
        handle: &Handle,
        length: Option<u64>,
        owner: Option<&UserName>,
    ) -> Result<Self, Error> {
        let temp =
            shared.wrote(Temp::create(shared, &target.dir, handle.object).await).step("make a file")?;
        if let Some(owner) = owner {
            let noted = shared.disk.set_owner(&temp.file, owner.as_str()).await;
            shared.wrote(noted).step("note the owner of a lock")?;
        }
        let unreserved = length.filter(|length| *length >= PREALLOCATE_FROM).unwrap_or(0);
        let common = Common::new(shared, target, handle);
        let metered = length.is_none();
        let mut upload = Self { common, temp, reserved: 0, unreserved, ahead: AHEAD_BYTES, metered };
        upload.reserve(1).await?;
        Ok(upload)
    }

    /// Sees to it that room is reserved up to the byte `upto`, as far as the length was announced.
    async fn reserve(&mut self, upto: u64) -> Result<(), Error> {
        if upto <= self.reserved || self.unreserved == 0 {
            return Ok(());
        }
        let (shared, object) = (&self.common.shared, self.common.handle.object);
        let next = (self.ahead.max(upto) - self.reserved).min(self.unreserved);
        if self.reserved > 0 {
            // The answer that let the whole length in is old by now.
            shared.make_room(&self.common.target.dir, object, next).await?;
        }
        let can = shared
            .wrote(shared.disk.preallocate(&self.temp.file, self.reserved, next).await)
            .step("reserve room for an object")?;
        if can {
            (self.reserved, self.unreserved) = (self.reserved + next, self.unreserved - next);
        } else {
            // A file system that can't is not asked again.
            self.unreserved = 0;
        }
        Ok(())
    }

    /// Reserves up to byte `upto` from now on, and gives back what is reserved beyond.
    pub(super) async fn hold(&mut self, upto: u64) -> Result<(), Error> {
        self.ahead = upto;
        let upto = upto.max(self.common.offset);
        if upto < self.reserved {
            self.settle().await?;
            let shared = &self.common.shared;
            let cut = shared.disk.set_len(&self.temp.file, upto).await;
            shared.wrote(cut).step("give back room")?;
            (self.reserved, self.unreserved) = (upto, self.unreserved + self.reserved - upto);
        }
        Ok(())
    }

    pub(super) async fn write(&mut self, piece: Buffer) -> Result<(), Error> {
        let length = piece.len() as u64;
        if self.metered {
            let (shared, object) = (&self.common.shared, self.common.handle.object);
            shared.make_room(&self.common.target.dir, object, length).await?;
        }
        let piece = self.common.begin_hash(piece);
        // While a piece is hashed and written the next one is received.
        self.settle().await?;
        self.reserve(self.common.offset + length).await?;
        self.temp.begin_write(piece, self.common.offset);
        self.common.offset += length;
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Error> {
        let written = self.temp.settle().await;
        self.common.shared.wrote(written).step("write an object")
    }

    pub(super) async fn commit(mut self, changed: &mut impl FnMut(Change)) -> Result<(), Error> {
        // First, so that the last piece waits no longer for others.
        let came = self.common.verify();
        self.settle().await?;
        if let Verdict::Wrong = came {
            return Err(Error::Mismatch);
        }
        let shared = &self.common.shared;
        if self.reserved > self.common.offset {
            // Less came than was announced.
            let cut = shared.disk.set_len(&self.temp.file, self.common.offset).await;
            shared.wrote(cut).step("cut an object to its length")?;
        }
        shared.sync_data(&self.temp.file).await?;
        let was_above = self.common.target.is_above;
        self.common.settle_in(changed).await?;
        let shared = &self.common.shared;
        let name = layout::object_name(self.common.handle.object);
        match shared.wrote(self.temp.publish(&self.common.target.dir, &name).await) {
            Err(e) if Fault::of(&e) == Fault::Exists => {
                let ours = match came.digest() {
                    Some(digest) => digest,
                    None => shared.digest_of(&self.temp.file).await?,
                };
                self.common.compare_with_winner(came, ours).await
            }
            // The store has learnt; the client's next try will do.
            Err(_)
                if self.temp.is_unnamed()
                    && shared.links_unnamed(&self.common.target.dir).is_ok_and(|links| !links) =>
            {
                Err(Error::Busy)
            }
            Err(e) => Err(Error::from_io("name an object", e)),
            Ok(()) => {
                changed(Change::Published);
                shared.sync_dir(&self.common.target.dir).await?;
                match self.temp.left() {
                    // Else its temporary name would be back after a power cut.
                    Some(dir) if was_above => shared.sync_dir(dir).await,
                    _ => Ok(()),
                }
            }
        }
    }
}
