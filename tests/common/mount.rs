//! Real file systems, mounted for a test. They need root and mount(8).
//!
//! The thread of a test has a mount namespace of its own. What it has mounted is in nobody's way (mkfs.btrfs refuses to work where a
//! dead device is mounted anywhere), and it is gone with the last process of the test, also if that was killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::{is_root, skip};

thread_local! {
    static APART: bool = unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && command("mount", &["--make-rprivate"], Path::new("/")).status().is_ok_and(|done| done.success());
}

/// Where something is mounted until this is dropped, whoever may still use it.
pub struct Point(PathBuf);

impl Drop for Point {
    fn drop(&mut self) {
        command("umount", &["--lazy"], &self.0).output().ok();
    }
}

impl Point {
    /// Where something has been mounted.
    pub fn of(point: &Path) -> Self {
        Self(point.into())
    }
}

/// A mounted file system; gone when dropped.
pub struct Mount {
    pub point: PathBuf,
    _mounted: Point,
    _dir: tempfile::TempDir,
}

/// Shows a folder at another place too.
pub fn bind(folder: &Path, at: &Path) -> Point {
    assert!(command("mount", &["--bind", folder.to_str().unwrap()], at).status().unwrap().success());
    Point(at.to_path_buf())
}

/// A folder, and one in it to mount something at. None, and loudly so, if this is not root.
pub fn place() -> Option<(tempfile::TempDir, PathBuf)> {
    if !is_root() {
        skip("mounting a file system needs root");
        return None;
    }
    if !APART.with(|apart| *apart) {
        skip("mounts of its own can't be had here");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    Some((dir, point))
}

/// Runs what a mount needs. False, and loudly so, if that can't be done here.
pub fn run(mut command: Command) -> bool {
    let output = command.output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    if !done {
        skip(&format!("{command:?}: {output:?}"));
    }
    done
}

impl Mount {
    pub fn new(prepare: impl Fn(&Path, &Path) -> Vec<Command>) -> Option<Self> {
        let (dir, point) = place()?;
        prepare(dir.path(), &point).into_iter().all(run).then_some(Self {
            _mounted: Point(point.clone()),
            point,
            _dir: dir,
        })
    }

    pub fn tmpfs(options: &str) -> Option<Self> {
        Self::new(|_, point| vec![command("mount", &["-t", "tmpfs", "-o", options, "tmpfs"], point)])
    }

    /// A file system in a file, such as `mkfs.ext4` makes it.
    pub fn image(mkfs: &str, megabytes: u64) -> Option<Self> {
        Self::new(|dir, point| {
            let image = dir.join("image");
            std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
            vec![
                command(mkfs, &["-q"], &image),
                command("mount", &["-o", "loop", image.to_str().unwrap()], point),
            ]
        })
    }

    pub fn remount(&self, options: &str) {
        assert!(command("mount", &["-o", options], &self.point).status().unwrap().success());
    }
}

pub fn command(program: &str, args: &[&str], last: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg(last);
    command
}
