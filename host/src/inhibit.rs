//! Asks the service manager not to power this machine off: systemd-inhibit(1), as long as the value lives and no longer
//! than its process does, however that ends.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// An inhibitor lock. Without systemd it is nothing.
pub struct Inhibitor(Option<Child>);

impl Inhibitor {
    /// Takes the lock, and says `why` to whoever wants to power off.
    pub fn take(why: &str) -> Inhibitor {
        // sd_booted(3).
        if !Path::new("/run/systemd/system").is_dir() {
            return Inhibitor(None);
        }
        // cat ends when the pipe does, so that a killed agent leaves no lock behind.
        let child = Command::new("systemd-inhibit")
            .args([
                "--what=shutdown:sleep:handle-power-key",
                "--mode=block",
                "--who=prestage",
                "--why",
                why,
                "cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Inhibitor(child.map_err(|e| crate::detail!("systemd-inhibit: {e}")).ok())
    }
}

impl Drop for Inhibitor {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            // It has read to the end of the pipe.
            let _ = child.wait();
        }
    }
}
