//! What a new file takes over from the one that it replaces, beside owner and mode: ACL, `user.` attributes, security label.

use std::ffi::CStr;
use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// Something of the old file that the new one could not get.
#[derive(Debug, thiserror::Error)]
#[error("take over {attribute}")]
pub struct NotTakenOver {
    /// `owner`, `mode`, or the name of an extended attribute.
    pub attribute: String,
    pub source: io::Error,
}

/// The size that the kernel allows for a list of attributes and for a value, in bytes.
const XATTR_MAX: usize = 65_536;

/// What a list takes most often.
const XATTR_USUAL: usize = 1_024;

const ACL: &CStr = c"system.posix_acl_access";

/// Gives `new` the ACL, `user.` attributes and security label of `old`. `attempt` hears of each, by name, what came of it.
pub(super) fn take_over(new: &File, old: &File, attempt: &mut impl FnMut(&str, Result<(), Errno>) -> bool) {
    let mut list = vec![0; XATTR_USUAL];
    let mut listed = flistxattr(old, &mut list[..]);
    if listed == Err(Errno::RANGE) {
        list = vec![0; XATTR_MAX];
        listed = flistxattr(old, &mut list[..]);
    }
    let length = match listed {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return,
        Err(error) => {
            attempt("extended attributes", Err(error));
            return;
        }
    };
    let mut value = Vec::new();
    let mut has_acl = false;
    for name in
        list[..length].split_inclusive(|&byte| byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    {
        if is_taken_over(name) {
            has_acl |= name == ACL;
            value.resize(XATTR_MAX, 0);
            let copied = fgetxattr(old, name, &mut value[..])
                .and_then(|length| fsetxattr(new, name, &value[..length], XattrFlags::empty()));
            attempt(&name.to_string_lossy(), copied);
        }
    }
    if !has_acl {
        // One that came from the directory's default ACL would give others what the old file did not.
        match fremovexattr(new, ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => {
                attempt(&ACL.to_string_lossy(), Err(error));
            }
        }
    }
}

/// Attributes of the file. Those that belong to its content (capabilities, integrity sums) or to a file system's own
/// bookkeeping (`trusted.`) do not move to other content.
fn is_taken_over(name: &CStr) -> bool {
    name == ACL || name == c"security.selinux" || name.to_bytes().starts_with(b"user.")
}

#[cfg(test)]
mod tests {
    use super::super::testing::chmod;
    use super::*;
    use crate::fs::{Place, Root, meta};
    use std::fs;
    use std::path::Path;

    fn place(directory: &Path, name: &str) -> Place {
        Root::open(directory).unwrap().locate(name.as_bytes()).unwrap()
    }

    /// An ACL in the kernel's form: owner and mask rw, user 4711 as given, nothing for group and others.
    fn acl(permissions: u8) -> Vec<u8> {
        let nobody = [0xff; 4];
        let entry = |tag: u8, permissions: u8, id: [u8; 4]| [&[tag, 0, permissions, 0][..], &id].concat();
        [
            vec![2, 0, 0, 0],
            entry(1, 6, nobody),
            entry(2, permissions, 4711u32.to_le_bytes()),
            entry(4, 0, nobody),
            entry(0x10, 6, nobody),
            entry(0x20, 0, nobody),
        ]
        .concat()
    }

    fn attribute(file: &File, name: &CStr) -> Option<Vec<u8>> {
        let mut value = vec![0; 1000];
        let length = fgetxattr(file, name, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    }

    #[test]
    fn mode_acl_and_attributes_are_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        fs::write(&path, "old").unwrap();
        let old_file = File::open(&path).unwrap();
        fsetxattr(&old_file, c"user.colour", b"blue", XattrFlags::empty()).unwrap();
        fsetxattr(&old_file, ACL, &acl(4), XattrFlags::empty()).unwrap();
        chmod(&path, 0o4760);
        let place = place(directory.path(), "name");
        let old = place.metadata().unwrap().unwrap();
        let temp = place.temp(None).unwrap();
        assert!(temp.take_over(Some(&old), Some(&old_file)).is_empty());
        temp.persist(&place).unwrap();
        let new_file = File::open(&path).unwrap();
        assert_eq!(attribute(&new_file, c"user.colour").unwrap(), b"blue");
        assert_eq!(attribute(&new_file, ACL), attribute(&old_file, ACL));
        let new = place.metadata().unwrap().unwrap();
        assert_eq!((new.mode, new.uid, new.gid), (0o104_760, old.uid, old.gid));
        assert_ne!(new.inode, old.inode);
    }

    #[test]
    fn a_default_acl_gives_nobody_what_the_old_file_did_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        fs::write(&path, "old").unwrap();
        chmod(&path, 0o644);
        let opened = File::open(directory.path()).unwrap();
        fsetxattr(&opened, c"system.posix_acl_default", &acl(6), XattrFlags::empty()).unwrap();
        let place = place(directory.path(), "name");
        let mut temp = place.temp(None).unwrap();
        assert!(attribute(temp.file(), ACL).is_some(), "inherited");
        temp.take_over(place.metadata().unwrap().as_ref(), Some(&File::open(&path).unwrap()));
        assert!(attribute(temp.file(), ACL).is_none());
        assert_eq!(meta::metadata_of(temp.file()).unwrap().mode, 0o100_644);
    }
}
