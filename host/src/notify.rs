//! A word to the service manager: sd_notify(3), as far as one line of status goes.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Shows `text` in `systemctl status`. Does nothing where no service manager has asked for it.
///
/// # Errors
/// If the socket that it named cannot be written to.
pub fn status(text: &str) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) => send(&socket, text),
        None => Ok(()),
    }
}

fn send(socket: &OsString, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    // A line break would begin another assignment.
    let text = format!("STATUS={}", text.replace(['\n', '\r'], " "));
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_arrives_and_is_one_assignment() {
        let name = format!("prestage-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(&format!("@{name}").into(), "half\nREADY=1").unwrap();
        let mut buffer = [0; 100];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"STATUS=half READY=1");
    }
}
