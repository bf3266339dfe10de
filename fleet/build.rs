//! Lists the files of `dashboard/`, which are compiled into the program, in `$OUT_DIR/dashboard.rs`.

use std::fmt::Write as _;
use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=dashboard");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard");
    let mut names = Vec::new();
    // Without a dashboard there is still an API.
    for entry in std::fs::read_dir(&folder).into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Some(name) = entry.file_name().to_str()
        {
            names.push(name.to_owned());
        }
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
