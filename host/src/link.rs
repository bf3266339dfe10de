//! The links of this machine.

use std::io;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Its IPv4 addresses on links that are up and carry multicast, loopback not among them.
///
/// # Errors
/// If the kernel does not say.
pub fn multicast_addresses() -> io::Result<Vec<Ipv4Addr>> {
    let carries = |flags: InterfaceFlags| {
        flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST)
            && !flags.contains(InterfaceFlags::IFF_LOOPBACK)
    };
    let links = getifaddrs()?.filter(|link| carries(link.flags));
    Ok(links.filter_map(|link| Some(link.address?.as_sockaddr_in()?.ip())).collect())
}
