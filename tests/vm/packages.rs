//! The packages of the laboratory: a till with a service that answers a health check, on order healthy or broken in one way
//! or another.

use lab::debs::Deb;

/// Where the till answers.
pub const HEALTH_URL: &str = "http://localhost:8080/health";

/// How a till is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Till {
    /// It answers 200.
    Healthy,
    /// It runs, and answers 404.
    Unhealthy,
    /// It takes connections and never answers.
    Silent,
    /// Its postinst fails.
    Unconfigurable,
}

/// The till, in a version.
pub fn till(version: &str, kind: Till) -> Deb {
    let start = match kind {
        Till::Silent => "/usr/bin/busybox nc -ll -p 8080 -e /bin/sleep infinity",
        _ => "/usr/bin/busybox httpd -f -p 127.0.0.1:8080 -h /usr/share/till/www",
    };
    let unit = format!(
        "[Unit]\nDescription=The till\n[Service]\nExecStart={start}\nRestart=on-failure\nRestartSec=1\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    let answer =
        if kind == Till::Unhealthy { "/usr/share/till/www/sorry" } else { "/usr/share/till/www/health" };
    let postinst = match kind {
        Till::Unconfigurable => {
            "[ \"$1\" = configure ] || exit 0\necho 'the till cannot be configured' >&2\nexit 1"
        }
        _ => {
            "[ \"$1\" = configure ] || exit 0\nsystemctl daemon-reload\nsystemctl --quiet enable till\n\
             systemctl restart till"
        }
    };
    Deb::new("till", version)
        .file("/lib/systemd/system/till.service", unit)
        .file(answer, format!("till {version}\n"))
        .conffile("/etc/till.conf", &format!("version = {version}\n"))
        .script("postinst", postinst)
}

/// Many small files, so that dpkg is at work for some seconds and a cut has something to tear.
pub fn goods(version: &str, files: usize) -> Deb {
    (0..files).fold(Deb::new("till-goods", version).payload(600_000), |deb, number| {
        let line = format!("article {number} of {version}\n");
        deb.file(&format!("/usr/share/till/goods/{:02}/{number:04}", number % 20), line.repeat(60))
    })
}

/// What brings a kernel of its own, as the distribution's kernel packages do: into /boot, into /lib/modules, into GRUB's
/// menu, as the first entry.
pub fn kernel(version: &str) -> Deb {
    let postinst = format!(
        "[ \"$1\" = configure ] || exit 0\nold=$(uname -r)\n\
         cp /boot/vmlinuz-$old /boot/vmlinuz-99-till{version}\n\
         cp /boot/initrd.img-$old /boot/initrd.img-99-till{version}\n\
         cp -a /lib/modules/$old /lib/modules/99-till{version}\nupdate-grub"
    );
    Deb::new("till-kernel", version).script("postinst", &postinst)
}

/// What a node has before the first bundle.
pub fn old() -> Vec<Deb> {
    vec![till("1.0", Till::Healthy), goods("1.0", 120), Deb::new("till-kernel", "1.0")]
}

/// A good bundle's content.
pub fn good(version: &str) -> Vec<Deb> {
    vec![till(version, Till::Healthy), goods(version, 120)]
}
