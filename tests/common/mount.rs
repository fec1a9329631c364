//! Real file systems, mounted for a test. They need root and mount(8).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{is_root, skip};

/// A mounted file system; gone when dropped.
pub struct Mount {
    pub point: PathBuf,
    _dir: tempfile::TempDir,
}

/// A folder, and one in it to mount something at. None, and loudly so, if this is not root.
pub fn place() -> Option<(tempfile::TempDir, PathBuf)> {
    if !is_root() {
        skip("mounting a file system needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    Some((dir, point))
}

/// Runs what a mount needs. False, and loudly so, if that can't be done here.
pub fn run(mut command: Command) -> bool {
    // The dead device of another test may be in the way for a moment: mkfs.btrfs looks at all there are.
    for last in [false, false, true] {
        let output = command.output();
        if output.as_ref().is_ok_and(|output| output.status.success()) {
            return true;
        }
        if last {
            skip(&format!("{command:?}: {output:?}"));
        } else {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    false
}

impl Mount {
    pub fn new(prepare: impl Fn(&Path, &Path) -> Vec<Command>) -> Option<Self> {
        let (dir, point) = place()?;
        prepare(dir.path(), &point).into_iter().all(run).then_some(Self { point, _dir: dir })
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

impl Drop for Mount {
    fn drop(&mut self) {
        command("umount", &["--lazy"], &self.point).status().ok();
    }
}

pub fn command(program: &str, args: &[&str], last: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg(last);
    command
}
