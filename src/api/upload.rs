//! Storing one object: everything that the head allows to refuse, then piece by piece, then all or nothing.

use std::pin::pin;
use std::time::Duration;

use crate::api::{Answer, Error, Live, Request};
use crate::auth::Trust;
use crate::http::Body;
use crate::io::Buffer;
use crate::io::runtime::{Either, now, race, sleep};
use crate::policy::ahead::{Ahead, LEAST, STALL};
use crate::policy::rate::Slot;
use crate::policy::{Action, Decision};
use crate::quota::{Claim, Place, QuotaError};
use crate::store::{self, Change, Store, Upload};
use crate::types::{AHEAD_BYTES, Handle, Object, Principal};

/// POST of an object.
pub(super) async fn respond<S: Store>(
    live: &Live<S>,
    request: &Request<'_>,
    body: &mut Body<'_>,
    (who, trust): (&Principal, &Trust),
    handle: &Handle,
) -> Result<Answer<S>, Error> {
    let (head, rules) = (request.head, request.rules);
    live.decide(rules, who, &handle.repo, Action::Store(handle.object)).await?;
    let (length, largest) = (Body::announced(head), rules.sizes.of(handle.object));
    if length.is_some_and(|length| length > largest) {
        return Err(Error::TooLarge(largest));
    }
    let is_lock = handle.object.is_lock();
    let delete = Action::Delete(handle.object);
    if is_lock && !matches!(rules.policy.decide(who, &handle.repo, delete), Ok(Decision::Allowed)) {
        live.store.check_lock_room(&handle.repo).await?;
    }
    if live.lacks(&handle.repo).await? {
        return Err(store::Error::NoRepository.into());
    }
    let slot = live.rates.begin(who, rules.allowances.of(who), now()).ok_or(Error::TooManyUploads)?;
    let mut ahead = slot.ahead(now());
    let first = ahead.look(0, length.unwrap_or(0), now()).unwrap_or(0);
    let claimed = claim(live, handle, length, first).await?;
    let mut upload = live.store.upload(handle, length, who.user()).await?;
    let mut claim = match claimed {
        Ok(claim) => claim,
        // A repeat takes no room. If it is none after all, there is none.
        Err(full) if upload.is_new() => return Err(full.into()),
        Err(_) => live.ledger.no_claim(&handle.repo, Place::of(handle.object)),
    };
    let mut folders = claim_folders(live, handle, &mut upload).await?;
    let is_new = upload.is_new();
    if !is_new {
        claim.give_back();
    }
    if first < length.unwrap_or(0).min(AHEAD_BYTES) {
        upload.hold(first).await?;
    }
    if slot.is_limited() {
        // The connections of a user take turns, piece by piece.
        body.in_small_pieces();
    }
    let (received, due) = receive(body, (&mut claim, &mut upload), (&slot, ahead), (length, largest)).await?;
    live.decide_again(rules, (who, request.caller, trust), &handle.repo, Action::Store(handle.object))
        .await?;
    let changing =
        (live.ledger.changing(handle), folders.is_some().then(|| live.ledger.changing_folders(&handle.repo)));
    let changed = |change| match (change, &mut folders) {
        (Change::Published, _) => claim.published(received),
        (Change::Folders(count), Some(folders)) => folders.made(count),
        // Somebody has removed one meanwhile, which the next count finds.
        (Change::Folders(_), None) => {}
    };
    let committed = upload.commit(changed).await;
    drop(changing);
    // Not before: a small object is kept in memory until it is stored.
    pause(due).await;
    committed?;
    if let Object::Blob(kind, _) = handle.object
        && is_new
    {
        let row = live.blobs.row(who, &handle.repo, kind);
        row.write.increment();
        row.write_bytes.add(received);
    }
    Ok(Answer::done())
}

/// Receives the body. Returns how many bytes came, and how long its user is to wait now.
async fn receive(
    body: &mut Body<'_>,
    (claim, upload): (&mut Claim, &mut impl Upload),
    (slot, mut ahead): (&Slot, Ahead),
    (length, largest): (Option<u64>, u64),
) -> Result<(u64, Duration), Error> {
    let is_new = upload.is_new();
    let (mut received, mut due) = (0, Duration::ZERO);
    while let Some(piece) = next(body, (claim, upload), received).await? {
        let count = piece.len();
        received += count as u64;
        if received > largest {
            return Err(Error::TooLarge(largest));
        }
        if is_new {
            // Of one that does not say how long it is, as much may follow as has come.
            let left = length.map_or(received.max(LEAST), |length| length.saturating_sub(received));
            if let Some(upto) = ahead.look(received, left, now()) {
                claim.grow_ahead(received, upto).await?;
                claim.shrink_to(upto.max(received));
                upload.hold(upto).await?;
            }
            claim.grow_ahead(received, received).await?;
        }
        upload.write(piece).await?;
        let wait = slot.take(count, now());
        if Some(received) == length {
            due = wait;
            break;
        }
        pause(wait).await;
    }
    Ok((received, due))
}

/// The next piece of the body. When none comes for a while, the room that is held for what was to come is given back.
async fn next(
    body: &mut Body<'_>,
    (claim, upload): (&mut Claim, &mut impl Upload),
    received: u64,
) -> Result<Option<Buffer>, Error> {
    let mut next = pin!(body.next());
    if let Either::Left(piece) = race(next.as_mut(), sleep(STALL)).await {
        return Ok(piece?);
    }
    claim.shrink_to(received);
    upload.hold(received).await?;
    Ok(next.await?)
}

/// Waits until the rate of the user allows more. No buffer may be held meanwhile.
async fn pause(due: Duration) {
    if !due.is_zero() {
        sleep(due).await;
    }
}

/// Room for the folders that an upload makes, if it makes any.
async fn claim_folders<S: Store>(
    live: &Live<S>,
    handle: &Handle,
    upload: &mut S::Upload,
) -> Result<Option<Claim>, Error> {
    let repo = &handle.repo;
    if upload.folders() == 0 {
        return Ok(None);
    }
    match live.ledger.claim_folders(repo, upload.folders()).await {
        // A lock fits where nothing else does, and so does its folder: one block, once.
        Err(_) if handle.object.is_lock() => {
            return Ok(Some(live.ledger.no_claim(repo, Place::Folders)));
        }
        Err(QuotaError::Full(_)) => upload.spare_folders(),
        claimed => return Ok(claimed.map(Some)?),
    }
    Ok(Some(live.ledger.claim_folders(repo, upload.folders()).await?))
}

/// Room for an upload; or why there is none, if a repeat of what is stored may do without.
async fn claim<S: Store>(
    live: &Live<S>,
    handle: &Handle,
    length: Option<u64>,
    first: u64,
) -> Result<Result<Claim, QuotaError>, Error> {
    let fits = live.ledger.check_fits(handle, length.unwrap_or(0));
    let claimed = match fits {
        Ok(()) => live.ledger.claim(handle, Some(first)).await,
        Err(full) => Err(full),
    };
    match claimed {
        Err(full)
            if live.store.size(handle).await.is_ok_and(|size| length.is_none_or(|length| length == size)) =>
        {
            Ok(Err(full))
        }
        Err(full) => Err(full.into()),
        Ok(claim) => Ok(Ok(claim)),
    }
}
