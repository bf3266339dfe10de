//! `[health]`, `[restore]` and `[reboot]`: what keeps an unattended install safe.

use std::path::PathBuf;
use std::time::Duration;

use format::policy::Reboot;

use super::keys::Keys;
use super::{is_http, parse_size};

/// `[health]` as typed.
#[derive(Debug)]
pub(super) struct HealthFragment {
    url: Option<String>,
    timeout_seconds: Option<u64>,
    status: Option<u16>,
    body: Option<String>,
    hook_timeout_seconds: Option<u64>,
    units: Option<bool>,
}

impl HealthFragment {
    pub(super) fn read(keys: &mut Keys<'_>) -> Self {
        HealthFragment {
            url: keys.text("url"),
            timeout_seconds: keys.number("timeout-seconds"),
            status: keys.number("status"),
            body: keys.text("body"),
            hook_timeout_seconds: keys.number("hook-timeout-seconds"),
            units: keys.truth("units"),
        }
    }
}

/// `[health]`, valid.
#[derive(Debug)]
pub struct HealthSettings {
    /// `url`: what must answer after an install.
    pub url: Option<String>,
    /// `timeout-seconds`: how long until it does.
    pub timeout: Duration,
    /// `status`: what it must answer with; none: any of 200 to 299.
    pub status: Option<u16>,
    /// `body`: what must be in the answer's body.
    pub body: Option<String>,
    /// `hook-timeout-seconds`: how long one hook may take.
    pub hook_timeout: Duration,
    /// `units`: whether a unit of systemd that fails after the install, and did not before, counts.
    pub units: bool,
}

impl HealthFragment {
    pub(super) fn validate(self) -> Result<HealthSettings, String> {
        if let Some(url) = self.url.as_ref().filter(|url| !is_http(url)) {
            return Err(format!("[health] url: {url:?} is not an http or https URL"));
        }
        Ok(HealthSettings {
            url: self.url,
            timeout: Duration::from_secs(self.timeout_seconds.unwrap_or(120)),
            status: match self.status {
                Some(status) if !(100..600).contains(&status) => {
                    return Err(format!("[health] status: {status} is no status of HTTP"));
                }
                status => status,
            },
            body: self.body,
            hook_timeout: Duration::from_secs(self.hook_timeout_seconds.unwrap_or(120).max(1)),
            units: self.units.unwrap_or(true),
        })
    }
}

/// Which kind of restore points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreKind {
    /// The best that the node has; none where it has none.
    Auto,
    /// A thin snapshot of LVM.
    LvmThin,
    /// A classic snapshot of LVM.
    Lvm,
    /// A snapshot of btrfs.
    Btrfs,
    /// A copy by Timeshift.
    Timeshift,
    /// None.
    None,
}

/// `[restore]` as typed.
#[derive(Debug)]
pub(super) struct RestoreFragment {
    kind: Option<String>,
    required: Option<bool>,
    keep: Option<usize>,
    volume: Option<String>,
    size: Option<String>,
    pool_limit_percent: Option<u8>,
    data: Vec<PathBuf>,
}

impl RestoreFragment {
    pub(super) fn read(keys: &mut Keys<'_>) -> Self {
        RestoreFragment {
            kind: keys.text("kind"),
            required: keys.truth("required"),
            keep: keys.number("keep"),
            volume: keys.text("volume"),
            size: keys.text("size"),
            pool_limit_percent: keys.number("pool-limit-percent"),
            data: keys.paths("data"),
        }
    }
}

/// `[restore]`, valid.
#[derive(Debug)]
pub struct RestoreSettings {
    /// `kind`.
    pub kind: RestoreKind,
    /// `required`: no install without a restore point.
    pub required: bool,
    /// `keep`: restore points that stay after an install that went well.
    pub keep: usize,
    /// `volume`: what the root file system is on, where that cannot be found out: `GROUP/NAME`, or a device.
    pub volume: Option<String>,
    /// `size`: bytes of a classic snapshot; none: by what is installed.
    pub size: Option<u64>,
    /// `pool-limit-percent`: a thin pool that would be fuller takes no restore point.
    pub pool_limit: u8,
    /// `data`: folders whose content must not go back.
    pub data: Vec<PathBuf>,
}

impl RestoreFragment {
    pub(super) fn validate(self) -> Result<RestoreSettings, String> {
        let kind = match self.kind.as_deref() {
            None | Some("auto") => RestoreKind::Auto,
            Some("lvm-thin") => RestoreKind::LvmThin,
            Some("lvm") => RestoreKind::Lvm,
            Some("btrfs") => RestoreKind::Btrfs,
            Some("timeshift") => RestoreKind::Timeshift,
            Some("none") => RestoreKind::None,
            Some(other) => {
                return Err(format!(
                    "[restore] kind: {other:?} is none of auto, lvm-thin, lvm, btrfs, timeshift, none"
                ));
            }
        };
        if self.required == Some(true) && kind == RestoreKind::None {
            return Err("[restore] required: there is none to be required with kind = \"none\"".into());
        }
        if let Some(path) = self.data.iter().find(|path| !path.is_absolute()) {
            return Err(format!("[restore] data: {path:?} is not an absolute path"));
        }
        let size = self.size.as_deref().map(parse_size).transpose();
        Ok(RestoreSettings {
            kind,
            required: self.required.unwrap_or(false),
            keep: match self.keep.unwrap_or(1) {
                keep @ 0..=20 => keep,
                _ => return Err("[restore] keep: from 0 to 20".into()),
            },
            volume: self.volume,
            size: size.map_err(|e| format!("[restore] size: {e}"))?,
            pool_limit: match self.pool_limit_percent.unwrap_or(80) {
                percent @ 1..=95 => percent,
                _ => return Err("[restore] pool-limit-percent: from 1 to 95".into()),
            },
            data: self.data,
        })
    }
}

/// `[reboot]` as typed.
#[derive(Debug)]
pub(super) struct RebootFragment {
    policy: Option<String>,
    lock_url: Option<String>,
    lock_group: Option<String>,
}

impl RebootFragment {
    pub(super) fn read(keys: &mut Keys<'_>) -> Self {
        RebootFragment {
            policy: keys.text("policy"),
            lock_url: keys.text("lock-url"),
            lock_group: keys.text("lock-group"),
        }
    }
}

/// `[reboot]`, valid.
#[derive(Debug)]
pub struct RebootSettings {
    /// `policy`; none: `if-needed` where there is a maintenance window, otherwise `never`.
    pub policy: Option<Reboot>,
    /// `lock-url`: a FleetLock server that lets the nodes of a site boot one at a time. Ends in no slash.
    pub lock_url: Option<String>,
    /// `lock-group`: which of its groups.
    pub lock_group: String,
}

impl RebootFragment {
    pub(super) fn validate(self) -> Result<RebootSettings, String> {
        let policy = match self.policy.as_deref() {
            None => None,
            Some("never") => Some(Reboot::Never),
            Some("if-needed") => Some(Reboot::IfNeeded),
            Some("always") => Some(Reboot::Always),
            Some(other) => {
                return Err(format!("[reboot] policy: {other:?} is none of never, if-needed, always"));
            }
        };
        if let Some(url) = self.lock_url.as_ref().filter(|url| !is_http(url)) {
            return Err(format!("[reboot] lock-url: {url:?} is not an http or https URL"));
        }
        let group = self.lock_group.unwrap_or_else(|| "default".into());
        // Zincati's and the protocol's own rule for groups.
        let is_word = |text: &str| {
            !text.is_empty()
                && text.len() <= 100
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
        };
        if !is_word(&group) {
            return Err(format!("[reboot] lock-group: {group:?} is not a word of letters, digits and . - _"));
        }
        Ok(RebootSettings {
            policy,
            lock_url: self.lock_url.map(|url| url.trim_end_matches('/').to_owned()),
            lock_group: group,
        })
    }
}
