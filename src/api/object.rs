//! Reading one object.

use http::StatusCode;
use http::header::RANGE;

use crate::api::{Answer, Content, Error, Live};
use crate::http::condition::{Verdict, applies_range, judge};
use crate::http::range::{Selection, select};
use crate::http::{Head, ResponseHead};
use crate::store::{Download, Store};
use crate::types::{BlobId, ByteRange, Handle, Object};

/// HEAD: the size. A `Range` means nothing here.
pub(super) async fn head<S: Store>(live: &Live<S>, head: &Head, handle: &Handle) -> Result<Answer<S>, Error> {
    let (size, tag) = match handle.object {
        Object::Blob(_, id) => (live.store.size(handle).await?, tag_of(id)),
        Object::Config => {
            let config = live.store.download(handle).await?;
            (config.size(), tag(handle, &config).await?)
        }
    };
    match judge(&head.headers, &tag) {
        Verdict::Holds => Ok(Answer::new(describe(StatusCode::OK, tag), Content::Length(size))),
        Verdict::NotModified => Ok(not_modified(tag, size)),
        Verdict::Failed => Err(Error::Precondition),
    }
}

/// GET: all of it or one range.
pub(super) async fn get<S: Store>(live: &Live<S>, head: &Head, handle: &Handle) -> Result<Answer<S>, Error> {
    let download = live.store.download(handle).await?;
    let size = download.size();
    let tag = tag(handle, &download).await?;
    match judge(&head.headers, &tag) {
        Verdict::Holds => {}
        Verdict::NotModified => return Ok(not_modified(tag, size)),
        Verdict::Failed => return Err(Error::Precondition),
    }
    let mut ranges = head.headers.get_all(RANGE).iter();
    let selection = match (ranges.next(), ranges.next()) {
        (Some(range), None) if applies_range(&head.headers, &tag) => select(range.as_bytes(), size),
        _ => Selection::Full,
    };
    match selection {
        Selection::Full => {
            Ok(Answer::new(describe(StatusCode::OK, tag), Content::Object(download, ByteRange::full(size))))
        }
        Selection::Part(range) => {
            let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let head = describe(StatusCode::PARTIAL_CONTENT, tag).with("Content-Range", content_range);
            Ok(Answer::new(head, Content::Object(download, range)))
        }
        Selection::Unsatisfiable => Err(Error::Range(size)),
    }
}

/// The entity tag of an object: its name, which is its hash. A config has another name, and so the hash of its bytes.
async fn tag(handle: &Handle, download: &impl Download) -> Result<String, Error> {
    Ok(match handle.object {
        Object::Blob(_, id) => tag_of(id),
        Object::Config => tag_of(BlobId::from_digest(download.digest().await?)),
    })
}

fn tag_of(id: BlobId) -> String {
    ["\"", id.hex().as_str(), "\""].concat()
}

fn not_modified<S: Store>(tag: String, size: u64) -> Answer<S> {
    Answer::new(ResponseHead::new(StatusCode::NOT_MODIFIED).with("ETag", tag), Content::Length(size))
}

fn describe(status: StatusCode, tag: String) -> ResponseHead {
    ResponseHead::new(status)
        .with("Content-Type", "application/octet-stream")
        .with("X-Content-Type-Options", "nosniff")
        .with("Accept-Ranges", "bytes")
        .with("ETag", tag)
}
