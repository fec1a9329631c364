//! The one table: refusal → status.

use std::borrow::Cow;

use http::StatusCode;
use thiserror::Error as ThisError;

use crate::auth::AuthError;
use crate::http::BodyError;
use crate::http::conn::TransferError;
use crate::store;

/// Seconds after which a client that found the server busy may try again.
const RETRY_AFTER: &str = "5";

/// Why a request is refused. `Display` is for the log.
#[derive(Debug, ThisError)]
pub enum Error {
    /// 400.
    #[error("{0}")]
    BadRequest(&'static str),
    /// 401, or 429 if it was not looked at.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// 403.
    #[error("{0}")]
    Forbidden(&'static str),
    /// 404.
    #[error("{0}")]
    NotFound(&'static str),
    /// 405, with the methods that are allowed.
    #[error("the method is not one of {0}")]
    Method(&'static str),
    /// 414.
    #[error("a folder name is longer than 255 bytes")]
    TargetTooLong,
    /// 416, with the size of the object in bytes.
    #[error("the range lies beyond the {0} bytes of the object")]
    Range(u64),
    /// 417.
    #[error("the only expectation known is 100-continue")]
    Expectation,
    /// The body did not come as it should.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The same while deleting.
    #[error(transparent)]
    Delete(store::Error),
}

impl Error {
    /// The status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_)
            | Self::Body(
                BodyError::Truncated | BodyError::Malformed(_) | BodyError::Transfer(TransferError::Io(_)),
            ) => StatusCode::BAD_REQUEST,
            Self::Body(BodyError::Transfer(TransferError::TooSlow)) => StatusCode::REQUEST_TIMEOUT,
            Self::Auth(AuthError::Missing | AuthError::Malformed | AuthError::Wrong) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Auth(AuthError::Overloaded) => StatusCode::TOO_MANY_REQUESTS,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            // What a client may try again later without a new upload is 503; for an upload restic knows 507.
            Self::Delete(store::Error::Suspended) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(error) | Self::Delete(error) => of_store(error),
        }
    }

    /// Headers that belong to the status.
    pub fn headers(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        match self.status() {
            StatusCode::UNAUTHORIZED => {
                vec![("WWW-Authenticate", r#"Basic realm="packhouse", charset="UTF-8""#.into())]
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                vec![("Retry-After", RETRY_AFTER.into())]
            }
            _ => match self {
                Self::Method(allowed) => vec![("Allow", (*allowed).into())],
                Self::Range(size) => vec![("Content-Range", format!("bytes */{size}").into())],
                _ => Vec::new(),
            },
        }
    }

    /// What the client is told: nothing about the inside of the server.
    pub fn public_text(&self) -> String {
        match self.status() {
            StatusCode::INTERNAL_SERVER_ERROR => "Internal Server Error".into(),
            StatusCode::UNAUTHORIZED => "Unauthorized".into(),
            _ => self.to_string(),
        }
    }

    /// Whether the connection can't carry another request.
    pub const fn breaks_connection(&self) -> bool {
        matches!(self, Self::Body(_) | Self::Expectation)
    }
}

const fn of_store(error: &store::Error) -> StatusCode {
    match error {
        store::Error::NotFound => StatusCode::NOT_FOUND,
        store::Error::Conflict | store::Error::Damaged | store::Error::Symlink => StatusCode::FORBIDDEN,
        store::Error::Mismatch => StatusCode::BAD_REQUEST,
        store::Error::NoSpace | store::Error::Reserved | store::Error::ReadOnly | store::Error::Suspended => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        store::Error::Busy => StatusCode::SERVICE_UNAVAILABLE,
        store::Error::NameTooLong => StatusCode::URI_TOO_LONG,
        store::Error::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
