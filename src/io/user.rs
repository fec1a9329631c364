//! The user that the process runs as.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::Path;

use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setgid, setuid};

/// A user of this machine.
#[derive(Clone, Debug)]
pub struct ServiceUser(User);

impl ServiceUser {
    /// The user of this name or number.
    ///
    /// # Errors
    /// There is none.
    pub fn find(name: &str) -> io::Result<Self> {
        let found = match name.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number))?,
            Err(_) => User::from_name(name)?,
        };
        found.map(Self).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such user"))
    }

    /// Whether the process runs as this user already.
    pub fn is_current(&self) -> bool {
        self.0.uid == geteuid()
    }

    /// Makes this user the owner of a file or folder, of a symbolic link itself.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.0.uid.as_raw()), Some(self.0.gid.as_raw()))
    }

    /// Lets this user read a file that was made for it, by its group, unless it belongs to this user already.
    ///
    /// # Errors
    /// Also of a symbolic link.
    pub fn let_read(&self, path: &Path) -> io::Result<()> {
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let meta = file.metadata()?;
        if meta.uid() == self.0.uid.as_raw() {
            return Ok(());
        }
        if meta.nlink() != 1 {
            return Err(io::Error::other("it has several names (hard links)"));
        }
        fchown(&file, None, Some(self.0.gid.as_raw()))?;
        file.set_permissions(PermissionsExt::from_mode(0o640))
    }

    /// Becomes this user with all groups of it, for good, in all threads.
    ///
    /// # Errors
    /// Only root can, and it must not have been root in the end.
    pub fn become_it(&self) -> io::Result<()> {
        let name = std::ffi::CString::new(self.0.name.as_str())?;
        initgroups(&name, self.0.gid)?;
        setgid(self.0.gid)?;
        setuid(self.0.uid)?;
        if !self.0.uid.is_root() && (setuid(Uid::from_raw(0)).is_ok() || setgid(Gid::from_raw(0)).is_ok()) {
            return Err(io::Error::other("root could be had again"));
        }
        Ok(rustix::thread::set_no_new_privs(true)?)
    }
}

impl fmt::Display for ServiceUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (uid {}, gid {})", self.0.name, self.0.uid, self.0.gid)
    }
}

/// Whether the process may do everything.
pub fn is_root() -> bool {
    geteuid().is_root()
}
