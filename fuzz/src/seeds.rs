//! Writes the seeds: small inputs that reach behind the first checks, from the golden files and from what the format
//! itself writes.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use format::container::{Encoding, Entry, write_deflated, write_stored};
use format::delta::{Header, Stream};
use format::time::UnixTime;
use lzma_rust2::{LzmaOptions, LzmaWriter};
use prestage_fuzz::{Role, sign};

/// Input of the target `delta`: a base of 1,000 bytes, a patch with these steps and so many differences and new bytes.
fn delta(steps: &[u8], differences: usize, new: usize, target: u16) -> io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    let mut pack = |bytes: &[u8]| -> io::Result<Stream> {
        let options = LzmaOptions { dict_size: 4096, ..LzmaOptions::with_preset(6) };
        let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
        writer.write_all(bytes)?;
        let bytes_packed = if bytes.is_empty() { Vec::new() } else { writer.finish()? };
        packed.extend_from_slice(&bytes_packed);
        Ok(Stream { properties: 93, packed: bytes_packed.len() as u64, open: bytes.len() as u64 })
    };
    let content: Vec<u8> = (0..=255).collect();
    let streams = [pack(steps)?, pack(&content[..differences])?, pack(&content[..new])?];
    let header = Header { target: target.into(), base: 1000, streams };
    Ok([&target.to_le_bytes()[..], &1000u16.to_le_bytes(), &header.to_bytes(), &packed].concat())
}

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = folder.join("../format/tests/data");
    let put = |target: &str, name: &str, bytes: &[u8]| -> io::Result<()> {
        let to = folder.join("seeds").join(target);
        fs::create_dir_all(&to)?;
        fs::write(to.join(name), bytes)
    };

    for (target, name) in [
        ("index", "index-v1.json"),
        ("index", "index-v1-deltas.json"),
        ("documents", "report-v1.json"),
        ("documents", "status-v1.json"),
    ] {
        put(target, name, &fs::read(golden.join(name))?)?;
    }
    let golden_envelope = fs::read(golden.join("envelope-v1.json"))?;
    put("envelope", "sealed", &golden_envelope)?;
    put("envelope", "batch", &format::envelope::write_batch(std::slice::from_ref(&golden_envelope)))?;
    let sealed = format::json::Json::parse(golden_envelope.trim_ascii()).ok();
    let signed = sealed.and_then(|envelope| envelope.member("signed").map(format::json::Json::to_text));
    put("envelope", "enrollment", &signed.unwrap_or_default())?;
    put("envelope", "report", &fs::read(golden.join("report-v1.json"))?)?;
    let status = fs::read(golden.join("status-v1.json"))?;
    let sent = format::envelope::SentStatus::write(&status, UnixTime(1_795_411_753), None);
    put("envelope", "status", &sent.unwrap_or_default())?;
    put("envelope", "answer", br#"{"accepted":["2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"],"refused":[{"id":"1e6ed65d77d6364eeaed5a745ba5c4985ae2b700dd85d7cf7f027bdf294a33fc","reason":"r"}],"wantsInventory":[]}"#)?;
    let packages = format::inventory::Inventory::from_text("bash amd64 5.2\nlibc6 amd64 2.36-9\n");
    let inventory = "node-1".parse().map(|node| {
        let document = format::envelope::NodeInventory::new(node, &packages, UnixTime(1_795_411_753));
        serde_json::to_vec(&document).unwrap_or_default()
    });
    put("envelope", "inventory", &inventory.unwrap_or_default())?;
    let policy = |name: &str| fs::read(golden.join("policy").join(name));
    for name in ["minimal.json", "design.json", "maximal.json"] {
        put("policy", name, &policy(name)?)?;
    }
    put("rollout", "maximal", &fs::read(golden.join("rollout-v1.json"))?)?;
    put("rollout", "minimal", b"{\"apiVersion\":\"patchmgmt.io/v1\",\"bundleVersion\":\"1\",\"kind\":\"RolloutPlan\",\"policy\":\"a/b\",\"startedAt\":\"2026-11-23T00:00:00Z\",\"state\":\"running\",\"steps\":[{\"notBefore\":\"2026-11-23T00:00:00Z\",\"upTo\":1000000}]}\0till-7")?;
    put("policy", "pair", &[&policy("design.json")?, &b"\0"[..], &policy("maximal.json")?].concat())?;
    put("policy", "all-at-once", br#"{"apiVersion":"patchmgmt.io/v1","kind":"PatchPolicy","metadata":{"name":"b"},"spec":{"bundleRef":{"version":"1","checksum":"sha256:abc123"},"rolloutStrategy":{"type":"AllAtOnce"},"targets":{"selector":{"matchExpressions":[{"key":"r","operator":"NotIn","values":["1","2"]}]}},"transfer":{"rate":"unlimited"}}}"#)?;
    put("index", "small", br#"{"apiVersion":"patchmgmt.io/v1","bundle":{"length":99,"path":"b","sha256":"1e6ed65d77d6364eeaed5a745ba5c4985ae2b700dd85d7cf7f027bdf294a33fc"},"created":"2026-11-23T05:29:13Z","cycle":"c","family":"rpm","kind":"BundleIndex","members":[{"kind":"metadata","path":"Packages","sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":7,"sources":[{"kind":"torrent"},{"encoding":"deflate","kind":"whole","length":99,"offset":0}]}],"variant":"v","version":"1"}"#)?;
    let shipped = fs::read(folder.join("../packaging/config/agent.toml"))?;
    // All that is commented out there, set.
    let is_set = |line: &str| line.split_whitespace().nth(2) == Some("=");
    let set: Vec<String> = String::from_utf8_lossy(&shipped)
        .lines()
        .map(|line| if is_set(line) { line.trim_start_matches("# ").to_owned() } else { line.to_owned() })
        .collect();
    let set = set.join("\n");
    put("config", "shipped", &[b"0123", shipped.as_slice()].concat())?;
    for (n, section) in set.split("\n[").enumerate().skip(1) {
        put("config", &format!("section-{n}"), format!("\0\0\0\x60[{section}").as_bytes())?;
    }
    put("config", "windows", b"\0\0\0\x68schedule.maintenance-window = ['Mon-Fri 22:00-05:30', '02:00-04:00']\n###\nfetch.rate = '2Mbit/s'\n")?;

    for (name, steps, differences, new, target) in [
        ("copy", &[0, 100, 0, 0][..], 0, 0, 100),
        ("all", &[20, 30, 40, 10, 5, 70, 0, 1][..], 40, 11, 151),
        ("backwards", &[0, 100, 0, 0, 0xc7, 1, 100, 0, 0][..], 0, 0, 200),
        ("new", &[0, 0, 0, 90][..], 0, 90, 90),
    ] {
        put("delta", name, &delta(steps, differences, new, target)?)?;
    }
    let digest = format::digest::Sha256::of(b"x").to_string();
    let bundle = format!(r#"{{"version":"20261123-1","cycle":"2026-11","serial":1,"index":"{digest}"}}"#);
    let change = r#"{"name":"a","arch":"amd64","from":"1","to":"2"}"#;
    for (n, state) in [
        r#"{"name":"staged"}"#,
        r#"{"name":"installing"}"#,
        r#"{"name":"rollingBack","cause":"healthCheck"}"#,
        r#"{"name":"awaitingReboot","cause":"install"}"#,
        r#"{"name":"finished","end":"installed"}"#,
    ]
    .iter()
    .enumerate()
    {
        put("journal", &format!("journal-{n}"), format!(r#"{{"version":1,"id":"0123456789ab","bundle":{bundle},"started":"2026-11-23T05:29:13Z","state":{state},"packages":["{digest}"],"changes":[{change}],"health":{{"url":null,"timeout_seconds":120}},"restore_point":null,"message":"why"}}"#).as_bytes())?;
    }
    put("journal", "plan", format!(r#"{{"version":2,"bundle":{bundle},"fingerprint":"{digest}","everything":false,"packages":["{digest}"],"bytes_needed":1,"bundle_bytes":2,"disk_bytes":3,"changes":[{change}],"kept_back":["b"],"half_done":["c"]}}"#).as_bytes())?;
    put("journal", "quarantine", format!(r#"[{{"bundle":{bundle},"step":"fetch","since":"2026-11-23T05:29:13Z","exitCode":2,"reason":"r","ends":"verified","wayOut":"w"}}]"#).as_bytes())?;
    put("apt", "simulation", b"NOTE: This is only a simulation!\nThe following packages have been kept back:\n  held1 held2:i386\nThe following packages will be upgraded:\n  libc6\nInst libc6 [2.36-9] (2.36-9+deb12u1 Prestage:12/2026-11 [amd64]) []\nInst new (1:2.0~rc1 Prestage:12 [all])\nConf libc6 (2.36-9+deb12u1 Prestage [amd64])\n")?;
    put("apt", "uris", format!("'file:/x/pool/a_1_all.deb' a_1_all.deb 10 SHA256:{digest}\n").as_bytes())?;
    put(
        "apt",
        "inventory",
        b"libc6\tamd64\t2.36-9\tinstalled\nb\tall\t0:2\tconfig-files\nInst libc6 [2.36-9] (3 P [all])\n",
    )?;
    put("apt", "packages", b"Package: a\nArchitecture: amd64\nVersion: 2\nInstalled-Size: 300\n\nInst a [1] (2 P [amd64])\na:amd64\t200\n")?;

    put("json", "all", br#"{"b":[1,-2,true,null,18446744073709551615,-9223372036854775808],"a":"x\ny\"\\\u00fc\ud83d\ude00"}"#)?;
    put("json", "control", b"{\"\\u0000\":\"\\u001f\"}")?;

    for (n, role) in (0u8..).zip(Role::ALL) {
        let document = role.document().to_string();
        let name = format!("{role:?}").to_lowercase();
        put("metadata", &name, &[&[0x80 | n], document.as_bytes()].concat())?;
        put("metadata", &format!("{name}-file"), &[&[n], sign(document.as_bytes()).as_slice()].concat())?;
    }
    let mut next = Role::Root.document();
    next["version"] = 2.into();
    put("metadata", "root-next", &[&[0x80], next.to_string().as_bytes()].concat())?;
    let mut prefixes = Role::Targets.document();
    let role = &mut prefixes["delegations"]["roles"][0];
    role["paths"].take();
    if let Some(role) = role.as_object_mut() {
        role.remove("paths");
        role.insert("path_hash_prefixes".into(), serde_json::json!(["", "0a"]));
    }
    put("metadata", "targets-prefixes", &[&[0x83], prefixes.to_string().as_bytes()].concat())?;

    for size in [0, 3, 600] {
        let content = vec![b'x'; size];
        for encoding in [Encoding::Stored, Encoding::Deflate] {
            let path = "pool/a_1_all.deb".parse().map_err(io::Error::other)?;
            let entry = Entry::new(&path, size as u64, UnixTime(1_700_000_000));
            let mut input = (size as u64).to_le_bytes().to_vec();
            input.extend([u8::from(encoding == Encoding::Deflate), 99]);
            match encoding {
                Encoding::Stored => write_stored(&entry, &mut content.as_slice(), &mut input)?,
                Encoding::Deflate => write_deflated(&entry, &content, &mut input)?,
            };
            put("container", &format!("{encoding:?}-{size}").to_lowercase(), &input)?;
        }
    }
    // Integers are taken from the end of an input, the pattern from its beginning.
    for n in [0u8, 1, 0x7f, 0xff] {
        put("roundtrip", &format!("{n}"), &[n; 64])?;
    }

    let mut export = Vec::new();
    for (name, kind, content) in [
        ("metadata/1.root.json", tar::EntryType::Regular, &b"{}"[..]),
        ("targets/", tar::EntryType::Directory, b""),
        ("./targets/x", tar::EntryType::Regular, &[7; 513]),
        ("link", tar::EntryType::Symlink, b""),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        export.extend(header.as_bytes());
        export.extend(content);
        export.resize(export.len().next_multiple_of(512), 0);
        put("export", &format!("{}", export.len()), &[export.as_slice(), &[0; 1024]].concat())?;
    }

    for (n, text) in (0..).zip([
        format!("GET /content/{digest} HTTP/1.1\r\nHost: till\r\nRange: bytes=5-9\r\nIf-Range: \"{digest}\"\r\n\r\n"),
        format!("GET /have/{digest},{digest} HTTP/1.1\r\nHost: till\r\n\r\n"),
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/10\r\n\r\nhello".into(),
        "prestage-site 1 0123456789abcdef\nwhole\ncoming 65536\nwanted\nnone\n".into(),
    ]) {
        put("share", &format!("{n}"), text.as_bytes())?;
    }

    for (n, text) in (0..).zip([
        "bytes 10-19/100",
        "bytes 0-0/*",
        "bytes 5368709120-5368709127/5368709128",
        "bytes */100",
        "bytes 18446744073709551614-18446744073709551615/*",
    ]) {
        put("content_range", &format!("{n}"), text.as_bytes())?;
    }
    for (n, text) in (0..).zip([
        "pool/libstdc++6_12.2.0-14+deb12u1_amd64.deb",
        "bundles/debian-12-amd64/20261123-42/bundle.tar.gz",
        "debian-12-amd64",
        "../../etc/passwd",
        "2026-11-23T05:29:13Z",
        "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    ]) {
        put("name", &format!("{n}"), text.as_bytes())?;
    }
    Ok(())
}
