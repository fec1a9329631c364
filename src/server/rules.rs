//! Settings → what can change while the server runs, in two stages: everything is read and checked first, then taken.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::HeaderName;

use crate::api::Rules;
use crate::api::rules::{MetricsFor, ObjectSizes};
use crate::auth::htpasswd::{Htpasswd, LoadError};
use crate::auth::{Authenticator, Options, Passwords};
use crate::io::records;
use crate::metrics::LoginCounters;
use crate::policy::acl::Acl;
use crate::policy::rate::{Allowance, Allowances};
use crate::policy::{Grants, Policy, Rights};
use crate::quota::{self, UserLimits};
use crate::server::warnings;
use crate::settings::{Access, Metrics, OTHERS, Settings, TlsVersion, UserRules};
use crate::tls::{Acceptor, Files, Material, TlsError};
use crate::types::UserName;

/// Time until an empty password file is looked at again.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What lives through a reload.
#[derive(Clone, Default)]
pub struct Held {
    /// Who logs in by password.
    pub passwords: Option<Arc<Passwords>>,
    /// The certificates.
    pub tls: Option<Arc<Acceptor>>,
    /// Logins.
    pub logins: Arc<LoginCounters>,
}

/// Everything that was read and found right.
pub struct Prepared<'s> {
    users: Option<Htpasswd>,
    material: Option<Material>,
    policy: Policy,
    settings: &'s Settings,
}

/// Reads and checks all files that the settings name.
///
/// # Errors
/// All that is wrong, each with its remedy.
pub fn prepare(settings: &Settings) -> Result<Prepared<'_>, Vec<String>> {
    let mut problems = Vec::new();
    let users = users(settings).unwrap_or_else(|problem| note(&mut problems, problem));
    let material = material(settings).unwrap_or_else(|problem| note(&mut problems, problem));
    let rights = rights(&settings.access).unwrap_or_else(|problem| {
        problems.push(problem);
        Rights::default()
    });
    let Access { append_only, private_repos, .. } = settings.access;
    let policy = Policy { append_only, private_repos, rights };
    if problems.is_empty() { Ok(Prepared { users, material, policy, settings }) } else { Err(problems) }
}

fn note<T>(problems: &mut Vec<String>, problem: String) -> Option<T> {
    problems.push(problem);
    None
}

/// The users of the password file, if there is one.
pub fn users(settings: &Settings) -> Result<Option<Htpasswd>, String> {
    let Some(file) = &settings.logins.htpasswd else { return Ok(None) };
    // Whoever writes it anew may just have emptied it: what is empty is looked at twice before nobody may log in.
    if std::fs::metadata(file).is_ok_and(|meta| meta.len() == 0) {
        thread::sleep(SECOND_LOOK);
    }
    Htpasswd::load(file).map(Some).map_err(|e| remedy(&e))
}

fn remedy(what: &LoadError) -> String {
    let advice = match what {
        LoadError::Read { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
            "Let the server's user read it (chown, chmod). If its folder was replaced by another one, restart the server: its sandbox knows the old folder."
        }
        _ => {
            "Make one with `packhouse user add --htpasswd-file FILE USER`, name another with --htpasswd-file, or let everybody in with --no-auth."
        }
    };
    format!("cannot load the password file: {what}. {advice}")
}

/// The certificates, if there are any.
pub fn material(settings: &Settings) -> Result<Option<Material>, String> {
    let Some(tls) = &settings.tls else { return Ok(None) };
    let files = Files {
        pairs: tls.pairs.clone(),
        only_1_3: tls.min_version == TlsVersion::V13,
        client_ca: tls.client_ca.clone(),
        client_crl: tls.client_crl.clone(),
        fresh_crl: tls.fresh_crl,
        client_optional: tls.client_optional,
    };
    Material::load(&files).map(Some).map_err(|e| {
        let remedy = match e {
            TlsError::Read { .. } => " Give --tls-cert and --tls-key files that this user may read.",
            _ => "",
        };
        format!("cannot serve TLS: {e}.{remedy}")
    })
}

/// Who has which right.
pub fn rights(access: &Access) -> Result<Rights, String> {
    if let Some(path) = &access.acl_file {
        let text = records::read_text(path).map_err(|e| {
            format!(
                "acl-file: {}: {e}. Give --acl-file a file that the server's user may read.",
                path.display()
            )
        })?;
        return Acl::parse(&text).map(Rights::Acl).map_err(|e| format!("acl-file: {}: {e}", path.display()));
    }
    if access.users.values().all(|rules| rules.rights.is_none()) {
        return Ok(Rights::Full);
    }
    // What a user's table does not say, that of the others does.
    let general = access.users.get(OTHERS);
    let grants = |rules: &UserRules| {
        let rights = rules.rights.as_ref().or(general.and_then(|general| general.rights.as_ref()));
        let closed = rules.keys_closed.or(general.and_then(|general| general.keys_closed));
        Grants::new(rights.cloned().unwrap_or_default(), closed.unwrap_or(false))
    };
    let named = access.users.iter().filter(|(name, _)| *name != OTHERS);
    let users = named.map(|(name, rules)| (UserName::new(name), grants(rules))).collect();
    Ok(Rights::ByUser { users, others: general.map(grants) })
}

/// The quotas of a user. Objects are counted where bytes are: so many that only empty ones can meet the limit.
fn of_user(rules: &UserRules) -> UserLimits {
    const BYTES_EACH: u64 = 64 << 10;
    const LEAST: u64 = 1_000_000;
    let implied = rules.max_size.map(|bytes| (bytes / BYTES_EACH).max(LEAST));
    UserLimits { bytes: rules.max_size, objects: rules.max_objects.or(implied) }
}

/// The quotas.
pub fn quotas(settings: &Settings) -> quota::Limits {
    let users = settings
        .access
        .users
        .iter()
        .map(|(name, rules)| (name, of_user(rules)))
        .filter(|(_, limits)| *limits != UserLimits::default())
        .map(|(name, limits)| (name.clone().into_bytes(), limits));
    quota::Limits {
        total: settings.quotas.total,
        users: users.collect(),
        repos: settings.quotas.repos.iter().cloned().collect(),
    }
}

/// All files that are read anew when they change.
pub fn files(settings: &Settings) -> Vec<PathBuf> {
    let tls = settings.tls.iter().flat_map(|tls| {
        let pairs = tls.pairs.iter().flat_map(|(cert, key)| [cert, key]);
        pairs.chain(&tls.client_ca).chain(&tls.client_crl)
    });
    tls.chain(&settings.logins.htpasswd).chain(&settings.access.acl_file).cloned().collect()
}

impl Prepared<'_> {
    /// Certificates that have expired and are others than those in use.
    pub fn newly_expired(&self, held: &Held) -> Vec<String> {
        let ends = self.material.as_ref().map(Material::ends);
        let same = held.tls.as_ref().map(|tls| tls.ends()) == ends;
        if same { Vec::new() } else { self.expired() }
    }

    /// Certificates that have expired.
    pub fn expired(&self) -> Vec<String> {
        self.material.as_ref().map(Material::problems).unwrap_or_default()
    }

    /// What can be used, and may not be meant.
    pub fn warnings(&self) -> Vec<String> {
        let names = self.names();
        let mut all: Vec<_> = self.nobody().into_iter().chain(self.stale_list()).collect();
        all.extend(self.unknown_users());
        all.extend(warnings::alike(&names));
        all.extend(warnings::without_folder(&names, &self.settings.access));
        all
    }

    /// All users that a file or the settings name.
    fn names(&self) -> BTreeSet<&str> {
        let own = self.settings.access.users.keys().map(String::as_str).filter(|name| *name != OTHERS);
        let mut names: BTreeSet<_> = own.chain(self.users.iter().flat_map(Htpasswd::names)).collect();
        if let Rights::Acl(acl) = &self.policy.rights {
            names.extend(acl.users().map(UserName::as_str));
        }
        names
    }

    /// What is allowed to whom.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// That the list of revoked certificates has expired.
    fn stale_list(&self) -> Option<String> {
        self.material.as_ref().and_then(Material::stale_list).map(|list| list.to_string())
    }

    /// Why nobody could log in, which may be what the operator wants: the users come later.
    fn nobody(&self) -> Option<String> {
        let file = self.settings.logins.htpasswd.as_ref()?;
        let none = self.users.as_ref().is_some_and(Htpasswd::is_empty);
        none.then(|| {
            format!(
                "{} has no user that can log in: add one with `packhouse user add --htpasswd-file FILE USER`",
                file.display()
            )
        })
    }

    /// The lines of the password file that can't be used.
    pub fn bad_lines(&self) -> impl Iterator<Item = &str> {
        self.users.iter().flat_map(|users| users.problems().iter().map(String::as_str))
    }

    /// Users that have rules and no password, where a password is the only way to log in.
    fn unknown_users(&self) -> Vec<String> {
        let Some(users) = &self.users else { return Vec::new() };
        if self.settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            return Vec::new();
        }
        let own = self.settings.access.users.keys().filter(|name| *name != OTHERS);
        let mut named: BTreeSet<_> = own.map(|name| ("users.", name.as_str())).collect();
        if let Rights::Acl(acl) = &self.policy.rights {
            named.extend(acl.users().map(|user| ("acl-file: ", user.as_str())));
        }
        let missing = named.into_iter().filter(|(_, name)| !users.has(name));
        missing
            .map(|(place, name)| match place {
                "users." => format!("[users.{}]: the password file has no such user", name.escape_debug()),
                _ => format!("acl-file: the password file has no user {}", name.escape_debug()),
            })
            .collect()
    }

    /// Number of users with a password.
    pub fn user_count(&self) -> Option<usize> {
        self.users.as_ref().map(Htpasswd::len)
    }

    /// Takes it all. `held` gets what is new, and what it has already takes what was read.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn take(self, held: &mut Held) -> io::Result<Rules> {
        let Self { users, material, policy, settings } = self;
        let options = login_options(settings);
        held.passwords = match (users, held.passwords.take()) {
            (None, _) => None,
            (Some(users), Some(passwords)) => {
                passwords.replace(users, options);
                Some(passwords)
            }
            (Some(users), None) => {
                let counters = Arc::clone(&held.logins);
                Some(Arc::new(Passwords::new(users, settings.logins.hash_threads, options, counters)?))
            }
        };
        match (material, &held.tls) {
            (Some(material), Some(tls)) => tls.replace(material),
            (Some(material), None) => held.tls = Some(Arc::new(Acceptor::new(material))),
            (None, _) => {}
        }
        Ok(rules(settings, policy, held.passwords.clone()))
    }
}

/// What passwords depend on.
pub fn login_options(settings: &Settings) -> Options {
    let logins = &settings.logins;
    Options { remember: logins.remember, remember_max: logins.remember_max, throttle: logins.throttle }
}

fn rules(settings: &Settings, policy: Policy, passwords: Option<Arc<Passwords>>) -> Rules {
    let header = |name: &Option<String>| HeaderName::try_from(name.as_deref()?).ok();
    let client_ca = settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let auth = match (header(&settings.logins.user_header), passwords) {
        (Some(header), _) => Authenticator::Proxy(header),
        (None, Some(passwords)) => Authenticator::Passwords(passwords),
        (None, None) if client_ca => Authenticator::Certificate,
        (None, None) => Authenticator::Nobody,
    };
    let limits = &settings.limits;
    let hsts = settings.tls.as_ref().and_then(|tls| tls.hsts);
    Rules {
        auth,
        trusted: settings.trusted_proxies.clone(),
        client_header: header(&settings.client_header),
        proxy_protocol: settings.proxy_protocol,
        sizes: ObjectSizes {
            config: limits.config,
            key: limits.key,
            lock: limits.lock,
            index: limits.index,
            data: limits.data,
        },
        allowances: allowances(settings),
        max_connections: limits.connections,
        metrics: match settings.metrics {
            None => MetricsFor::Nobody,
            Some(Metrics::Everybody) => MetricsFor::Everybody,
            Some(Metrics::Users) if policy.private_repos => MetricsFor::MetricsUser,
            Some(Metrics::Users) => MetricsFor::Users,
        },
        policy,
        hsts: hsts.map(|age| format!("max-age={}", age.as_secs())),
        limits: settings.timeouts,
    }
}

fn allowances(settings: &Settings) -> Allowances {
    let of_all = Allowance {
        uploads: settings.limits.per_user,
        rate: settings.limits.rate,
        repos: Some(settings.limits.repos),
    };
    let own = |rules: &UserRules, general: Allowance| Allowance {
        uploads: rules.max_uploads.or(general.uploads),
        rate: rules.upload_rate.or(general.rate),
        repos: rules.max_repos.or(general.repos),
    };
    let users = &settings.access.users;
    // What a user's table does not say, that of the others does, as with rights.
    let general = users.get(OTHERS).map_or(of_all, |others| own(others, of_all));
    let users = users.iter().map(|(name, rules)| (UserName::new(name), own(rules, general))).collect();
    Allowances { general, users }
}
