//! A server under test: started, measured, stopped.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub struct Process(Child);

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Seconds of all its threads and of children that have ended, in user mode and in the kernel.
    pub cpu: f64,
    /// Switches of its threads that live now, voluntary or not.
    pub switches: u64,
    /// Most bytes of memory at once.
    pub peak: u64,
    /// Bytes of memory now.
    pub steady: u64,
}

impl Process {
    /// Starts a server whose output nobody reads.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self(child))
    }

    /// Waits until `ready`, for at most twenty seconds.
    pub fn wait_until(&mut self, ready: impl Fn() -> bool) -> io::Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.0.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if start.elapsed() > Duration::from_secs(20) {
                return Err(io::Error::other("the server does not answer"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Forgets the peak of its memory so far.
    pub fn forget_peak(&self) {
        // Not allowed everywhere: then the peak is that of the whole run.
        std::fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5").ok();
    }

    /// What it has used so far.
    pub fn figures(&self) -> io::Result<Figures> {
        let root = format!("/proc/{}", self.0.id());
        let stat = std::fs::read_to_string(format!("{root}/stat"))?;
        let (_, rest) = stat.rsplit_once(')').ok_or_else(|| io::Error::other("no stat"))?;
        let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // utime, stime, cutime, cstime in hundredths of a second.
        let cpu = fields[11..15].iter().sum::<u64>() as f64 / 100.0;
        let status = std::fs::read_to_string(format!("{root}/status"))?;
        let mut switches = 0;
        for task in std::fs::read_dir(format!("{root}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            switches +=
                field(&text, "voluntary_ctxt_switches:") + field(&text, "nonvoluntary_ctxt_switches:");
        }
        Ok(Figures {
            cpu,
            switches,
            peak: field(&status, "VmHWM:") * 1024,
            steady: field(&status, "VmRSS:") * 1024,
        })
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gently, so that what it writes at its end is written; then not.
        Command::new("kill").arg(self.0.id().to_string()).status().ok();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A port that is free now.
pub fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What machine this is: for the head of a result.
pub fn machine(disk: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_matches([' ', ':', '\t']);
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = field(&read("/proc/meminfo"), "MemTotal:") >> 20;
    let mount = Command::new("findmnt").args(["-no", "FSTYPE", "-T"]).arg(disk).output();
    let fs =
        mount.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{count} x {model}, {memory} GiB, Linux {}, {fs}", read("/proc/sys/kernel/osrelease").trim())
}
