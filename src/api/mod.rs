//! restic's REST protocol: one request in, one [`Answer`] out. Start reading here.
//!
//! `handle`: route → authenticate → decide → store → respond. Every refusal that the head allows comes before the first
//! byte of the body is read. Nothing here writes to a socket or a log of requests: `server::connection` does, once.

use std::sync::Arc;

use http::Method;

use crate::auth::{Caller, Trust};
use crate::http::{Body, Expect, Head};
use crate::io::runtime::{now, spawn};
use crate::io::shares::Place;
use crate::policy::Action;
use crate::policy::repos::Making;
use crate::store::Store;
use crate::types::{Handle, Object, Principal, RepoPath};

pub mod answer;
pub mod error;
pub mod list;
pub mod live;
pub mod object;
pub mod route;
pub mod rules;
pub mod status;
mod upload;

pub use answer::{Answer, Content};
pub use error::Error;
pub use live::{Live, Origin};
pub use rules::Rules;

use route::Route;
use rules::MetricsFor;
use status::Page;

/// The user who may see metrics where repositories are private (rest-server's rule).
const METRICS_USER: &str = "metrics";

/// One request, and by which rules it is answered.
pub struct Request<'r> {
    /// The head.
    pub head: &'r Head,
    /// Who sent it.
    pub caller: &'r Caller,
    /// It came through the operator's own door.
    pub admin: bool,
    /// The rules that held when it began.
    pub rules: &'r Rules,
    /// To be called once its client has shown who it is; false if the connection is to make room for others already.
    pub let_in: &'r dyn Fn(&Principal) -> bool,
}

/// Answers one request.
pub async fn handle<S: Store>(live: &Live<S>, request: &Request<'_>, body: &mut Body<'_>) -> Answer<S> {
    let (mut who, mut place) = (None, None);
    match respond(live, request, body, &mut who, &mut place).await {
        Ok(answer) => Answer { who, place, ..answer },
        Err(error) => {
            if let Error::Store(crate::store::Error::Mismatch) = error {
                live.counters.verification_failures.increment();
            }
            Answer { who, place, ..Answer::refusal(&error) }
        }
    }
}

async fn respond<S: Store>(
    live: &Live<S>,
    request: &Request<'_>,
    body: &mut Body<'_>,
    who: &mut Option<Principal>,
    place: &mut Option<Place>,
) -> Result<Answer<S>, Error> {
    let Request { head, caller, admin, rules, let_in } = *request;
    if head.expect == Expect::Unknown {
        return Err(Error::Expectation);
    }
    let page = Page::of(&head.target);
    // Health is for everybody, metrics are behind the operator's own door.
    let open = |page: &Page| *page != Page::Metrics || admin || rules.metrics == MetricsFor::Everybody;
    if let Some(page) = page.filter(open) {
        return status::respond(&live.status, &live.store, page, head).await;
    }
    if admin {
        return Err(Error::NotFound("here are /healthz, /readyz and /metrics alone"));
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
    let principal = rules.auth.authenticate(&head.headers, caller, &async || body.gone().await).await?;
    let principal = &*who.insert(principal);
    if !let_in(principal) {
        return Err(Error::Store(crate::store::Error::Busy));
    }
    // Nothing else takes so long that what lets a request in could be taken away meanwhile.
    let is_upload = head.method == Method::POST;
    let trust = if is_upload { rules.auth.trust(principal, caller) } else { Trust::default() };
    if let Some(page) = page.filter(|_| rules.metrics != MetricsFor::Nobody) {
        return if may_see_metrics(rules, principal) {
            status::respond(&live.status, &live.store, page, head).await
        } else {
            Err(Error::Forbidden("metrics are for the user `metrics` where repositories are private"))
        };
    }
    let route = route?;
    // Strangers hold no places, and health is told while all others wait for a disk.
    *place = Some(live.place(principal, caller.address).await?);
    match route {
        Route::Server => Ok(Answer::done()),
        Route::Repo(repo) => create(live, request, principal, &repo).await,
        Route::List(repo, kind) => list::respond(live, request, principal, &repo, kind).await,
        Route::Object(handle) => object(live, request, body, (principal, &trust), &handle).await,
    }
}

fn may_see_metrics(rules: &Rules, who: &Principal) -> bool {
    rules.metrics != MetricsFor::MetricsUser || who.user().is_some_and(|user| user.as_str() == METRICS_USER)
}

async fn create<S: Store>(
    live: &Live<S>,
    request: &Request<'_>,
    who: &Principal,
    repo: &RepoPath,
) -> Result<Answer<S>, Error> {
    let head = request.head;
    if head.method != Method::POST {
        return Err(Error::Method("POST"));
    }
    if !route::asks_to_create(&head.target) {
        return Err(Error::BadRequest("a repository is made by POST with the query ?create=true"));
    }
    live.decide(request.rules, who, repo, Action::Create).await?;
    let is_there = live.store.exists(repo).await?;
    let making = if is_there { None } else { Some(begin_to_make(live, request.rules, who, repo)?) };
    let missing = live.store.missing_folders(repo).await?;
    let mut claim = live.ledger.claim_folders(repo, missing).await?;
    let changing = live.ledger.changing_folders(repo);
    live.store.create_repo(repo, |count| claim.made(count)).await?;
    drop(changing);
    if let Some(making) = making {
        making.made();
    }
    Ok(Answer::done())
}

/// Counts a repository that is to be made. What its first folder holds is counted beside it, if that is not known.
fn begin_to_make<S: Store>(
    live: &Live<S>,
    rules: &Rules,
    who: &Principal,
    repo: &RepoPath,
) -> Result<Making, Error> {
    let most = rules.allowances.of(who).repos.unwrap_or(u64::MAX);
    let making = live.repos.begin(who, repo, most);
    if let Some(folder) = repo.folders().first()
        && live.repos.begin_count(folder, most, now())
    {
        let (store, repos, folder) = (live.store.clone(), Arc::clone(&live.repos), folder.clone());
        let depth = live.max_folder_depth;
        spawn(async move { repos.end_count(&folder, store.count_repos(&folder, depth).await) });
    }
    making.ok_or(Error::TooManyRepositories(most))
}

async fn object<S: Store>(
    live: &Live<S>,
    request: &Request<'_>,
    body: &mut Body<'_>,
    (who, trust): (&Principal, &Trust),
    handle: &Handle,
) -> Result<Answer<S>, Error> {
    let (head, rules, repo) = (request.head, request.rules, &handle.repo);
    match head.method {
        Method::HEAD => {
            live.decide(rules, who, repo, Action::List).await?;
            object::head(live, head, handle).await
        }
        Method::GET => {
            live.decide(rules, who, repo, Action::Read).await?;
            let answer = object::get(live, head, handle).await?;
            let reading = match (handle.object, &answer.content) {
                (Object::Blob(kind, _), Content::Object(..)) => Some(live.blobs.row(who, repo, kind)),
                _ => None,
            };
            Ok(Answer { reading, ..answer })
        }
        Method::POST => upload::respond(live, request, body, (who, trust), handle).await,
        Method::DELETE => delete(live, rules, who, handle).await,
        _ => Err(Error::Method("HEAD, GET, POST, DELETE")),
    }
}

async fn delete<S: Store>(
    live: &Live<S>,
    rules: &Rules,
    who: &Principal,
    handle: &Handle,
) -> Result<Answer<S>, Error> {
    let only_of = live.decide(rules, who, &handle.repo, Action::Delete(handle.object)).await?;
    if live.lacks(&handle.repo).await.map_err(Error::Delete)? {
        return Ok(Answer::done());
    }
    let changing = live.ledger.changing(handle);
    let removed = live.store.delete(handle, only_of).await.map_err(Error::Delete)?;
    if let Some(bytes) = removed {
        changing.removed(bytes);
    }
    drop(changing);
    if let (Object::Blob(kind, _), Some(bytes)) = (handle.object, removed) {
        let row = live.blobs.row(who, &handle.repo, kind);
        row.delete.increment();
        row.delete_bytes.add(bytes);
    }
    Ok(Answer::done())
}
