//! Lists the files of `dashboard/`, which are compiled into the program, in `$OUT_DIR/dashboard.rs`.

use std::fmt::Write as _;
use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=dashboard");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard");
    let mut names = Vec::new();
    // Without a dashboard there is still an API.
    if folder.is_dir() {
        walk(&folder, "", &mut names)?;
    }
    names.sort();
    let mut out = String::from("&[\n");
    for name in names {
        let path = folder.join(&name);
        writeln!(out, "    ({name:?}, include_bytes!({path:?}) as &[u8]),").map_err(std::io::Error::other)?;
    }
    out.push_str("]\n");
    let target = std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::other("no OUT_DIR"))?;
    std::fs::write(Path::new(&target).join("dashboard.rs"), out)
}

/// The files below a folder, by the addresses that they will have.
fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}
