//! The laboratory: whole valid worlds (a node, a centre, the network between them) to break one thing in.
//!
//! Everything is real: the binaries of this workspace, dpkg and apt in a root of the distribution, rpm and dnf in another, HTTP
//! over loopback.
//! Only the archive's packages are made here, small and on order, so that a case can have a package that fails.

pub mod attack; // attacks on one node, and the table of how each ended
pub mod backend; // a whole world for each package manager, under one face
pub mod bench_fetch; // what fetching costs, beside curl
pub mod bench_share; // what sharing takes
pub mod bench_size; // what the agent may take, and what it takes
pub mod container; // a node whose systemd is running
mod content; // what a package to be made has in it
pub mod debs; // packages on order: sizes, dependencies, conffiles, scripts that fail
pub mod demo_fleet; // a fleet that is patched by pull request, halted, reverted
pub mod fleet; // a fleet server that loses answers and revokes on order
pub mod forge; // what the thief of a key can make of a repository
mod gpg; // a key of its own for each archive
pub mod http; // just enough HTTP/1.1 to be a server that misbehaves
pub mod kill; // kill -9 at random, hundreds of times, and the table of how each ended
pub mod kube; // a small real Kubernetes API server
pub mod line; // a thin line between two network namespaces
pub mod measure; // time, CPU and peak memory of a program
pub mod monitoring; // node_exporter and Prometheus
pub mod node; // a throw-away node: an overlay over a real Debian root
pub mod random; // a seeded generator, so that a failure can be run again
pub mod receiver; // the centre's end of reports
pub mod repository; // an upstream archive, a centre, and what it publishes
pub mod rpm_archive; // a vendor's signed RPM repository
pub mod rpms; // RPM packages on order
pub mod sandbox; // a folder of its own for each case, and the programs run in it
pub mod server; // a file server that cuts, stalls and lies on order
pub mod services; // real servers: nginx, tinyproxy, and certificates for them
pub mod site; // nodes that share, and peers that lie
pub mod suite; // the cases that every package manager must pass, and their table
pub mod tap; // counts what goes over the wire, for the demo
pub mod wait; // until something is so, with an end
pub mod world; // all of it together: what most cases begin with
