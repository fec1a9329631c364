//! Disks whose power can be cut: a file system on a loop device that is shut down without a flush, or a block device that
//! logs every write, of which what came after the last flush survives in part. And one that answers with errors.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::mount::{self, command, run};
use crate::common::{noise, skip, wait_for};

/// Bytes of a disk: btrfs wants some room.
const DISK_BYTES: u64 = 3 << 30;
const SECTOR: u64 = 512;
/// Operations a second of a slow disk: a flush of a file system takes it seconds.
const SLOW_IOPS: u32 = 15;
/// What the daemon needs to write down what it has done.
const SETTLE: Duration = Duration::from_millis(500);
/// The log of writes, as dm-log-writes has it: a superblock, then entries of a sector and their data.
const LOG_MAGIC: u64 = 0x006a_7366_7773_6872;
/// A node before the image whose file can be another one later.
const FRONT: &str = "driver=throttle,node-name=front,file=image,throttle-group=limit";
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// How the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The file system is told to stop and to flush nothing.
    Shutdown,
    /// The device is gone; what was written after the last flush may have arrived or not.
    Block,
    /// It is slow all the time, and then gone.
    Slow,
    /// It answers with errors when [`Disk::fail`] says so. A journal of the file system would end at the first one,
    /// so there is none.
    Faulty,
}

/// What a faulty disk fails at, as blkdebug calls it, and whether only once: the kernel itself tries a read again.
const FAULTS: [(&str, bool); 3] = [("read", false), ("write", true), ("flush", true)];

/// A mounted file system.
pub struct Disk {
    dir: tempfile::TempDir,
    pub point: PathBuf,
    cut: Cut,
    daemon: Option<Child>,
    /// Bytes of the log when the power went.
    log_end: u64,
}

impl Disk {
    /// A new, empty one. None, and loudly so, where it can't be had.
    pub fn new(file_system: &str, cut: Cut) -> Option<Self> {
        let (dir, point) = mount::place()?;
        let mut disk = Self { dir, point, cut, daemon: None, log_end: 0 };
        let image = disk.path("image");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let features: &[&str] = if cut == Cut::Faulty { &["-q", "-O", "^has_journal"] } else { &["-q"] };
        if !run(command(&format!("mkfs.{file_system}"), features, &image)) {
            return None;
        }
        let device = match cut {
            Cut::Shutdown => image,
            Cut::Block | Cut::Slow | Cut::Faulty => disk.through_a_daemon()?,
        };
        run(command("mount", &["-o", "loop", device.to_str().unwrap()], &disk.point)).then_some(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a daemon before the image that logs every write, or makes all of them wait.
    fn through_a_daemon(&mut self) -> Option<PathBuf> {
        let (image, log, device) = (self.path("image"), self.path("log"), self.path("device"));
        // The log tells what came after this state.
        if !run(command("cp", &["--sparse=always", image.to_str().unwrap()], &self.path("before"))) {
            return None;
        }
        File::create(&log).unwrap();
        File::create(&device).unwrap();
        let node = |name: &str, path: &Path| {
            format!("driver=file,node-name={name},filename={},discard=unmap", path.display())
        };
        let mut command = Command::new("qemu-storage-daemon");
        command.args(["--blockdev", &node("image", &image)]);
        match self.cut {
            Cut::Slow => {
                command.args(["--object", &format!("throttle-group,id=limit,x-iops-total={SLOW_IOPS}")]);
                command.args(["--blockdev", FRONT]);
            }
            Cut::Faulty => {
                command.args(["--object", "throttle-group,id=limit"]);
                for (fault, once) in FAULTS {
                    let rule = format!(r#"{{"event":"none","iotype":"{fault}","errno":5,"once":{once}}}"#);
                    let node = format!(
                        r#"{{"driver":"blkdebug","node-name":"{fault}","image":"image","inject-error":[{rule}]}}"#
                    );
                    command.args(["--blockdev", &node]);
                }
                command.args(["--blockdev", FRONT]);
                let socket = format!("socket,path={},server=on,wait=off,id=qmp", self.path("qmp").display());
                command.args(["--chardev", &socket, "--monitor", "chardev=qmp"]);
            }
            Cut::Shutdown | Cut::Block => {
                command.args(["--blockdev", &node("log", &log)]);
                command.args(["--blockdev", "driver=blklogwrites,node-name=front,file=image,log=log"]);
            }
        }
        let daemon = command
            .arg("--export")
            .arg(format!("type=fuse,id=device,node-name=front,writable=on,mountpoint={}", device.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(daemon) = daemon else {
            skip("qemu-storage-daemon is not installed");
            return None;
        };
        self.daemon = Some(daemon);
        wait_for("the block device", || {
            device.metadata().is_ok_and(|meta| meta.len() == DISK_BYTES)
                || self.daemon.as_mut().is_some_and(|daemon| daemon.try_wait().unwrap().is_some())
        });
        if device.metadata().is_ok_and(|meta| meta.len() == DISK_BYTES) {
            return Some(device);
        }
        let mut text = String::new();
        self.daemon.as_mut()?.stderr.as_mut()?.read_to_string(&mut text).ok();
        skip(&format!("a block device behind qemu-storage-daemon: {text}"));
        None
    }

    /// Lets nothing of a file be in memory, nor of the device below.
    pub fn forget(&self, file: &Path) {
        for path in [file, &self.path("device")] {
            let file = format!("if={}", path.display());
            let done = command("dd", &["iflag=nocache", "count=0", "status=none"], Path::new(&file)).status();
            assert!(done.unwrap().success());
        }
    }

    /// Answers the next `write` or `flush` of the device with EIO, or every `read`.
    pub fn fail(&self, fault: &str) {
        self.put_in_front(fault);
    }

    /// Answers as it should.
    pub fn heal(&self) {
        self.put_in_front("image");
    }

    fn put_in_front(&self, node: &str) {
        let mut qmp = BufReader::new(UnixStream::connect(self.path("qmp")).unwrap());
        let reopen = format!(
            r#"{{"execute":"blockdev-reopen","arguments":{{"options":[{{"driver":"throttle","node-name":"front","throttle-group":"limit","file":"{node}"}}]}}}}"#
        );
        let mut line = String::new();
        qmp.read_line(&mut line).unwrap();
        for order in [r#"{"execute":"qmp_capabilities"}"#, &reopen] {
            writeln!(qmp.get_mut(), "{order}").unwrap();
            line.clear();
            qmp.read_line(&mut line).unwrap();
            assert!(line.contains("\"return\""), "{order}: {line}");
        }
    }

    /// Cuts the power.
    pub fn cut(&mut self) {
        match self.cut {
            Cut::Shutdown => {
                let done = command("xfs_io", &["-x", "-c", "shutdown"], &self.point).output().unwrap();
                assert!(done.status.success(), "{done:?}");
            }
            Cut::Block | Cut::Slow | Cut::Faulty => {
                // What is in the log by now counts, once all of it is written.
                self.log_end = self.path("log").metadata().unwrap().len();
                std::thread::sleep(SETTLE);
                let mut daemon = self.daemon.take().expect("it runs until the cut");
                daemon.kill().unwrap();
                daemon.wait().unwrap();
            }
        }
    }

    /// The power is back: mounts what is left. Nothing may use the old mount any more.
    pub fn restore(&self, seed: u64) {
        self.unmount();
        let mut image = self.path("image");
        if self.cut == Cut::Block {
            command("umount", &["--lazy"], &self.path("device")).output().ok();
            replay(&self.path("log"), self.log_end, &self.path("before"), seed);
            image = self.path("before");
        }
        assert!(
            run(command("mount", &["-o", "loop", image.to_str().unwrap()], &self.point)),
            "it can't be mounted"
        );
    }

    fn unmount(&self) {
        wait_for("the file system to be unmounted", || {
            command("umount", &[], &self.point).output().unwrap().status.success()
                || !command("mountpoint", &["-q"], &self.point).status().unwrap().success()
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        command("umount", &["--lazy"], &self.point).output().ok();
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        command("umount", &["--lazy"], &self.path("device")).output().ok();
    }
}

/// Applies the log of writes to an image: all up to the last flush, and of the rest any part.
fn replay(log: &Path, end: u64, image: &Path, seed: u64) {
    let log = File::open(log).unwrap();
    let image = File::options().write(true).open(image).unwrap();
    let number = |offset: u64| {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, offset).map(|()| u64::from_le_bytes(bytes)).unwrap_or(0)
    };
    // Nothing stands there before the first flush.
    assert!([0, LOG_MAGIC].contains(&number(0)), "no log of writes");
    let (mut entries, mut at) = (Vec::new(), SECTOR);
    while at + SECTOR <= end {
        let (sector, sectors, flags) = (number(at), number(at + 8), number(at + 16));
        if (sector, sectors, flags) == (0, 0, 0) {
            break;
        }
        let data = at + SECTOR;
        at = if flags & DISCARD == 0 { data + sectors * SECTOR } else { data };
        entries.push((sector, sectors, flags, data));
    }
    let durable = entries.iter().rposition(|entry| entry.2 & FLUSH != 0).map_or(0, |last| last + 1);
    let coins = noise(entries.len(), seed + 1);
    let mut bytes = Vec::new();
    for (n, (sector, sectors, flags, data)) in entries.into_iter().enumerate() {
        let survives = n < durable || flags & FUA != 0 || coins[n].is_multiple_of(2);
        if survives && flags & DISCARD == 0 && sectors > 0 {
            bytes.resize((sectors * SECTOR) as usize, 0);
            log.read_exact_at(&mut bytes, data).unwrap();
            image.write_all_at(&bytes, sector * SECTOR).unwrap();
        }
    }
    println!("{durable} writes up to the last flush, {} after it", coins.len() - durable);
}
