//! What a request is answered with: the store and the rules that hold now. Built by `server::assemble`.

use std::sync::Arc;

use http::HeaderMap;

use crate::api::Error;
use crate::auth::Authenticator;
use crate::policy::{Action, Policy};
use crate::types::Principal;

/// One worker's view of the server.
#[derive(Clone)]
pub struct Live<S> {
    /// The worker's store.
    pub store: S,
    /// Who may log in; none lets everybody in (`--no-auth`).
    pub auth: Option<Arc<Authenticator>>,
    /// What is allowed.
    pub policy: Policy,
    /// Folders that a repository's path may have.
    pub max_folder_depth: usize,
}

impl<S> Live<S> {
    pub(super) async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Error> {
        match &self.auth {
            None => Ok(Principal::Anonymous),
            Some(auth) => Ok(auth.authenticate(headers).await?),
        }
    }

    pub(super) fn decide(&self, who: &Principal, action: Action) -> Result<(), Error> {
        self.policy.decide(who, action).map_err(|denied| Error::Forbidden(denied.0))
    }
}
