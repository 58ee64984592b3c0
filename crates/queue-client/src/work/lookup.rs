//! Finds a command as `execvp` would, and this program. A worker looks before it receives a message,
//! so that one whose command is missing receives none.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// Where commands are looked for if `PATH` is not set.
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// This program, also when its file was replaced or removed since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A command that runs this program again, under the name that it was started with.
///
/// # Errors
/// If there is no /proc, and no such name in `PATH` either.
pub(super) fn this_program() -> io::Result<Command> {
    let name = env::args_os().next().unwrap_or_default();
    let path = if Path::new(THIS_PROGRAM).exists() {
        PathBuf::from(THIS_PROGRAM)
    } else {
        find(&name)?
    };
    let mut command = Command::new(path);
    command.arg0(name);
    Ok(command)
}

/// Finds a command.
///
/// # Errors
/// The error that running it would give: there is none, or it may not be executed.
pub(super) fn find(command: &OsStr) -> io::Result<PathBuf> {
    let path = env::var_os("PATH");
    find_in(command, path.as_deref().unwrap_or(OsStr::new(PATH_DEFAULT)))
}

fn find_in(command: &OsStr, path: &OsStr) -> io::Result<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return check(PathBuf::from(command));
    }
    let mut failed = io::Error::from(Errno::NOENT);
    if command.is_empty() {
        return Err(failed);
    }
    for folder in env::split_paths(path) {
        // An empty one is the working directory.
        match check(Path::new(".").join(folder).join(command)) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => failed = error,
            Err(_) => {}
        }
    }
    Err(failed)
}

fn check(path: PathBuf) -> io::Result<PathBuf> {
    if !fs::metadata(&path)?.is_file() {
        return Err(Errno::ACCESS.into());
    }
    accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_command_is_found_as_a_shell_would_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, mode) in [("a/no", 0o644), ("b/no", 0o600), ("b/yes", 0o755)] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir_all(at("a/yes")).unwrap();
        let path = env::join_paths([at("gone"), at("a"), at("b")]).unwrap();
        let find = |command: &str| find_in(OsStr::new(command), &path);
        let kind = |command: &str| find(command).unwrap_err().kind();
        assert_eq!(find("yes").unwrap(), at("b/yes"));
        let full = at("b/yes");
        assert_eq!(find(full.to_str().unwrap()).unwrap(), full);
        assert_eq!(kind("no"), io::ErrorKind::PermissionDenied);
        let folder = at("a/yes");
        assert_eq!(
            kind(folder.to_str().unwrap()),
            io::ErrorKind::PermissionDenied
        );
        for missing in ["missing", "", "./missing"] {
            assert_eq!(kind(missing), io::ErrorKind::NotFound);
        }
    }
}
