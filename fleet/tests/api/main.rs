//! The fleet server over HTTP, on both databases: the same cases on SQLite and on PostgreSQL of the distribution's package.

mod attacks; // everything that must fail
mod cases; // what must hold
mod crash; // killed while it writes
mod openapi; // what it says of itself
mod postgres; // a database server of our own
mod server; // a fleet server, as its users see it
mod several; // several servers at one database
mod tls; // by the server itself

use postgres::Cluster;
use server::Fleet;

/// Runs every case on a server of its own.
fn all(database: &dyn Fn(&str) -> Option<String>) {
    for (name, case) in cases::CASES {
        eprintln!("{name}");
        let url = database(name);
        case(&mut Fleet::start(url.as_deref(), cases::CONFIGURATION));
    }
}

#[test]
fn the_server_keeps_its_promises_on_sqlite() {
    all(&|_| None);
}

#[test]
fn the_server_keeps_its_promises_on_postgresql() {
    let cluster = Cluster::start();
    all(&|name| Some(cluster.database(&name.replace([' ', ',', '-'], "_"))));
}
