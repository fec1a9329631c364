//! What an operator reads at the start: what runs where, and what is risky about it.

use crate::io::runtime::Driver;
use crate::logging::PLAIN;
use crate::server::listen::Listening;
use crate::server::probe::Abilities;
use crate::settings::Settings;
use crate::types::DirectIo;

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
    /// Most requests at once.
    pub max_requests: usize,
    /// What the file system of the data folder can do.
    pub abilities: &'a Abilities,
    /// Whether the data is gone when the machine goes down.
    pub volatile: bool,
    /// The bound sockets.
    pub listeners: &'a [Listening],
    /// What the process gave up.
    pub told: Vec<String>,
    /// What it did not, and should have.
    pub warnings: Vec<String>,
}

/// Writes the banner.
pub fn print(settings: &Settings, facts: &Facts<'_>) {
    let say = |line: String| {
        log::info!(target: PLAIN, "{line}");
    };
    say(format!("packhouse {}", env!("CARGO_PKG_VERSION")));
    say(format!("Data directory: {}", settings.path.display()));
    say(format!(
        "I/O driver: {}, {} workers, at most {} connections and {} requests at a time",
        facts.driver, facts.workers, facts.max_connections, facts.max_requests
    ));
    facts.told.iter().cloned().for_each(say);
    say(authentication(settings, facts));
    say(proxies(settings));
    let enabled = |on: bool| if on { "enabled" } else { "disabled" };
    say(format!("Append only mode {}", enabled(settings.access.append_only)));
    say(format!("Private repositories {}", enabled(settings.access.private_repos)));
    if settings.group_accessible {
        say("Group accessible repos enabled".into());
    }
    if !facts.abilities.unnamed_temps {
        say("Uploads have temporary names: this file system has no files without a name (O_TMPFILE)".into());
    }
    if settings.direct_io == DirectIo::Auto && !facts.abilities.direct_io && !facts.volatile {
        say("Large uploads go through the page cache: this file system takes no direct I/O".into());
    }
    if let Some(tls) = &settings.tls {
        for (cert, key) in &tls.pairs {
            say(format!("TLS enabled, private key {}, pubkey {}", key.display(), cert.display()));
        }
    }
    if let Some(e) = &facts.abilities.no_access {
        log::warn!("{}: {e}: this user can't list it or make repositories in it", settings.path.display());
    }
    if let Some(e) = &facts.abilities.cannot_store {
        log::error!("the disk of the data folder stores nothing: {e}: every upload will fail");
    }
    let of_settings = warnings(settings, facts);
    for warning in facts.warnings.iter().map(String::as_str).chain(of_settings) {
        log::warn!("{warning}");
    }
}

/// Whose word about clients counts.
fn proxies(settings: &Settings) -> String {
    if settings.trusted_proxies.is_empty() {
        return "Proxies: none is believed about its clients (--trusted-proxy)".into();
    }
    let networks: Vec<_> = settings.trusted_proxies.iter().map(ToString::to_string).collect();
    let header = settings.client_header.as_ref().map(|header| format!("the header {header}"));
    let protocol = settings.proxy_protocol.then(|| "the PROXY protocol".to_owned());
    let means: Vec<_> = header.into_iter().chain(protocol).collect();
    let means = if means.is_empty() { "nothing (--proxy-header)".into() } else { means.join(" and ") };
    format!("Proxies: {} tell clients' addresses by {means}", networks.join(", "))
}

fn authentication(settings: &Settings, facts: &Facts<'_>) -> String {
    let client_ca = settings.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    match (&settings.logins.user_header, facts.users, &settings.logins.htpasswd, client_ca) {
        (Some(header), ..) => format!("Proxy Authentication enabled: header {header}"),
        (None, Some(users), Some(file), _) => {
            format!("Authentication enabled: {users} users of {}", file.display())
        }
        (None, _, _, Some(ca)) => format!("Authentication enabled: client certificates of {}", ca.display()),
        _ => "Authentication disabled".into(),
    }
}

fn warnings(settings: &Settings, facts: &Facts<'_>) -> Vec<&'static str> {
    let public = facts.listeners.iter().any(|l| l.listener.is_public() && !l.door.admin);
    let exposed = facts.listeners.iter().any(Listening::is_exposed);
    let admin = facts.listeners.iter().any(|l| l.listener.is_public() && l.door.admin);
    let client_ca = settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let anonymous = facts.users.is_none() && settings.logins.user_header.is_none() && !client_ca;
    let all = [
        (
            !settings.verify,
            "UPLOADS ARE NOT VERIFIED (--no-verify-upload): bytes damaged on the way are stored and acknowledged",
        ),
        (
            public && anonymous,
            "everybody who reaches this port can read and write all repositories: --no-auth on a public address",
        ),
        (
            exposed && facts.users.is_some(),
            "passwords cross the network in the clear: this port has no TLS. Use --tls, put a TLS proxy in front or listen on 127.0.0.1",
        ),
        (
            anonymous && !settings.access.append_only && public,
            "and delete them: neither a login nor --append-only protects them",
        ),
        (
            !facts.abilities.owners
                && (!settings.access.users.is_empty() || settings.access.acl_file.is_some()),
            "the file system of the data folder keeps no extended attributes: a lock has no owner, so that only the right to delete removes it",
        ),
        (
            facts.abilities.folds_names,
            "on this disk names that differ by case, or by the form of an accented letter, are one: a repository answers to its stored spelling alone, and of two users or repositories with such names the second can't have a folder",
        ),
        (admin, "--admin-listen is a public address: its metrics name users and repositories"),
        (
            settings.logins.user_header.is_some() && settings.trusted_proxies.is_empty(),
            "every process on this machine can name the user: --proxy-auth-username without --trusted-proxy",
        ),
        (
            facts.volatile,
            "the data folder is in memory (tmpfs): backups are gone when this machine goes down",
        ),
    ];
    all.into_iter().filter_map(|(holds, warning)| holds.then_some(warning)).collect()
}
