//! What a request is answered with, before anything is written.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;

use crate::api::Error;
use crate::api::list::ListBody;
use crate::http::ResponseHead;
use crate::io::shares::Place;
use crate::metrics::Refusal;
use crate::metrics::blobs::Row;
use crate::store::Store;
use crate::types::{ByteRange, Principal};

/// An answer.
pub struct Answer<S: Store> {
    /// Status and headers.
    pub head: ResponseHead,
    /// The body.
    pub content: Content<S>,
    /// Who asked, as far as that is known: for the log.
    pub who: Option<Principal>,
    /// The request's place among those that run at once, kept until the answer is sent.
    pub place: Option<Place>,
    /// Why it is a refusal: for the log.
    pub reason: Option<Cow<'static, str>>,
    /// What kind of refusal it is.
    pub refusal: Option<Refusal>,
    /// Where the bytes of an object are counted.
    pub reading: Option<Arc<Row>>,
    /// The connection broke, or where the next request begins is not known.
    pub hang_up: bool,
}

/// The body of an answer.
pub enum Content<S: Store> {
    /// Text in memory.
    Text(Cow<'static, str>),
    /// None, but the length that GET would give.
    Length(u64),
    /// A part of an object.
    Object(S::Download, ByteRange),
    /// A list that is longer than what fits in memory.
    List(ListBody<S::Listing>),
}

impl<S: Store> Answer<S> {
    /// An answer with this head and body.
    pub const fn new(head: ResponseHead, content: Content<S>) -> Self {
        Self {
            head,
            content,
            who: None,
            place: None,
            reason: None,
            refusal: None,
            reading: None,
            hang_up: false,
        }
    }

    /// 200 without a body.
    pub fn done() -> Self {
        Self::new(ResponseHead::new(StatusCode::OK), Content::Text(Cow::Borrowed("")))
    }

    /// A refusal: its status, its headers, and its reason as text.
    pub fn refusal(error: &Error) -> Self {
        let mut head = ResponseHead::text(error.status());
        head.headers.extend(error.headers());
        let text = Content::Text(format!("{}\n", error.public_text()).into());
        Self {
            reason: Some(error.to_string().into()),
            refusal: Some(error.refusal()),
            hang_up: error.breaks_connection(),
            ..Self::new(head, text)
        }
    }
}
