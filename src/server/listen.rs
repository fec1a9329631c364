//! Which sockets there are, and what each is for.

use std::path::Path;
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

/// A socket that nobody listens to yet.
pub struct Bound {
    listener: Listener,
    /// It is for `--admin-listen`.
    admin: bool,
}

/// Binds all addresses. Sockets that systemd passes are taken in place of `--listen`, as rest-server does, unless the
/// settings say which is which.
pub fn bind(settings: &Settings) -> Result<Vec<Bound>, StartError> {
    let failed = |cause| StartError::System { step: "take the sockets that systemd passes", cause };
    let mut passed = listener::from_systemd().map_err(failed)?;
    let mut all = Vec::new();
    // Those with a name first: `systemd` alone takes what is left.
    let by_name = |addresses: &[ListenAddress], is_admin: bool| {
        addresses.iter().map(|address| (address.clone(), is_admin)).collect::<Vec<_>>()
    };
    let mut wanted = [by_name(&settings.admin_listen, true), by_name(&settings.listen, false)].concat();
    let is_systemd = |address: &ListenAddress| matches!(address, ListenAddress::Systemd(_));
    wanted.sort_by_key(|(address, _)| match address {
        ListenAddress::Systemd(Some(_)) => 0,
        ListenAddress::Systemd(None) => 1,
        _ => 2,
    });
    let said = settings.listen.iter().any(is_systemd);
    for (address, is_admin) in wanted {
        let listeners = match &address {
            ListenAddress::Systemd(name) => take(&mut passed, name.as_deref(), &address)?,
            // What systemd passes without being asked for stands in the place of --listen.
            _ if !is_admin && !said && !passed.is_empty() => continue,
            _ => {
                let bound = Listener::bind(&address, settings.socket_mode);
                vec![bound.map_err(|cause| StartError::Listen { address: address.clone(), cause })?]
            }
        };
        all.extend(listeners.into_iter().map(|listener| Bound { listener, admin: is_admin }));
    }
    if !said {
        all.extend(passed.into_iter().map(|(_, listener)| Bound { listener, admin: false }));
    }
    Ok(all)
}

impl Bound {
    /// The file of a unix socket that was made here.
    pub fn file(&self) -> Option<&Path> {
        self.listener.file()
    }

    /// With what its connections need.
    pub fn listening(self, tls: Option<&Arc<Acceptor>>) -> Listening {
        let Self { listener, admin } = self;
        let tls = tls.filter(|_| !admin && !listener.is_unix()).map(Arc::clone);
        Listening { listener, door: Door { admin, tls } }
    }
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
