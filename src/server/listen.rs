//! Which sockets there are, and what each is for.

use std::sync::Arc;

use crate::io::listener::{self, Listener};
use crate::server::StartError;
use crate::server::door::Door;
use crate::settings::Settings;
use crate::tls::Acceptor;
use crate::types::ListenAddress;

/// A bound socket and what it is for.
pub struct Listening {
    /// The socket.
    pub listener: Listener,
    /// What it is for.
    pub door: Door,
}

impl Listening {
    /// Whether passwords and backups can be read on their way.
    pub fn is_exposed(&self) -> bool {
        self.listener.is_public() && self.door.tls.is_none() && !self.door.admin
    }
}

/// Binds all addresses. Sockets that systemd passes are taken in place of `--listen`, as rest-server does, unless the
/// settings say which is which.
pub fn bind(settings: &Settings, tls: Option<&Arc<Acceptor>>) -> Result<Vec<Listening>, StartError> {
    let failed = |cause| StartError::System { step: "take the sockets that systemd passes", cause };
    let mut passed = listener::from_systemd().map_err(failed)?;
    let mut all = Vec::new();
    let claims = |address: &&ListenAddress| matches!(address, ListenAddress::Systemd(_));
    // The named ones first: `systemd` alone takes what is left.
    let mut admin: Vec<_> = settings.admin_listen.iter().map(|address| (address, true)).collect();
    let explicit = settings.listen.iter().find(claims).is_some();
    if passed.is_empty() || explicit {
        admin.extend(settings.listen.iter().map(|address| (address, false)));
    }
    admin.sort_by_key(|(address, _)| matches!(address, ListenAddress::Systemd(None)));
    for (address, is_admin) in admin {
        let listeners = if let ListenAddress::Systemd(name) = address {
            take(&mut passed, name.as_deref(), address)?
        } else {
            let bound = Listener::bind(address, settings.socket_mode);
            vec![bound.map_err(|cause| StartError::Listen { address: address.clone(), cause })?]
        };
        all.extend(listeners.into_iter().map(|listener| listening(listener, is_admin, tls)));
    }
    if !explicit {
        all.extend(passed.into_iter().map(|(_, listener)| listening(listener, false, tls)));
    }
    Ok(all)
}

fn listening(listener: Listener, admin: bool, tls: Option<&Arc<Acceptor>>) -> Listening {
    let tls = tls.filter(|_| !admin && !listener.is_unix()).map(Arc::clone);
    Listening { listener, door: Door { admin, tls } }
}

/// Takes the passed sockets of one name, or all.
fn take(
    passed: &mut Vec<(String, Listener)>,
    name: Option<&str>,
    address: &ListenAddress,
) -> Result<Vec<Listener>, StartError> {
    let (taken, rest): (Vec<_>, Vec<_>) =
        std::mem::take(passed).into_iter().partition(|(other, _)| name.is_none_or(|name| name == other));
    *passed = rest;
    if taken.is_empty() {
        let cause = std::io::Error::other("systemd has passed no such socket");
        return Err(StartError::Listen { address: address.clone(), cause });
    }
    Ok(taken.into_iter().map(|(_, listener)| listener).collect())
}
