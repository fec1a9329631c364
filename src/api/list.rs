//! Lists, in the two JSON forms of restic's REST protocol.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use http::header::ACCEPT;
use http::{Method, StatusCode};

use crate::api::live::Who;
use crate::api::{Answer, Content, Error, Live, Request};
use crate::http::ResponseHead;
use crate::io::shares::{Place, Shares};
use crate::policy::Action;
use crate::store::{self, Listed, Listing, Store};
use crate::types::{BlobType, Principal, RepoPath};

/// The media type of names and sizes. It is asked for by these very bytes (PROTOCOL: all servers compare exactly).
const V2: &str = "application/vnd.x.restic.rest.v2";
/// The media type of names alone, the answer to everybody else.
const V1: &str = "application/vnd.x.restic.rest.v1";
/// A list up to this size is sent with its length; a longer one is streamed.
const MAX_BUFFERED_BYTES: usize = 32 * 1024;

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `["id",…]`
    Names,
    /// `[{"name":"id","size":n},…]`
    Sizes,
}

/// GET of a type's folder.
pub(super) async fn respond<S: Store>(
    live: &Live<S>,
    request: &Request<'_>,
    who: &Principal,
    repo: &RepoPath,
    kind: BlobType,
) -> Result<Answer<S>, Error> {
    let Request { head, rules, caller, .. } = *request;
    if head.method != Method::GET {
        return Err(Error::Method("GET"));
    }
    live.decide(rules, who, repo, Action::List).await?;
    let (form, media_type) = match head.headers.get(ACCEPT) {
        Some(accept) if accept == V2 => (Form::Sizes, V2),
        _ => (Form::Names, V1),
    };
    let place = live.list_place(who, caller.address).await?;
    let listing = live.store.list(repo, kind, form == Form::Sizes).await?;
    let mut list = ListBody {
        listing,
        encoder: Encoder::new(form),
        ready: VecDeque::new(),
        ended: false,
        lists: Arc::clone(&live.lists),
        _place: place,
    };
    let head = ResponseHead::new(StatusCode::OK).with("Content-Type", media_type);
    let mut ready = VecDeque::new();
    let mut bytes = 0;
    while let Some(piece) = list.next().await? {
        bytes += piece.len();
        ready.push_back(piece);
        if bytes > MAX_BUFFERED_BYTES {
            list.ready = ready;
            return Ok(Answer::new(head, Content::List(list)));
        }
    }
    let text = ready.make_contiguous().concat();
    // The encoder writes ASCII only.
    Ok(Answer::new(head, Content::Text(String::from_utf8(text).unwrap_or_default().into())))
}

/// A list on its way to the client.
pub struct ListBody<L> {
    listing: L,
    encoder: Encoder,
    /// What was encoded before it was known that the list is long, in pieces: each is let go of when it is sent.
    ready: VecDeque<Vec<u8>>,
    ended: bool,
    /// All lists, and the place of this one among them.
    lists: Arc<Shares<Who>>,
    _place: Place,
}

impl<L: Listing> ListBody<L> {
    /// The next bytes of the JSON; none after its end.
    ///
    /// # Errors
    /// The list can't be finished. The client must not take what it has for the whole: the connection is to be aborted.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, store::Error> {
        if let Some(piece) = self.ready.pop_front() {
            return Ok(Some(piece));
        }
        if self.ended {
            return Ok(None);
        }
        self.listing.read_ahead(self.lists.has_plenty());
        let page = self.listing.page().await?;
        self.ended = page.is_empty();
        Ok(Some(if self.ended { self.encoder.end() } else { self.encoder.page(&page) }))
    }
}

/// Writes lists as JSON. Names are hex digits, so nothing needs escaping.
#[derive(Debug)]
pub struct Encoder {
    form: Form,
    begun: bool,
}

impl Encoder {
    /// A list in this form.
    pub const fn new(form: Form) -> Self {
        Self { form, begun: false }
    }

    /// Some entries, at least one.
    pub fn page(&mut self, page: &[Listed]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() * 100);
        for Listed { id, size } in page {
            out.push(if std::mem::replace(&mut self.begun, true) { b',' } else { b'[' });
            let name = id.hex();
            let written = match self.form {
                Form::Names => write!(out, "\"{}\"", name.as_str()),
                Form::Sizes => write!(out, "{{\"name\":\"{}\",\"size\":{size}}}", name.as_str()),
            };
            // Writing to a vector can't fail.
            written.ok();
        }
        out
    }

    /// The end.
    pub fn end(&self) -> Vec<u8> {
        if self.begun { b"]".to_vec() } else { b"[]".to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BlobId;

    #[test]
    fn both_forms() {
        let entries =
            [1, 2, 3].map(|n| Listed { id: BlobId::from_digest([n; 32]), size: u64::from(n) << 32 });
        let text = |form, pages: &[&[Listed]]| {
            let mut encoder = Encoder::new(form);
            let mut out: Vec<u8> = pages.iter().flat_map(|page| encoder.page(page)).collect();
            out.extend(encoder.end());
            String::from_utf8(out).expect("ASCII")
        };
        let hex = |n: u8| format!("{n:02x}").repeat(32);
        assert_eq!(text(Form::Names, &[]), "[]");
        assert_eq!(text(Form::Sizes, &[]), "[]");
        assert_eq!(
            text(Form::Names, &[&entries[..2], &entries[2..]]),
            format!(r#"["{}","{}","{}"]"#, hex(1), hex(2), hex(3))
        );
        assert_eq!(
            text(Form::Sizes, &[&entries[..1]]),
            format!(r#"[{{"name":"{}","size":4294967296}}]"#, hex(1))
        );
    }
}
