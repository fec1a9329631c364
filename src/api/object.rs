//! Reading one object.

use http::StatusCode;
use http::header::RANGE;

use crate::api::{Answer, Content, Error, Live};
use crate::http::range::{Selection, select};
use crate::http::{Head, ResponseHead};
use crate::store::{Download, Store};
use crate::types::{ByteRange, Handle};

/// HEAD: the size. A `Range` means nothing here.
pub(super) async fn head<S: Store>(live: &Live<S>, handle: &Handle) -> Result<Answer<S>, Error> {
    let size = live.store.size(handle).await?;
    Ok(Answer::new(describe(StatusCode::OK), Content::Length(size)))
}

/// GET: all of it or one range.
pub(super) async fn get<S: Store>(live: &Live<S>, head: &Head, handle: &Handle) -> Result<Answer<S>, Error> {
    let download = live.store.download(handle).await?;
    let size = download.size();
    let mut ranges = head.headers.get_all(RANGE).iter();
    let selection = match (ranges.next(), ranges.next()) {
        (Some(range), None) => select(range.as_bytes(), size),
        _ => Selection::Full,
    };
    match selection {
        Selection::Full => {
            Ok(Answer::new(describe(StatusCode::OK), Content::Object(download, ByteRange::full(size))))
        }
        Selection::Part(range) => {
            let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let head = describe(StatusCode::PARTIAL_CONTENT).with("Content-Range", content_range);
            Ok(Answer::new(head, Content::Object(download, range)))
        }
        Selection::Unsatisfiable => Err(Error::Range(size)),
    }
}

fn describe(status: StatusCode) -> ResponseHead {
    ResponseHead::new(status).with("Content-Type", "application/octet-stream").with("Accept-Ranges", "bytes")
}
