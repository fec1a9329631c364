//! What a request is answered with: the store, the rules that hold now, and what requests are counted against. Built by
//! `server::assemble`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;

use crate::api::Error;
use crate::api::rules::Rules;
use crate::api::status::Status;
use crate::auth::{Caller, Shown, Trust};
use crate::http::forwarded;
use crate::io::runtime::timeout;
use crate::io::shares::{Party, Place, Shares};
use crate::metrics::Counters;
use crate::metrics::blobs::BlobCounters;
use crate::policy::rate::Rates;
use crate::policy::repos::RepoCounts;
use crate::policy::{Action, Decision};
use crate::quota::Ledger;
use crate::store::{self, Store};
use crate::tls::Acceptor;
use crate::types::{ClientNetwork, Principal, RepoPath, UserName};

/// How long a request waits for others before it is to be tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// One worker's view of the server.
#[derive(Clone)]
pub struct Live<S> {
    /// The worker's store.
    pub store: S,
    /// What can change while the server runs.
    pub rules: Arc<ArcSwap<Rules>>,
    /// How much is stored, and may be.
    pub ledger: Arc<Ledger>,
    /// How much each user uploads at the moment.
    pub rates: Arc<Rates>,
    /// How many repositories each user has.
    pub repos: Arc<RepoCounts>,
    /// What this worker counts.
    pub counters: Arc<Counters>,
    /// What it counts of objects.
    pub blobs: Rc<BlobCounters>,
    /// How the server is.
    pub status: Arc<Status>,
    /// How many requests may run at once, on all workers.
    pub requests: Arc<Shares<Who>>,
    /// Those of this worker's clients who have places there.
    pub parties: Rc<Parties>,
    /// How many lists may be sent at once, on all workers: as many as there is memory for.
    pub lists: Arc<Shares<Who>>,
    /// Those of this worker's clients who have places there.
    pub list_parties: Rc<Parties>,
    /// Folders that a repository's path may have.
    pub max_folder_depth: usize,
}

/// Who shares the places of requests with others: a user, or the network of who is let in without a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A user.
    User(Principal),
    /// Somebody of a network, or of a unix socket.
    Somebody(Option<ClientNetwork>),
}

/// Parties that a worker has looked up: others' locks are in nobody's way.
#[derive(Default)]
pub struct Parties {
    users: RefCell<HashMap<Principal, Arc<Party>>>,
    networks: RefCell<HashMap<Option<ClientNetwork>, Arc<Party>>>,
}

impl Parties {
    /// Most that are kept, of both kinds.
    const MOST: usize = 1024;

    fn of(&self, shares: &Shares<Who>, who: &Principal, address: Option<IpAddr>) -> Arc<Party> {
        match who {
            Principal::User(_) => Self::find(&self.users, who, || shares.party(Who::User(who.clone()))),
            Principal::Anonymous => {
                let network = address.map(ClientNetwork::from);
                Self::find(&self.networks, &network, || shares.party(Who::Somebody(network)))
            }
        }
    }

    fn find<K: Hash + Eq + Clone>(
        known: &RefCell<HashMap<K, Arc<Party>>>,
        name: &K,
        look_up: impl FnOnce() -> Arc<Party>,
    ) -> Arc<Party> {
        let mut known = known.borrow_mut();
        if let Some(party) = known.get(name) {
            return Arc::clone(party);
        }
        if known.len() >= Self::MOST {
            // Who has places keeps its party alive, and is found again.
            known.clear();
        }
        Arc::clone(known.entry(name.clone()).or_insert_with(look_up))
    }
}

/// The other end of a connection, and through which door it came.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its address; none on a unix socket.
    pub address: Option<IpAddr>,
    /// Its certificate.
    pub certificate: Option<Shown>,
    /// It may ask for health and metrics alone.
    pub admin: bool,
    /// The connection is encrypted.
    pub encrypted: bool,
}

impl Origin {
    /// Who asks, as far as the head tells.
    pub fn caller(&self, rules: &Rules, headers: &HeaderMap) -> Caller {
        const NONE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let trusted = rules.trusts(self.address);
        let peer = self.address.unwrap_or(NONE);
        let client = match &rules.client_header {
            Some(header) if trusted => {
                forwarded::client(peer, header, headers, |address| rules.trusts(Some(address)))
            }
            _ => peer,
        };
        let address = (client != NONE).then(|| client.to_canonical());
        let trusted = rules.trusts_about_users(self.address);
        Caller { peer: self.address, address, trusted, certificate: self.certificate.clone() }
    }

    /// Whether its certificate was looked at by what no longer holds: it may have been revoked since.
    pub fn is_outdated(&self, tls: Option<&Arc<Acceptor>>) -> bool {
        self.certificate.as_ref().zip(tls).is_some_and(|(shown, tls)| tls.generation() != shown.generation)
    }
}

impl<S: Store> Live<S> {
    /// A place among the requests that run at once; the others are waited for.
    pub(super) async fn place(&self, who: &Principal, address: Option<IpAddr>) -> Result<Place, Error> {
        self.enter(&self.requests, &self.parties, (who, address)).await
    }

    /// Whether a repository does not exist. To be asked before the ledger is told of a change: a repository that is not there must
    /// get no account and no line in the journal, and while the store is counted its account would keep the count from ending.
    pub(super) async fn lacks(&self, repo: &RepoPath) -> Result<bool, store::Error> {
        Ok(!self.ledger.knows(repo) && !self.store.exists(repo).await?)
    }

    /// A place among the lists that are sent at once; the others are waited for.
    pub(super) async fn list_place(&self, who: &Principal, address: Option<IpAddr>) -> Result<Place, Error> {
        self.enter(&self.lists, &self.list_parties, (who, address)).await
    }

    async fn enter(
        &self,
        shares: &Shares<Who>,
        parties: &Parties,
        (who, address): (&Principal, Option<IpAddr>),
    ) -> Result<Place, Error> {
        let party = parties.of(shares, who, address);
        if let Some(place) = shares.try_enter(&party) {
            return Ok(place);
        }
        self.counters.waits.increment();
        let waited = timeout(PATIENCE, shares.enter(&party)).await;
        waited.map_err(|_elapsed| Error::Store(store::Error::Busy))
    }

    /// Decides again, by the rules of now, when an upload is about to be seen: what it was begun by may be taken away since.
    pub(super) async fn decide_again(
        &self,
        begun: &Rules,
        (who, caller, trust): (&Principal, &Caller, &Trust),
        repo: &RepoPath,
        action: Action,
    ) -> Result<(), Error> {
        let rules = self.rules.load_full();
        let generation = self.status.tls.as_ref().map(|tls| tls.generation());
        let trusted = rules.trusts_about_users(caller.peer);
        rules.auth.check_again(who, caller, trust, (trusted, generation))?;
        if Arc::as_ptr(&rules) != std::ptr::from_ref(begun) {
            self.decide(&rules, who, repo, action).await?;
        }
        Ok(())
    }

    /// Decides, also what needs a look at the store. Returns the user if only own objects are meant.
    pub(super) async fn decide<'w>(
        &self,
        rules: &Rules,
        who: &'w Principal,
        repo: &RepoPath,
        action: Action,
    ) -> Result<Option<&'w UserName>, Error> {
        match rules.policy.decide(who, repo, action) {
            Err(denied) => Err(Error::Forbidden(denied.0)),
            Ok(Decision::Allowed) => Ok(None),
            // Nobody owns anything without a name.
            Ok(Decision::IfOwn) => {
                who.user().map(Some).ok_or(Error::Forbidden("only who made a lock may remove it"))
            }
            Ok(Decision::IfThere) if self.store.exists(repo).await? => Ok(None),
            Ok(Decision::IfThere) => Err(Error::NotFound("there is no such repository")),
        }
    }
}
