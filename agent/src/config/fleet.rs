//! `[fleet]`: the server that this node tells how it is.

use std::path::PathBuf;

use super::is_http;
use super::keys::Keys;
use crate::spread::Pace;

/// The section as typed.
#[derive(Debug)]
pub(super) struct FleetFragment {
    url: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    paced: Option<bool>,
    report_every: Option<String>,
}

/// The section, valid.
#[derive(Debug)]
pub struct FleetSettings {
    /// `url`: the server, without a slash at its end.
    pub url: String,
    /// `token-file`: what an operator gave to enrol with; a path as the node sees it.
    pub token_file: PathBuf,
    /// `ca-file`: PEM certificates to trust for this server instead of those that hold for mirrors.
    pub ca_file: Option<PathBuf>,
    /// `paced`: whether `report` waits for its time; if not, every call is as with --now.
    pub paced: bool,
    /// How often it tells, and when again after a failure.
    pub pace: Pace,
}

/// Where `enroll` puts the token, until it has been used.
pub const TOKEN_FILE: &str = "/etc/prestage/fleet.token";

impl FleetFragment {
    pub(super) fn read(keys: &mut Keys<'_>) -> Self {
        FleetFragment {
            url: keys.text("url"),
            token_file: keys.path("token-file"),
            ca_file: keys.path("ca-file"),
            paced: keys.truth("paced"),
            report_every: keys.text("report-every"),
        }
    }

    pub(super) fn validate(self) -> Result<Option<FleetSettings>, String> {
        let Some(url) = self.url else { return Ok(None) };
        if !is_http(&url) || url.contains(['?', '#', '@']) {
            return Err(format!("[fleet] url: {url:?} is not the http or https URL of a server"));
        }
        let every = match self.report_every {
            None => 15 * 60,
            Some(text) => super::fetch::parse_duration(&text)
                .and_then(|every| i64::try_from(every.as_secs()).ok())
                .filter(|seconds| (10..=7 * 86_400).contains(seconds))
                .ok_or_else(|| {
                    format!(
                        "[fleet] report-every: {text:?} is not a number with s, min, h or d, of 10s to 7d"
                    )
                })?,
        };
        Ok(Some(FleetSettings {
            url: url.trim_end_matches('/').to_owned(),
            token_file: self.token_file.unwrap_or_else(|| TOKEN_FILE.into()),
            ca_file: self.ca_file,
            paced: self.paced.unwrap_or(true),
            pace: Pace {
                poll_every: every,
                spread_over: 0,
                retry_first: (every / 10).max(1),
                // A server that is back hears from everybody within this and the next call.
                retry_cap: 4 * every,
                tries_per_day: 200,
            },
        }))
    }
}
