//! Starts servers and speaks HTTP to them over raw sockets, so that nothing between the test and the wire is polite.
#![allow(dead_code, reason = "every test program uses its own part")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use packhouse::hash::Sha256;
use tempfile::TempDir;

pub mod mount;

pub const V2: &str = "Accept: application/vnd.x.restic.rest.v2\r\n";
/// The user and the group `nobody`.
pub const USER: u32 = 65534;
/// Where descriptors are counted: the verification opens its own at a time of its own.
pub const NO_SCRUB: &[&str] = &["--scrub-period", "0s"];
pub const DRIVERS: [&str; 2] = ["uring", "epoll"];
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test once for every I/O driver.
pub fn on_both(test: impl Fn(&'static str)) {
    for driver in DRIVERS {
        if driver == "uring"
            && let Err(e) = packhouse::io::runtime::probe_uring()
        {
            skip(&format!("io_uring driver: {e}"));
            continue;
        }
        test(driver);
    }
}

/// Says loudly that something could not be tested here. Where everything must be there, that is a failure.
pub fn skip(what: &str) {
    assert!(std::env::var_os("TEST_STRICT").is_none(), "nothing may be skipped here: {what}");
    eprintln!("\n*** SKIPPED: {what} ***\n");
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_packhouse").into()
}

pub struct Server {
    pub child: Child,
    pub addresses: Vec<String>,
    pub log: Arc<Mutex<String>>,
    pub data: PathBuf,
    dir: Option<TempDir>,
    leftover: Option<PathBuf>,
}

impl Server {
    /// A server on a folder of its own, without logins, on any port.
    pub fn start(driver: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut server = Self::on(&data, driver, flags);
        server.dir = Some(dir);
        server
    }

    /// The same on a folder that outlives it.
    pub fn on(data: &Path, driver: &str, flags: &[&str]) -> Self {
        Self::launch(Self::command(data, driver, flags), data)
    }

    /// A server that runs as an ordinary user, for what root is not held to. None, and loudly so, if this is not root.
    pub fn as_user(driver: &str, flags: &[&str]) -> Option<Self> {
        if !is_root() {
            skip("running a server as another user needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (data, copy) = (dir.path().join("data"), dir.path().join("packhouse"));
        std::fs::create_dir(&data).unwrap();
        // That user may not look into the folder where the program was built.
        std::fs::copy(program(), &copy).unwrap();
        for path in [dir.path(), &copy] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let user = USER.to_string();
        assert!(Command::new("chown").arg(format!("{user}:{user}")).arg(&data).status().unwrap().success());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(&copy);
        command.args(Self::command(&data, driver, flags).get_args());
        let mut server = Self::launch(command, &data);
        server.dir = Some(dir);
        Some(server)
    }

    pub fn command(data: &Path, driver: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(["serve", "--debug", "--io-driver", driver, "--path"]).arg(data);
        let names_users = ["--htpasswd-file", "--tls-client-ca", "--proxy-auth-username"];
        if !flags.iter().any(|flag| names_users.contains(flag)) {
            command.arg("--no-auth");
        }
        if !flags.iter().any(|flag| flag.starts_with("--listen")) {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(flags);
        command
    }

    pub fn launch(mut command: Command, data: &Path) -> Self {
        let counts = command.get_args().any(|flag| flag == "--max-size");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sink, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writeln!(sink.lock().unwrap(), "{line}").unwrap();
            }
        });
        let mut server =
            Self { child, addresses: Vec::new(), log, data: data.into(), dir: None, leftover: None };
        server.wait_for_log("start server on ");
        let text = server.text();
        server.addresses =
            text.lines().filter_map(|line| line.strip_prefix("start server on ").map(Into::into)).collect();
        // Nothing can be stored where no repository is: most tests have this one. Where quotas are exact it would be missing.
        let made = if counts { &[][..] } else { &["r1", "r1/keys"] };
        for folder in made.iter().map(|folder| data.join(folder)) {
            if std::fs::create_dir(&folder).is_ok() {
                // A filter that kills or refuses a call is for this thread, too: no call that is not needed.
                let (Ok(owner), Ok(made)) = (data.metadata(), folder.metadata()) else { continue };
                if made.uid() != owner.uid() {
                    std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
                }
            }
        }
        server
    }

    /// One that may open so many files.
    pub fn with_descriptors(most: u32, data: &Path, driver: &str, flags: &[&str]) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={most}:{most}")).arg("--").arg(program());
        command.args(Self::command(data, driver, flags).get_args());
        Self::launch(command, data)
    }

    /// Another server that runs already.
    pub fn of(child: Child, address: String, data: &Path) -> Self {
        Self {
            child,
            addresses: vec![address],
            log: Arc::default(),
            data: data.into(),
            dir: None,
            leftover: None,
        }
    }

    /// Starts a server behind `systemd-socket-activate`, which accepts the first connection to start it.
    pub fn activated(
        driver: &str,
        sockets: &[&str],
        activate: &[&str],
        flags: &[&str],
        data: &Path,
    ) -> Option<Self> {
        if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
            skip("systemd-socket-activate is not installed");
            return None;
        }
        let mut command = Command::new("systemd-socket-activate");
        command.args(sockets.iter().map(|socket| format!("--listen={socket}"))).args(activate);
        command
            .arg(program())
            .args(["serve", "--debug", "--no-auth", "--io-driver", driver, "--path"])
            .arg(data);
        command.args(flags);
        let first = sockets[0].to_owned();
        let poke = std::thread::spawn(move || {
            // Whoever connects first starts the server.
            let mut ready = false;
            for _ in 0..400 {
                ready = if first.starts_with('/') {
                    std::os::unix::net::UnixStream::connect(&first).is_ok()
                } else {
                    TcpStream::connect(&first).is_ok()
                };
                if ready {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(ready);
        });
        let server = Self::launch(command, data);
        poke.join().unwrap();
        Some(server)
    }

    /// Removes the folder in which its data folder lies, when it is dropped.
    pub fn remove_at_end(&mut self) {
        self.leftover = self.data.parent().map(Path::to_path_buf);
    }

    /// Another server as this one's user, by the same copy of the program, on the same folder.
    pub fn again(&self, driver: &str, flags: &[&str]) -> Self {
        let user = USER.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        command.arg(self.data.parent().unwrap().join("packhouse"));
        command.args(Self::command(&self.data, driver, flags).get_args());
        Self::launch(command, &self.data)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn text(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Lines of the log with this in them.
    pub fn request_count(&self, what: &str) -> usize {
        self.text().lines().filter(|line| line.contains(what)).count()
    }

    /// The worker that served the request with this in its line of the log: by the begin of its id.
    pub fn worker_of(&self, what: &str) -> String {
        self.wait_for_log(what);
        let text = self.text();
        let line = text.lines().find(|line| line.contains(what)).unwrap();
        line.split(" id=").nth(1).unwrap().split('-').next().unwrap().to_owned()
    }

    /// Lets every connection ask for something, and tells how many of them each worker served.
    pub fn workers_of<S: Read + Write>(&self, conns: &mut [Conn<S>]) -> Vec<usize> {
        static ROUND: AtomicUsize = AtomicUsize::new(0);
        let round = ROUND.fetch_add(1, Ordering::Relaxed);
        let mut served = BTreeMap::<String, usize>::new();
        for (n, conn) in conns.iter_mut().enumerate() {
            let path = format!("/round{round}-{n}/config");
            assert_eq!(conn.request("HEAD", &path, "", b"").status, 404);
            *served.entry(self.worker_of(&path)).or_default() += 1;
        }
        served.into_values().collect()
    }

    pub fn wait_for_log(&self, what: &str) {
        let pid = self.pid();
        wait_for(&format!("`{what}` in the log of {pid}"), || {
            assert!(
                std::fs::read_link(format!("/proc/{pid}/exe")).is_ok() || self.text().contains(what),
                "the server ended:\n{}",
                self.text()
            );
            self.text().contains(what)
        });
    }

    pub fn connect(&self) -> Conn {
        Conn::new(TcpStream::connect(&self.addresses[0]).unwrap())
    }

    /// One request on a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        self.connect().request(method, path, headers, body)
    }

    pub fn status(&self, method: &str, path: &str, body: &[u8]) -> u16 {
        self.request(method, path, "", body).status
    }

    pub fn create(&self, repo: &str) {
        assert_eq!(self.status("POST", &format!("{repo}?create=true"), b""), 200);
    }

    /// Stores a blob; returns its path.
    pub fn store(&self, repo: &str, kind: &str, body: &[u8]) -> String {
        self.create(repo);
        let path = format!("{repo}{kind}/{}", id_of(body));
        let response = self.request("POST", &path, "", body);
        assert_eq!(response.status, 200, "{}", response.text());
        path
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// Stops it with SIGTERM and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the server does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Bytes of memory, `VmRSS` now or `VmHWM` at the most.
    pub fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// All files below the data folder, but for the server's own.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = files(&self.data)
            .iter()
            .map(|path| path.strip_prefix(&self.data).unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub fn mode(&self, path: &str) -> u32 {
        std::fs::metadata(self.data.join(path)).unwrap().permissions().mode() & 0o7777
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What the server has to say about it may be on its way.
            std::thread::sleep(Duration::from_millis(200));
        }
        let ended = self.child.try_wait().ok().flatten();
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(leftover) = &self.leftover {
            std::fs::remove_dir_all(leftover).ok();
        }
        if let Some(status) = ended
            && std::thread::panicking()
        {
            eprintln!("the server had ended: {status}");
        }
        if std::thread::panicking() {
            let text = self.text();
            let tail: Vec<_> = text.lines().rev().take(40).collect();
            eprintln!(
                "--- the end of the server's log ---\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// A password file with these users, all with the password "pw".
pub fn users(dir: &Path, names: &[&str]) -> String {
    let hash = bcrypt::hash("pw", 4).unwrap();
    let file = dir.join("users");
    std::fs::write(&file, names.iter().map(|name| format!("{name}:{hash}\n")).collect::<String>()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// An address of this machine whose port is free now.
pub fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            found.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// All files below a data folder, but for the server's own.
pub fn files(data: &Path) -> Vec<PathBuf> {
    let mut found = walk(data);
    found.retain(|path| path.is_file() && !path.starts_with(data.join(".packhouse")));
    found
}

/// Where the object of a request's path lies.
pub fn place(data: &Path, path: &str) -> PathBuf {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if let [.., "data", name] = *parts.as_slice() {
        parts.insert(parts.len() - 1, &name[..2]);
    }
    data.join(parts.join("/"))
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn id_of(body: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::of(body))
}

/// A header that logs in.
pub fn login(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {text}\r\n")
}

/// Bytes that look random and are always the same.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// One connection, raw.
pub struct Conn<S = TcpStream> {
    pub stream: S,
    received: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The entries of a list, sorted.
    pub fn names(&self) -> Vec<String> {
        let text = self.text();
        let mut names: Vec<_> = text.split('"').filter(|part| part.len() == 64).map(Into::into).collect();
        names.sort();
        names
    }
}

/// Gives a stream its time limits.
pub fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Conn {
    pub fn new(stream: TcpStream) -> Self {
        Self::over(patient(stream))
    }

    /// Ends the sending direction.
    pub fn finish(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }
}

impl<S: Read + Write> Conn<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends the head of an upload and the first `sent` bytes of its body.
    pub fn begin_upload(&mut self, path: &str, headers: &str, body: &[u8], sent: usize) {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        ));
        self.send(&body[..sent]);
    }

    /// Sends what the server still takes.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        let length = if body.is_empty() && method != "POST" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let length = if headers.contains("Transfer-Encoding") { String::new() } else { length };
        self.send(
            [format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{length}{headers}\r\n").as_bytes(), body]
                .concat(),
        );
        self.response_to(method)
    }

    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads one response.
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method).unwrap_or_else(|| panic!("the connection ended without a response"))
    }

    pub fn try_response_to(&mut self, method: &str) -> Option<Response> {
        let end = loop {
            match self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if !self.read_more() => return None,
                None => {}
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = match (headers.get("content-length"), headers.get("transfer-encoding")) {
            _ if method == "HEAD" || status < 200 || status == 304 => Vec::new(),
            (Some(length), None) => self.take(length.parse().unwrap())?,
            (None, Some(_)) => self.chunks()?,
            _ => {
                while self.read_more() {}
                std::mem::take(&mut self.received)
            }
        };
        Some(Response { status, headers, body })
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.received.windows(2).position(|window| window == b"\r\n") {
                    Some(at) => break at,
                    None if !self.read_more() => return None,
                    None => {}
                }
            };
            let line: Vec<u8> = self.received.drain(..end + 2).collect();
            let size = usize::from_str_radix(std::str::from_utf8(&line[..end]).unwrap(), 16).unwrap();
            body.extend(self.take(size)?);
            assert_eq!(self.take(2)?, b"\r\n");
            if size == 0 {
                return Some(body);
            }
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            if !self.read_more() {
                return None;
            }
        }
        Some(self.received.drain(..count).collect())
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend(&buffer[..count]);
                true
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server is silent")
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => self.read_more(),
            Err(_) => false,
        }
    }

    /// Whether the server ends the connection without another byte.
    pub fn is_ended(&mut self) -> bool {
        self.received.is_empty() && !self.read_more()
    }
}
