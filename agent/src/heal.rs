//! What is cured without hands before an install. What belongs to a package manager is its own file's; what the transaction
//! itself mends, its own.

use std::path::Path;

use host::file;

use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::plan::Plan;
use crate::restore::Mounts;

/// The least that a kernel takes in /boot: image, initial file system, symbols and configuration.
const LEAST_KERNEL: u64 = 64 * 1024 * 1024;

/// What packages with a kernel in them are called: those of Debian and Ubuntu, and of RPM nodes.
const KERNELS: [&str; 3] = ["linux-image-", "kernel", "kernel-core"];

/// Where a plan brings a kernel and /boot, a file system of its own, has no room for it: removes old kernels as the
/// distribution itself would. Whether there was anything to do.
///
/// # Errors
/// Deferred, if there is still no room.
pub fn make_room_for_kernels(node: &Node, plan: &Plan) -> Result<bool> {
    let brings_kernel = plan.changes.iter().any(|change| {
        KERNELS.iter().any(|kernel| match kernel.ends_with('-') {
            true => change.name.starts_with(kernel),
            false => change.name == *kernel,
        })
    });
    let mounts = Mounts::read(&node.root);
    if !brings_kernel || mounts.at("/boot").is_none() {
        return Ok(false);
    }
    let boot = node.root.join("boot");
    let needed = kernel_size(&boot);
    if file::free_space(&boot)? >= needed {
        return Ok(false);
    }
    let removed = node.package_manager()?.remove_old_kernels()?;
    let free = file::free_space(&boot)?;
    if free >= needed {
        return Ok(removed > 0);
    }
    let what = format!(
        "{}: a kernel needs about {} MiB and {} MiB are free; {removed} old kernels were removed, and the distribution \
         gives up no more",
        boot.display(),
        needed / 1024 / 1024,
        free / 1024 / 1024
    );
    Err(Error::new(Exit::Deferred, what, "remove kernels by hand; it is tried again by itself"))
}

/// What one more kernel takes: as much as the largest files of those that are there, and a little more. The initial file
/// system is written aside first, so it counts twice.
fn kernel_size(boot: &Path) -> u64 {
    let largest = |prefixes: &[&str]| {
        let entries = std::fs::read_dir(boot).into_iter().flatten().flatten();
        entries
            .filter(|e| prefixes.iter().any(|p| e.file_name().to_string_lossy().starts_with(p)))
            .filter_map(|e| e.metadata().ok().map(|meta| meta.len()))
            .max()
            .unwrap_or(0)
    };
    let (image, initial) = (largest(&["vmlinuz"]), largest(&["initrd", "initramfs"]));
    (image + largest(&["System.map"]) + 2 * initial + (image + initial) / 10).max(LEAST_KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_takes_what_those_that_are_there_take() {
        let folder = std::env::temp_dir().join(format!("prestage-kernels-{}", std::process::id()));
        file::make_folder(&folder, 0o755).unwrap();
        assert_eq!(kernel_size(&folder), LEAST_KERNEL);
        for (name, size) in
            [("vmlinuz-6.1", 10 << 20), ("initrd.img-6.1", 100 << 20), ("initrd.img-6.0", 90 << 20)]
        {
            std::fs::File::create(folder.join(name)).unwrap().set_len(size).unwrap();
        }
        assert_eq!(kernel_size(&folder), (10 + 200 + 11) << 20);
        file::remove(&folder).unwrap();
    }
}
