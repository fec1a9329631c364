//! Paths → routes. Pure. No raw path or name gets past this page.
//!
//! Rules of rest-server's `splitURLPath`: folders up to the allowed depth, cut at the first word that restic's protocol
//! reserves. Unlike it, a path that is not clean is refused, not redirected.

use percent_encoding::percent_decode;

use crate::api::Error;
use crate::http::head::Target;
use crate::types::repo::BadFolder;
use crate::types::{BlobId, BlobType, FolderName, Handle, Object, RepoPath};

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The server itself (`OPTIONS *`).
    Server,
    /// A repository.
    Repo(RepoPath),
    /// All blobs of one type.
    List(RepoPath, BlobType),
    /// The config or a blob.
    Object(Handle),
}

/// A path that leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRoute {
    /// 400: malformed or not clean.
    Unclean(&'static str),
    /// 404.
    Unknown(&'static str),
    /// 414.
    TooLong,
}

impl From<BadRoute> for Error {
    fn from(bad: BadRoute) -> Self {
        match bad {
            BadRoute::Unclean(reason) => Self::BadRequest(reason),
            BadRoute::Unknown(reason) => Self::NotFound(reason),
            BadRoute::TooLong => Self::TargetTooLong,
        }
    }
}

/// Finds the route. Repositories are at most `max_depth` folders deep.
pub fn route(target: &Target, max_depth: usize) -> Result<Route, BadRoute> {
    let Target::Path { path, .. } = target else { return Ok(Route::Server) };
    let path = decode(path)?;
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    let (last, inner) = segments.split_last().ok_or(BadRoute::Unclean("the path is empty"))?;
    if inner.iter().any(|segment| segment.is_empty())
        || segments.iter().any(|segment| matches!(*segment, b"." | b".."))
    {
        return Err(BadRoute::Unclean("the path has an empty, `.` or `..` segment"));
    }
    let depth = inner.iter().take(max_depth).take_while(|segment| !FolderName::is_reserved(segment)).count();
    let (folders, rest) = inner.split_at_checked(depth).unwrap_or((inner, &[]));
    let repo =
        RepoPath::new(folders.iter().map(|folder| FolderName::parse(folder)).collect::<Result<_, _>>()?);
    match (rest, *last) {
        ([], b"") => Ok(Route::Repo(repo)),
        ([], b"config") => Ok(Route::Object(Handle { repo, object: Object::Config })),
        ([kind], name) => in_type(repo, kind, name),
        _ => Err(BadRoute::Unknown("the path names no repository and no object")),
    }
}

fn in_type(repo: RepoPath, kind: &[u8], name: &[u8]) -> Result<Route, BadRoute> {
    let kind =
        BlobType::parse(kind).ok_or(BadRoute::Unknown("the path has too many folders or an unknown type"))?;
    if name.is_empty() {
        return Ok(Route::List(repo, kind));
    }
    let id = BlobId::parse(name).ok_or(BadRoute::Unknown("the name is not 64 lower-case hex digits"))?;
    Ok(Route::Object(Handle { repo, object: Object::Blob(kind, id) }))
}

impl From<BadFolder> for BadRoute {
    fn from(bad: BadFolder) -> Self {
        match bad {
            BadFolder::TooLong => Self::TooLong,
            BadFolder::Forbidden => {
                Self::Unknown("a folder name starts with a dot or has a control character")
            }
        }
    }
}

/// Decodes percent-encoding, once. A `%` that starts no escape is an error, not itself.
fn decode(path: &[u8]) -> Result<Vec<u8>, BadRoute> {
    let is_escape = |at: usize| matches!(path.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if path.iter().enumerate().any(|(at, byte)| *byte == b'%' && !is_escape(at)) {
        return Err(BadRoute::Unclean("a percent sign in the path starts no escape"));
    }
    Ok(percent_decode(path).collect())
}

/// Whether the query's first `create` is `true`.
pub fn asks_to_create(target: &Target) -> bool {
    let Target::Path { query, .. } = target else { return false };
    let mut pairs = query.split(|byte| *byte == b'&').map(|pair| pair.strip_prefix(b"create="));
    pairs.find_map(|value| value).is_some_and(|value| percent_decode(value).eq(*b"true"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn target(path: &str) -> Target {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Target::Path { path: path.into(), query: query.into() }
    }

    fn shown(path: &str) -> String {
        match route(&target(path), 2) {
            Ok(Route::Server) => "server".into(),
            Ok(Route::Repo(repo)) => format!("repo {repo}"),
            Ok(Route::List(repo, kind)) => format!("list {repo} {kind}"),
            Ok(Route::Object(handle)) => format!("object {handle}"),
            Err(BadRoute::Unclean(_)) => "400".into(),
            Err(BadRoute::Unknown(_)) => "404".into(),
            Err(BadRoute::TooLong) => "414".into(),
        }
    }

    #[test]
    fn routes() {
        let long = "x".repeat(256);
        for (path, wanted) in [
            ("/", "repo /".to_owned()),
            ("/r1/", "repo /r1/".into()),
            ("/a/b/", "repo /a/b/".into()),
            ("/a/b/c/", "404".into()),
            ("/r1", "404".into()),
            ("/config", "object /config".into()),
            ("/r1/config", "object /r1/config".into()),
            ("/r1/config/", "404".into()),
            ("/config/", "404".into()),
            ("/keys/", "list / keys".into()),
            ("/r1/keys/", "list /r1/ keys".into()),
            ("/r1/%6beys/", "list /r1/ keys".into()),
            ("/r1/keys", "404".into()),
            ("/r1/KEYS/", "repo /r1/KEYS/".into()),
            ("/a/b/foo/", "404".into()),
            (&format!("/r1/data/{ID}"), format!("object /r1/data/{ID}")),
            (&format!("/a/b/locks/{ID}"), format!("object /a/b/locks/{ID}")),
            (&format!("/a/b/c/locks/{ID}"), "404".into()),
            (&format!("/r1/data/{}", ID.to_uppercase()), "404".into()),
            (&format!("/r1/data/{ID}0"), "404".into()),
            (&format!("/r1/data/{ID}/"), "404".into()),
            (&format!("/r1/data/e3/{ID}"), "404".into()),
            ("/r1/data/00/", "404".into()),
            ("/r1/data/foobar", "404".into()),
            ("/r1/keys/%2fetc%2fpasswd", "400".into()),
            ("/../../etc/passwd", "400".into()),
            ("/%2e%2e/keys/", "400".into()),
            ("/..%2f..%2f/keys/", "400".into()),
            ("/r1/keys/..%2fconfig", "400".into()),
            ("/r1/keys/..", "400".into()),
            ("/./keys/", "400".into()),
            ("//keys/", "400".into()),
            ("/r1//keys/", "400".into()),
            ("/%zz/", "400".into()),
            ("/r1/%", "400".into()),
            ("/a%00b/", "404".into()),
            ("/a%0ab/", "404".into()),
            ("/.htpasswd/", "404".into()),
            ("/.packhouse/config", "404".into()),
            ("/%252e%252e/", "repo /%2e%2e/".into()),
            ("/a%5cb/", "repo /a\\\\b/".into()),
            (&format!("/{long}/"), "414".into()),
            (&format!("/{long}/config"), "414".into()),
        ] {
            assert_eq!(shown(path), wanted, "{path}");
        }
        assert_eq!(route(&Target::Asterisk, 2), Ok(Route::Server));
        assert!(route(&target("/a/b/c/config"), 3).is_ok());
    }

    #[test]
    fn the_query_of_a_create() {
        for (query, wanted) in [
            ("create=true", true),
            ("x=1&create=true", true),
            ("create=tru%65", true),
            ("create=true&create=false", true),
            ("create=false&create=true", false),
            ("create=True", false),
            ("create=1", false),
            ("create", false),
            ("recreate=true", false),
            ("", false),
        ] {
            assert_eq!(asks_to_create(&target(&format!("/?{query}"))), wanted, "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_its_place(path in "/[a-c./%0-9]{0,24}") {
            if let Ok(Route::Repo(repo) | Route::List(repo, _) | Route::Object(Handle { repo, .. })) = route(&target(&path), 2) {
                prop_assert!(repo.folders().len() <= 2);
                for folder in repo.folders() {
                    let name = folder.as_os_str().as_encoded_bytes();
                    prop_assert!(!name.is_empty() && !name.starts_with(b".") && !name.contains(&b'/') && !name.contains(&0));
                }
            }
        }

        #[test]
        fn any_bytes_have_a_route_or_none(path in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(route(&Target::Path { path: [b"/".as_slice(), &path].concat(), query: path }, 2));
        }
    }
}
