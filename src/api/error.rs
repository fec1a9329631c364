//! The one table: refusal → status.

use std::borrow::Cow;

use http::StatusCode;
use thiserror::Error as ThisError;

use crate::auth::AuthError;
use crate::http::BodyError;
use crate::http::conn::TransferError;
use crate::metrics::Refusal;
use crate::quota::QuotaError;
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
    /// 412.
    #[error("the object is not the one that If-Match names")]
    Precondition,
    /// 413, with the most bytes that such an object may have.
    #[error("the object is larger than the {0} bytes that its type may have")]
    TooLarge(u64),
    /// 414.
    #[error("a folder name is longer than 255 bytes")]
    TargetTooLong,
    /// 416, with the size of the object in bytes.
    #[error("the range lies beyond the {0} bytes of the object")]
    Range(u64),
    /// 417.
    #[error("the only expectation known is 100-continue")]
    Expectation,
    /// 429.
    #[error("the user has too many uploads at once")]
    TooManyUploads,
    /// 507, with the most repositories that the user may have.
    #[error(
        "the user has the {0} repositories that max-repos lets in, or has made so many since the start of the server"
    )]
    TooManyRepositories(u64),
    /// 507, or 503 while it is not known.
    #[error(transparent)]
    Quota(#[from] QuotaError),
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
            | Self::Auth(AuthError::Twice)
            | Self::Body(
                BodyError::Truncated | BodyError::Malformed(_) | BodyError::Transfer(TransferError::Io(_)),
            ) => StatusCode::BAD_REQUEST,
            Self::Body(BodyError::Transfer(TransferError::TooSlow)) => StatusCode::REQUEST_TIMEOUT,
            Self::Auth(
                AuthError::Missing
                | AuthError::Malformed
                | AuthError::Wrong
                | AuthError::Untrusted
                | AuthError::NoUser
                | AuthError::Expired
                | AuthError::Ended,
            ) => StatusCode::UNAUTHORIZED,
            Self::Auth(AuthError::Overloaded) | Self::TooManyUploads => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Quota(QuotaError::Full(_)) | Self::TooManyRepositories(_) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Precondition => StatusCode::PRECONDITION_FAILED,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            // What a client may try again later without a new upload is 503; for an upload restic knows 507.
            Self::Auth(AuthError::Anew)
            | Self::Delete(store::Error::Suspended)
            | Self::Quota(QuotaError::Counting | QuotaError::Journal) => StatusCode::SERVICE_UNAVAILABLE,
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

    /// What kind of refusal it is.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Body(BodyError::Transfer(TransferError::TooSlow))
            | Self::Auth(AuthError::Overloaded)
            | Self::TooLarge(_)
            | Self::TooManyUploads => Refusal::Limit,
            Self::BadRequest(_)
            | Self::Method(_)
            | Self::TargetTooLong
            | Self::Precondition
            | Self::Range(_)
            | Self::Expectation
            | Self::Body(_) => Refusal::Request,
            Self::Auth(_) => Refusal::Login,
            Self::Forbidden(_) => Refusal::Right,
            Self::NotFound(_) => Refusal::Missing,
            Self::Quota(_) | Self::TooManyRepositories(_) => Refusal::Space,
            Self::Store(error) | Self::Delete(error) => match error {
                store::Error::NotFound | store::Error::NoRepository | store::Error::OtherSpelling => {
                    Refusal::Missing
                }
                store::Error::NotOwner | store::Error::Symlink => Refusal::Right,
                store::Error::Conflict | store::Error::Damaged | store::Error::Mismatch => Refusal::Content,
                store::Error::NoSpace | store::Error::Reserved | store::Error::TooManyLocks => Refusal::Space,
                store::Error::NameTooLong => Refusal::Request,
                store::Error::ReadOnly
                | store::Error::Suspended
                | store::Error::Displaced
                | store::Error::Busy
                | store::Error::NotDurable
                | store::Error::NotDir
                | store::Error::NoFolder { .. }
                | store::Error::NoFile { .. }
                | store::Error::Io { .. } => Refusal::Server,
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
        // A client with another certificate shows it on another connection.
        matches!(self, Self::Body(_) | Self::Expectation | Self::Auth(AuthError::Expired | AuthError::Anew))
    }
}

const fn of_store(error: &store::Error) -> StatusCode {
    match error {
        store::Error::NotFound | store::Error::NoRepository | store::Error::OtherSpelling => {
            StatusCode::NOT_FOUND
        }
        store::Error::Conflict | store::Error::Damaged | store::Error::NotOwner | store::Error::Symlink => {
            StatusCode::FORBIDDEN
        }
        store::Error::Mismatch => StatusCode::BAD_REQUEST,
        store::Error::NoSpace
        | store::Error::Reserved
        | store::Error::TooManyLocks
        | store::Error::ReadOnly
        | store::Error::NotDurable
        | store::Error::Suspended => StatusCode::INSUFFICIENT_STORAGE,
        store::Error::Busy | store::Error::Displaced => StatusCode::SERVICE_UNAVAILABLE,
        store::Error::NameTooLong => StatusCode::URI_TOO_LONG,
        store::Error::NotDir
        | store::Error::NoFolder { .. }
        | store::Error::NoFile { .. }
        | store::Error::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
