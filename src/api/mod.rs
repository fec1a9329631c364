//! restic's REST protocol: one request in, one [`Answer`] out. Start reading here.
//!
//! `handle`: route → authenticate → decide → store → respond. Every refusal that the head allows comes before the first
//! byte of the body is read. Nothing here writes to a socket or a log of requests: `server::connection` does, once.

use http::Method;

use crate::http::{Body, Expect, Head};
use crate::policy::Action;
use crate::store::{Store, Upload};
use crate::types::{Handle, Principal, RepoPath};

pub mod answer;
pub mod error;
pub mod list;
pub mod live;
pub mod object;
pub mod route;

pub use answer::{Answer, Content};
pub use error::Error;
pub use live::Live;

use route::Route;

/// Answers one request.
pub async fn handle<S: Store>(live: &Live<S>, head: &Head, body: &mut Body<'_>) -> Answer<S> {
    let mut who = None;
    match respond(live, head, body, &mut who).await {
        Ok(answer) => Answer { who, ..answer },
        Err(error) => Answer { who, ..Answer::refusal(&error) },
    }
}

async fn respond<S: Store>(
    live: &Live<S>,
    head: &Head,
    body: &mut Body<'_>,
    who: &mut Option<Principal>,
) -> Result<Answer<S>, Error> {
    if head.expect == Expect::Unknown {
        return Err(Error::Expectation);
    }
    let route = route::route(&head.target, live.max_folder_depth);
    if route == Ok(Route::Server) {
        return if head.method == Method::OPTIONS {
            Ok(Answer::done())
        } else {
            Err(Error::Method("OPTIONS"))
        };
    }
    // Who is not let in does not learn which paths there are.
    let principal = live.authenticate(&head.headers).await?;
    let principal = who.insert(principal);
    match route? {
        Route::Server => Ok(Answer::done()),
        Route::Repo(repo) => create(live, head, principal, &repo).await,
        Route::List(repo, kind) => list::respond(live, head, principal, &repo, kind).await,
        Route::Object(handle) => object(live, head, body, principal, &handle).await,
    }
}

async fn create<S: Store>(
    live: &Live<S>,
    head: &Head,
    who: &Principal,
    repo: &RepoPath,
) -> Result<Answer<S>, Error> {
    if head.method != Method::POST {
        return Err(Error::Method("POST"));
    }
    if !route::asks_to_create(&head.target) {
        return Err(Error::BadRequest("a repository is made by POST with the query ?create=true"));
    }
    live.decide(who, Action::Create)?;
    live.store.create_repo(repo).await?;
    Ok(Answer::done())
}

async fn object<S: Store>(
    live: &Live<S>,
    head: &Head,
    body: &mut Body<'_>,
    who: &Principal,
    handle: &Handle,
) -> Result<Answer<S>, Error> {
    match head.method {
        Method::HEAD => {
            live.decide(who, Action::List)?;
            object::head(live, handle).await
        }
        Method::GET => {
            live.decide(who, Action::Read)?;
            object::get(live, head, handle).await
        }
        Method::POST => {
            live.decide(who, Action::Store(handle.object))?;
            let mut upload = live.store.upload(handle, Body::announced(head)).await?;
            while let Some(piece) = body.next().await? {
                upload.write(piece).await?;
            }
            upload.commit().await?;
            Ok(Answer::done())
        }
        Method::DELETE => {
            live.decide(who, Action::Delete(handle.object))?;
            live.store.delete(handle).await.map_err(Error::Delete)?;
            Ok(Answer::done())
        }
        _ => Err(Error::Method("HEAD, GET, POST, DELETE")),
    }
}
