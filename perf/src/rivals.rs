//! The servers that are compared, and how each is started: with upload verification and full durability where it has them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scenario::Transport;

/// A server.
#[derive(Clone)]
pub struct Rival {
    /// Its name in the tables.
    pub name: &'static str,
    program: PathBuf,
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
    let mut all = vec![Rival { name: "packhouse", program: packhouse.into() }];
    for (name, programs) in [
        (YARDSTICK, &["restic-rest-server", "rest-server"][..]),
        ("rclone", &["rclone"]),
        ("rustic_server", &["rustic-server"]),
    ] {
        match programs.iter().find_map(|program| which(program)) {
            Some(program) => all.push(Rival { name, program }),
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
    folders.extend(unpacked.map(|entry| entry.path().join("usr/bin")));
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

impl Rival {
    /// The command that serves `data` at `address`.
    pub fn command(&self, data: &Path, address: &str, transport: Transport, pem: &Pem<'_>) -> Command {
        let mut command = Command::new(&self.program);
        let tls = transport == Transport::Tls;
        match self.name {
            "packhouse" | YARDSTICK => {
                if self.name == "packhouse" {
                    command.arg("serve");
                }
                command.args(["--no-auth", "--listen", address, "--path"]).arg(data);
                if tls {
                    command.arg("--tls").arg("--tls-cert").arg(pem.cert).arg("--tls-key").arg(pem.key);
                }
            }
            "rclone" => {
                command.args(["serve", "restic", "--addr", address]).arg(data);
                if tls {
                    command.arg("--cert").arg(pem.cert).arg("--key").arg(pem.key);
                }
            }
            _ => {
                command.args(["serve", "--no-auth", "--listen", address, "--path"]).arg(data);
                if tls {
                    command.arg("--tls").arg("--tls-cert").arg(pem.cert).arg("--tls-key").arg(pem.key);
                }
            }
        }
        command
    }
}
