//! What an operator reads at the start: what runs where, and what is risky about it.

use crate::io::listener::Listener;
use crate::io::runtime::Driver;
use crate::logging::PLAIN;
use crate::settings::Settings;

/// What the start has found out.
pub struct Facts<'a> {
    /// The driver in use.
    pub driver: Driver,
    /// Number of workers.
    pub workers: usize,
    /// Number of users; none lets everybody in.
    pub users: Option<usize>,
    /// Most connections at once.
    pub max_connections: usize,
    /// Whether uploads are files without a name until they are whole.
    pub unnamed_temps: bool,
    /// Whether the data is gone when the machine goes down.
    pub volatile: bool,
    /// The bound sockets.
    pub listeners: &'a [Listener],
}

/// Writes the banner.
pub fn print(settings: &Settings, facts: &Facts<'_>) {
    let say = |line: String| {
        log::info!(target: PLAIN, "{line}");
    };
    say(format!("packhouse {}", env!("CARGO_PKG_VERSION")));
    say(format!("Data directory: {}", settings.path.display()));
    say(format!(
        "I/O driver: {}, {} workers, at most {} connections",
        facts.driver, facts.workers, facts.max_connections
    ));
    match (facts.users, &settings.htpasswd) {
        (Some(users), Some(file)) => {
            say(format!("Authentication enabled: {users} users of {}", file.display()));
        }
        _ => say("Authentication disabled".into()),
    }
    say(format!("Append only mode {}", if settings.append_only { "enabled" } else { "disabled" }));
    if settings.group_accessible {
        say("Group accessible repos enabled".into());
    }
    if !facts.unnamed_temps {
        say("Uploads have temporary names: this file system has no files without a name (O_TMPFILE)".into());
    }
    for warning in warnings(settings, facts) {
        log::warn!("{warning}");
    }
}

fn warnings(settings: &Settings, facts: &Facts<'_>) -> Vec<&'static str> {
    let public = facts.listeners.iter().any(Listener::is_public);
    let all = [
        (
            !settings.verify,
            "UPLOADS ARE NOT VERIFIED (--no-verify-upload): bytes damaged on the way are stored and acknowledged",
        ),
        (
            public && facts.users.is_none(),
            "everybody who reaches this port can read and write all repositories: --no-auth on a public address",
        ),
        (
            public && facts.users.is_some(),
            "passwords cross the network in the clear: this port has no TLS. Put a TLS proxy in front or listen on 127.0.0.1",
        ),
        (
            facts.users.is_none() && !settings.append_only && public,
            "and delete them: neither a login nor --append-only protects them",
        ),
        (
            facts.volatile,
            "the data folder is in memory (tmpfs): backups are gone when this machine goes down",
        ),
    ];
    all.into_iter().filter_map(|(holds, warning)| holds.then_some(warning)).collect()
}
