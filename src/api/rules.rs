//! What can change while the server runs. A request is answered by the rules of its beginning.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use crate::auth::Authenticator;
use crate::policy::Policy;
use crate::policy::rate::Allowances;
use crate::types::{BlobType, Object, Timeouts};

/// The rules.
#[derive(Clone)]
pub struct Rules {
    /// Who may log in.
    pub auth: Authenticator,
    /// What is allowed.
    pub policy: Policy,
    /// Networks whose proxies are believed.
    pub trusted: Vec<IpNet>,
    /// The header in which they tell the address of their client.
    pub client_header: Option<HeaderName>,
    /// Connections from trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Largest objects, in bytes.
    pub sizes: ObjectSizes,
    /// How much each user may upload at a time.
    pub allowances: Allowances,
    /// Connections of one address.
    pub max_connections: Option<usize>,
    /// For whom metrics are.
    pub metrics: MetricsFor,
    /// The value of `Strict-Transport-Security`.
    pub hsts: Option<String>,
    /// The time limits of new connections.
    pub limits: Timeouts,
}

/// For whom metrics are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFor {
    /// For nobody; their path is a repository's.
    Nobody,
    /// For who logs in.
    Users,
    /// For the user `metrics`.
    MetricsUser,
    /// For everybody.
    Everybody,
}

/// Largest objects, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct ObjectSizes {
    /// `config`
    pub config: u64,
    /// Keys.
    pub key: u64,
    /// Locks.
    pub lock: u64,
    /// Indexes and snapshots.
    pub index: u64,
    /// Packs.
    pub data: u64,
}

impl ObjectSizes {
    /// The largest that an object of this kind may be.
    pub const fn of(&self, object: Object) -> u64 {
        match object {
            Object::Config => self.config,
            Object::Blob(BlobType::Keys, _) => self.key,
            Object::Blob(BlobType::Locks, _) => self.lock,
            Object::Blob(BlobType::Index | BlobType::Snapshots, _) => self.index,
            Object::Blob(BlobType::Data, _) => self.data,
        }
    }
}

impl Rules {
    /// Whether the other end of a connection is a proxy that is believed about its clients: of a network that the operator
    /// has named. An address that is none is that of a unix socket, which nobody reaches whom the operator does not let.
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        address.is_none_or(|address| {
            let address = address.to_canonical();
            self.trusted.iter().any(|network| network.contains(&address))
        })
    }

    /// Whether it is believed about its users. Where the operator has named no proxy, this machine is (rest-server believes
    /// everybody).
    pub fn trusts_about_users(&self, address: Option<IpAddr>) -> bool {
        self.trusts(address) || self.trusted.is_empty() && is_this_machine(address)
    }

    /// Whether many clients may stand behind an address: limits of an address do not hold for it.
    pub fn is_of_many(&self, address: Option<IpAddr>) -> bool {
        self.trusts(address) || is_this_machine(address)
    }
}

fn is_this_machine(address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| address.to_canonical().is_loopback())
}
