//! A draft of settings, filled value by value, and what must hold between them.

use std::path::PathBuf;
use std::time::Duration;

use crate::settings::cpus::CpuList;
use crate::settings::{
    Access, IoDriver, Logins, Metrics, Quotas, Settings, Tls, TlsVersion, UploadLimits, Workers,
};
use crate::types::{DirectIo, ListenAddress, Timeouts};

/// Settings on their way: what has a default, and what depends on other settings.
#[expect(clippy::struct_excessive_bools, reason = "one a switch of the command line")]
pub struct Draft {
    pub(super) settings: Settings,
    pub(super) path: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) listen: Vec<ListenAddress>,
    pub(super) socket_mode: Option<u32>,
    pub(super) no_auth: bool,
    pub(super) htpasswd: Option<PathBuf>,
    pub(super) tls: bool,
    pub(super) certs: Vec<PathBuf>,
    pub(super) keys: Vec<PathBuf>,
    pub(super) tls_min: TlsVersion,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) client_crl: Option<PathBuf>,
    pub(super) fresh_crl: bool,
    pub(super) client_optional: bool,
    pub(super) hsts: Option<Duration>,
    pub(super) prometheus: bool,
    pub(super) prometheus_no_auth: bool,
    pub(super) cpu_profile: Option<PathBuf>,
    pub(super) workers: Option<usize>,
    pub(super) cpus: Option<CpuList>,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            settings: defaults(),
            path: None,
            state_dir: None,
            listen: Vec::new(),
            socket_mode: None,
            no_auth: false,
            htpasswd: None,
            tls: false,
            certs: Vec::new(),
            keys: Vec::new(),
            tls_min: TlsVersion::V12,
            client_ca: None,
            client_crl: None,
            fresh_crl: false,
            client_optional: false,
            hsts: None,
            prometheus: false,
            prometheus_no_auth: false,
            cpu_profile: None,
            workers: None,
            cpus: None,
        }
    }
}

fn defaults() -> Settings {
    Settings {
        path: PathBuf::new(),
        state_dir: PathBuf::new(),
        shared_folder: false,
        require_mount: false,
        require_durable: false,
        listen: Vec::new(),
        admin_listen: Vec::new(),
        socket_mode: 0,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
        client_header: None,
        logins: Logins {
            htpasswd: None,
            user_header: None,
            throttle: true,
            remember: Duration::from_mins(15),
            remember_max: Duration::from_hours(24),
            hash_threads: 1,
        },
        tls: None,
        access: Access::default(),
        quotas: Quotas::default(),
        limits: UploadLimits {
            config: 64 << 10,
            key: 1 << 20,
            lock: 64 << 10,
            index: 256 << 20,
            // rustic reads the sizes of a list as 32-bit numbers: one larger entry and it can't read the list.
            data: u64::from(u32::MAX),
            per_user: None,
            repos: 100_000,
            rate: None,
            connections: None,
        },
        group_accessible: false,
        verify: true,
        debug: false,
        access_log: None,
        metrics: None,
        max_folder_depth: 2,
        min_free: None,
        scrub_period: Duration::from_hours(30 * 24),
        scrub_quarantine: false,
        user: None,
        sandbox: true,
        workers: Workers::Auto,
        io_driver: IoDriver::Auto,
        sendfile: true,
        direct_io: DirectIo::Auto,
        hash_lanes: true,
        group_commit: true,
        balance: true,
        drain: Duration::from_secs(30),
        timeouts: Timeouts::default(),
    }
}

impl Draft {
    /// The settings.
    ///
    /// # Errors
    /// All that does not fit together, each with its remedy.
    pub fn resolve(self) -> Result<Settings, Vec<String>> {
        let problems = self.problems();
        let Some(path) = self.path.clone().filter(|_| problems.is_empty()) else { return Err(problems) };
        let tls = self.tls_settings(&path);
        let mut settings = self.settings;
        // Without users there are no folders of theirs.
        settings.access.private_repos &=
            !(self.no_auth && self.client_ca.is_none() && settings.logins.user_header.is_none());
        settings.state_dir = self.state_dir.unwrap_or_else(|| default_state_dir(&path));
        settings.listen =
            if self.listen.is_empty() { vec![ListenAddress::AnyHost(8000)] } else { self.listen };
        let usual_mode = if settings.group_accessible { 0o770 } else { 0o700 };
        settings.socket_mode = self.socket_mode.unwrap_or(usual_mode);
        let by_certificate = self.client_ca.is_some() && !self.client_optional;
        let passwords = !self.no_auth && settings.logins.user_header.is_none() && !by_certificate;
        settings.logins.htpasswd = passwords.then(|| self.htpasswd.unwrap_or_else(|| path.join(".htpasswd")));
        settings.tls = tls;
        settings.metrics = match (self.prometheus, self.prometheus_no_auth) {
            (true, true) => Some(Metrics::Everybody),
            (true, false) => Some(Metrics::Users),
            (false, _) => None,
        };
        settings.workers = match (self.cpus, self.workers) {
            (Some(cpus), _) => Workers::Pinned(cpus.0),
            (None, Some(count)) => Workers::Count(count),
            (None, None) => Workers::Auto,
        };
        settings.path = path;
        Ok(settings)
    }

    fn tls_settings(&self, path: &std::path::Path) -> Option<Tls> {
        // rest-server's names.
        let certs = if self.certs.is_empty() { vec![path.join("public_key")] } else { self.certs.clone() };
        let keys = if self.keys.is_empty() { vec![path.join("private_key")] } else { self.keys.clone() };
        self.tls.then(|| Tls {
            pairs: certs.into_iter().zip(keys).collect(),
            min_version: self.tls_min,
            client_ca: self.client_ca.clone(),
            client_crl: self.client_crl.clone(),
            fresh_crl: self.fresh_crl,
            client_optional: self.client_optional,
            hsts: self.hsts,
        })
    }

    /// What has no effect and is no mistake: rest-server takes it, too.
    pub(super) fn notes(&self) -> Vec<String> {
        let logins = &self.settings.logins;
        let anonymous = self.no_auth && self.client_ca.is_none() && logins.user_header.is_none();
        let all = [
            (
                self.prometheus_no_auth && !self.prometheus,
                "prometheus-no-auth has no effect without prometheus: there are no metrics",
            ),
            (
                anonymous && self.settings.access.private_repos,
                "private-repos has no effect with no-auth: without users everybody reaches everything",
            ),
            (
                self.settings.client_header.is_some() && self.no_proxies(),
                "proxy-header has no effect without trusted-proxy: name the networks of your proxies, 127.0.0.1 for one on this machine",
            ),
            (
                self.settings.limits.connections.is_some() && !self.no_proxies(),
                "max-connections-per-address does not hold for --trusted-proxy and unix sockets, where many clients may come from: limit them at the proxy",
            ),
            (
                !self.settings.trusted_proxies.is_empty()
                    && self.settings.client_header.is_none()
                    && logins.user_header.is_none()
                    && !self.settings.proxy_protocol,
                "trusted-proxy: clients behind proxies are known by the proxy's address: name the header that the proxies set with proxy-header, or use proxy-protocol",
            ),
        ];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| text.to_owned()).collect()
    }

    /// Nobody can be a trusted proxy: none is named, and no socket is a unix socket.
    fn no_proxies(&self) -> bool {
        let may_be_unix = |l: &ListenAddress| matches!(l, ListenAddress::Unix(_) | ListenAddress::Systemd(_));
        self.settings.trusted_proxies.is_empty() && !self.listen.iter().any(may_be_unix)
    }

    fn problems(&self) -> Vec<String> {
        let tls_only = !self.certs.is_empty()
            || !self.keys.is_empty()
            || self.client_ca.is_some()
            || self.hsts.is_some();
        let logins = &self.settings.logins;
        let anonymous = self.no_auth && self.client_ca.is_none() && logins.user_header.is_none();
        let access = &self.settings.access;
        let all = [
            (self.path.is_none(), "path: the data folder is not set: give --path DIR"),
            (
                self.cpu_profile.is_some(),
                "cpu-profile: packhouse does not profile itself: run `perf record -g -p PID` beside it",
            ),
            (
                tls_only && !self.tls,
                "tls-cert, tls-key, tls-client-ca and hsts have no effect without tls: add --tls",
            ),
            (
                self.certs.len() != self.keys.len(),
                "every tls-cert needs its tls-key: give as many of one as of the other",
            ),
            (
                (self.client_crl.is_some() || self.client_optional) && self.client_ca.is_none(),
                "tls-client-crl and tls-client-optional have no effect without tls-client-ca",
            ),
            (
                self.fresh_crl && self.client_crl.is_none(),
                "tls-client-crl-fresh has no effect without tls-client-crl",
            ),
            (
                self.client_ca.is_some() && logins.user_header.is_some(),
                "proxy-auth-username and tls-client-ca both name the user: use one of them",
            ),
            (
                logins.user_header.is_some() && logins.user_header == self.settings.client_header,
                "proxy-auth-username and proxy-header are the same header: it names a user or an address",
            ),
            (
                self.workers.is_some() && self.cpus.is_some(),
                "workers and cpus both say how many workers there are: use one of them",
            ),
            (
                anonymous && access.acl_file.is_some(),
                "acl-file needs to know users: it does not go with no-auth",
            ),
            (
                !access.users.is_empty() && access.acl_file.is_some(),
                "acl-file and [users] both say who may do what: use one of them",
            ),
            (
                self.settings.proxy_protocol && self.no_proxies(),
                "proxy-protocol has no effect without trusted-proxy: name the networks of your proxies",
            ),
            (logins.remember > logins.remember_max, "login-remember is longer than login-remember-max"),
        ];
        all.into_iter().filter(|(wrong, _)| *wrong).map(|(_, text)| text.to_owned()).collect()
    }
}

/// The server's own folder unless another is named.
pub fn default_state_dir(path: &std::path::Path) -> PathBuf {
    path.join(".packhouse")
}
