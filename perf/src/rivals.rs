//! The servers that are compared, and how each is started: with upload verification and full durability where it has them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scenario::{Transport, Variant, Work};

/// A server.
#[derive(Clone)]
pub struct Rival {
    /// Its name in the tables.
    pub name: String,
    program: PathBuf,
    /// Which server it is, and the program that is packhouse.
    kind: &'static str,
    packhouse: PathBuf,
    /// What it is told beside what all are told.
    args: Vec<String>,
    /// Clients log in.
    pub login: bool,
}

/// A certificate and its key.
pub struct Pem<'p> {
    pub cert: &'p Path,
    pub key: &'p Path,
}

/// The one that all others are measured against.
pub const YARDSTICK: &str = "rest-server";

/// All servers that were found; the others are named loudly.
pub fn find(packhouse: &Path) -> Vec<Rival> {
    let new = |kind: &'static str, program| Rival {
        name: kind.to_owned(),
        program,
        kind,
        packhouse: packhouse.into(),
        args: Vec::new(),
        login: false,
    };
    let mut all = vec![new("packhouse", packhouse.into())];
    for (name, programs) in [
        (YARDSTICK, &["restic-rest-server", "rest-server"][..]),
        ("rclone", &["rclone"]),
        ("rustic_server", &["rustic-server"]),
        ("pyrestserver", &["pyrestserver"]),
        ("monoio-http", &["packhouse-perf-monoio-http"]),
        ("nginx", &["nginx"]),
    ] {
        match programs.iter().find_map(|program| which(program)) {
            Some(program) => all.push(new(name, program)),
            None => eprintln!(
                "*** {name} WAS NOT FOUND (on PATH or below target/clients): it is not compared ***"
            ),
        }
    }
    all
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients");
    let unpacked = std::fs::read_dir(clients).into_iter().flatten().flatten();
    folders.extend(unpacked.flat_map(|entry| [entry.path().join("usr/bin"), entry.path().join("bin")]));
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/perf/monoio-http/release"));
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Gets the rivals, which takes some minutes the first time.
pub fn prepare() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("prepare");
    if !Command::new(script).status().is_ok_and(|status| status.success()) {
        eprintln!("*** perf/prepare FAILED ***");
    }
}

impl Rival {
    /// What it says of its version.
    pub fn version(&self) -> String {
        let output = match self.kind {
            "monoio-http" => None,
            "nginx" => Command::new(&self.program).arg("-v").output().ok(),
            _ => Command::new(&self.program).arg("--version").output().ok(),
        };
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(self.kind).to_owned()
    }

    /// The same server, told something else.
    pub fn variant(&self, variant: &Variant) -> Self {
        let name = format!("{} {}", self.name, variant.name);
        Self { name, args: variant.args.clone(), login: variant.login, ..self.clone() }
    }

    /// Whether nothing can be compared without it.
    pub fn is_needed(&self) -> bool {
        ["packhouse", YARDSTICK].contains(&self.kind)
    }

    /// Whether it is made for this.
    pub fn can(&self, work: Work) -> bool {
        match self.kind {
            "monoio-http" => !matches!(work, Work::List | Work::Fleet | Work::Restic),
            "nginx" => matches!(work, Work::Get | Work::Range | Work::Head),
            _ => true,
        }
    }

    /// Makes in `data` what the server wants to find there.
    pub fn prepare(&self, data: &Path) -> io::Result<()> {
        if self.kind != "rustic_server" {
            return Ok(());
        }
        // It lets nobody into a repository that has no table, not even without logins: then the user has no name.
        let names = (0..2000).map(|n| format!("r{n}")).chain((0..16).map(|n| format!("c{n}")));
        let tables: String = names.map(|name| format!("[{name}]\n\"\" = \"Modify\"\n")).collect();
        std::fs::write(data.join("acl.toml"), tables)
    }

    /// The command that serves `data` at `address`; none if it can't be reached so.
    pub fn command(
        &self,
        data: &Path,
        address: &str,
        transport: Transport,
        pem: &Pem<'_>,
        passwords: &Path,
    ) -> Option<Command> {
        let mut command = Command::new(&self.program);
        if self.kind == "nginx" {
            command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx"));
        }
        let tls = transport == Transport::Tls;
        match self.kind {
            "rclone" => {
                let address = address.replace("unix:", "unix://");
                command.args(["serve", "restic", "--addr", &address]).arg(data);
                if tls {
                    command.arg("--cert").arg(pem.cert).arg("--key").arg(pem.key);
                }
            }
            "monoio-http" if transport == Transport::Tcp => {
                command.arg(address).arg(data);
            }
            "nginx" if transport == Transport::Tcp => {
                command.arg(&self.packhouse).arg(address).arg(data);
            }
            "monoio-http" | "nginx" => return None,
            kind => {
                if ["rustic_server", "pyrestserver"].contains(&kind) && transport == Transport::Unix {
                    return None;
                }
                if kind != YARDSTICK {
                    command.arg("serve");
                }
                if self.login {
                    command.arg("--htpasswd-file").arg(passwords);
                } else {
                    command.arg("--no-auth");
                }
                command.args(["--listen", address, "--path"]).arg(data);
                if tls {
                    command.arg("--tls").arg("--tls-cert").arg(pem.cert).arg("--tls-key").arg(pem.key);
                }
            }
        }
        command.args(&self.args);
        Some(command)
    }
}
