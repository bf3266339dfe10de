//! `[fetch]`: how fast, when, how patiently, and how much of the disk.

use std::time::Duration;

use format::rate::Rate;
use format::window::Window;

use super::keys::Keys;
use crate::spread::Pace;

/// The section as typed.
#[derive(Debug)]
pub(super) struct FetchFragment {
    pub(super) rate: Option<String>,
    rates: Vec<RateFragment>,
    transfer_windows: Option<Vec<String>>,
    metered: Option<String>,
    floor: Option<String>,
    background: Option<bool>,
    pub(super) receive_buffer: Option<String>,
    pub(super) stall_timeout_seconds: Option<u64>,
    pub(super) quarantine: Option<String>,
    min_rate: Option<String>,
    step_timeout: Option<String>,
    disk_quota: Option<String>,
    paced: Option<bool>,
    poll_every: Option<String>,
    spread_over: Option<String>,
    retry_first: Option<String>,
    retry_cap: Option<String>,
    tries_per_day: Option<u32>,
    deltas: Option<bool>,
}

impl FetchFragment {
    pub(super) fn read(keys: &mut Keys<'_>) -> Self {
        FetchFragment {
            rate: keys.text("rate"),
            rates: keys.sections("rates", RateFragment::read),
            transfer_windows: keys.texts("transfer-windows"),
            metered: keys.text("metered"),
            floor: keys.text("floor"),
            background: keys.truth("background"),
            receive_buffer: keys.text("receive-buffer"),
            stall_timeout_seconds: keys.number("stall-timeout-seconds"),
            quarantine: keys.text("quarantine"),
            min_rate: keys.text("min-rate"),
            step_timeout: keys.text("step-timeout"),
            disk_quota: keys.text("disk-quota"),
            paced: keys.truth("paced"),
            poll_every: keys.text("poll-every"),
            spread_over: keys.text("spread-over"),
            retry_first: keys.text("retry-first"),
            retry_cap: keys.text("retry-cap"),
            tries_per_day: keys.number("tries-per-day"),
            deltas: keys.truth("deltas"),
        }
    }
}

#[derive(Debug)]
struct RateFragment {
    window: String,
    rate: String,
}

impl RateFragment {
    fn read(keys: &mut Keys<'_>) -> Self {
        RateFragment { window: keys.required("window"), rate: keys.required("rate") }
    }
}

/// The section, valid.
#[derive(Debug)]
pub struct FetchSettings {
    /// `rates`: caps by the hour, in bytes a second; the first window that is open counts, before `rate`.
    pub rates: Vec<(Window, Option<u64>)>,
    /// `transfer-windows`: when bundles may be transferred; none: always. Polls are not bound to them.
    pub transfer_windows: Option<Vec<Window>>,
    /// `metered`: what a link that costs by the byte means.
    pub metered: Metered,
    /// `floor`: bytes a second that a metered link still carries, and that the background mode asks for at the least.
    pub floor: u64,
    /// `background`: whether a transfer makes way for others on the line.
    pub background: bool,
    /// `min-rate`: a connection that brings less, in bytes a second, over a stall timeout is given up.
    pub min_rate: u64,
    /// `step-timeout`: a fetch step ends after so long; the next one goes on.
    pub step_timeout: Duration,
    /// `disk-quota`: bytes that the fetch step's folder may take; none: as much as there is.
    pub disk_quota: Option<u64>,
    /// `paced`: whether `fetch` waits for its time; if not, every call is as with `--now`.
    pub paced: bool,
    /// `deltas`: whether packages may be made of patches, which costs time of the processor.
    pub deltas: bool,
    /// The rest of the pacing.
    pub pace: Pace,
}

/// What a link means that costs by the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metered {
    /// It does not cost by the byte.
    No,
    /// Polls only; bundles wait for another link.
    Pause,
    /// As fast as the floor.
    Slow,
}

/// 16 kbit/s: 50 MB in seven hours.
const FLOOR: u64 = 2000;

/// 1 kbit/s: slower than any link worth the name, faster than a server that only wants to keep a connection busy.
const MIN_RATE: u64 = 125;

const STEP_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Nothing of the pacing may be longer: [`crate::spread`] takes longer waits for a wrong clock.
const LONGEST: u64 = 7 * 86_400;

impl FetchFragment {
    pub(super) fn validate(self) -> Result<FetchSettings, String> {
        let usual = Pace::default();
        let rate = |key: &str, text: &str| {
            let rate: Result<Rate, String> = text.parse();
            rate.map(Rate::bytes_per_second).map_err(|e| format!("[fetch] {key}: {e}"))
        };
        let finite = |key: &str, text: Option<String>, default: u64| match text {
            None => Ok(default),
            Some(text) => {
                rate(key, &text)?.ok_or_else(|| format!("[fetch] {key}: \"unlimited\" is no value for it"))
            }
        };
        let seconds = |key: &str, text: Option<String>, default: i64| match text {
            None => Ok(default),
            Some(text) => {
                let parsed = parse_duration(&text).filter(|d| d.as_secs() <= LONGEST);
                let parsed = parsed.and_then(|d| i64::try_from(d.as_secs()).ok());
                parsed.ok_or_else(|| {
                    format!("[fetch] {key}: {text:?} is not a number with s, min, h or d, of at most 7d")
                })
            }
        };
        let window =
            |key: &str, text: &str| text.parse::<Window>().map_err(|e| format!("[fetch] {key}: {e}"));
        let mut rates = Vec::new();
        for RateFragment { window: w, rate: r } in &self.rates {
            rates.push((window("rates", w)?, rate("rates", r)?));
        }
        let windows = self.transfer_windows.map(|list| {
            list.iter().map(|text| window("transfer-windows", text)).collect::<Result<Vec<_>, _>>()
        });
        let metered = match self.metered.as_deref() {
            None | Some("no") => Metered::No,
            Some("pause") => Metered::Pause,
            Some("slow") => Metered::Slow,
            Some(other) => {
                return Err(format!("[fetch] metered: {other:?} is not \"no\", \"pause\" or \"slow\""));
            }
        };
        let quota = self.disk_quota.as_deref().map(super::parse_size).transpose();
        let timeout = seconds("step-timeout", self.step_timeout, STEP_TIMEOUT.as_secs() as i64)?;
        Ok(FetchSettings {
            rates,
            transfer_windows: windows.transpose()?,
            metered,
            floor: finite("floor", self.floor, FLOOR)?,
            background: self.background.unwrap_or(false),
            min_rate: finite("min-rate", self.min_rate, MIN_RATE)?,
            step_timeout: Duration::from_secs(u64::try_from(timeout).unwrap_or(0).max(1)),
            disk_quota: quota.map_err(|e| format!("[fetch] disk-quota: {e}"))?,
            paced: self.paced.unwrap_or(true),
            deltas: self.deltas.unwrap_or(true),
            pace: Pace {
                poll_every: seconds("poll-every", self.poll_every, usual.poll_every)?.max(1),
                spread_over: seconds("spread-over", self.spread_over, usual.spread_over)?,
                retry_first: seconds("retry-first", self.retry_first, usual.retry_first)?.max(1),
                retry_cap: seconds("retry-cap", self.retry_cap, usual.retry_cap)?.max(1),
                tries_per_day: self.tries_per_day.unwrap_or(usual.tries_per_day).max(1),
            },
        })
    }
}

/// `90s`, `15min`, `12h`, `7d`, `0`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let units = [("min", 60), ("s", 1), ("h", 3600), ("d", 86_400)];
    let seconds = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*factor));
    seconds.map(Duration::from_secs)
}
