//! The agent as it is shipped needs nothing of the system that it runs on: no loader, no library, no file but the
//! authorities that TLS is to believe, wherever the distribution has them.

use std::fs;
use std::path::Path;

use format::digest::Sha256;
use lab::node::Node;
use lab::sandbox::{command, program, run};
use lab::services::{Authority, Nginx};
use lab::world::World;

const DEBIAN: &str = "etc/ssl/certs/ca-certificates.crt";
const ENTERPRISE_LINUX: &str = "etc/pki/tls/certs/ca-bundle.crt";
const SUSE: &str = "etc/ssl/ca-bundle.pem";

#[test]
#[ignore = "of the agent as it is shipped: make test-static"]
fn the_shipped_agent_enrols_over_https_in_a_debian_root_an_el_like_one_and_an_empty_one() {
    let world = World::new();
    let authority = Authority::new(&world.sandbox, "public");
    let front = Nginx::tls(&authority, &world.centre.repository(), false);
    let trusted = fs::read(world.centre.repository().join("metadata/1.root.json")).expect("a root of trust");
    let fingerprint = format!("sha256:{}", Sha256::of(&trusted));
    let debian = Node::new(&world.sandbox, "debian");
    let el = Node::of_rpm(&world.sandbox, "el");
    let empty = world.sandbox.path().join("empty");
    let (empty, url) = (empty.as_path(), front.url());
    for (root, bundle) in
        [(debian.root(), DEBIAN), (el.root(), ENTERPRISE_LINUX), (empty, DEBIAN), (empty, SUSE)]
    {
        for other in [DEBIAN, ENTERPRISE_LINUX, SUSE] {
            let _ = fs::remove_file(root.join(other));
        }
        let _ = fs::remove_dir_all(root.join("etc/prestage"));
        fs::create_dir_all(root.join(bundle).parent().unwrap_or(Path::new("/"))).expect("a folder");
        fs::copy(program("prestage"), root.join("prestage")).expect("the agent");
        if root == empty {
            // Nothing there says what it is a node of.
            fs::create_dir_all(root.join("etc/prestage")).expect("a folder");
            let text = format!("[node]\nvariant = \"{}\"\n", world.node.variant());
            fs::write(root.join("etc/prestage/agent.toml"), text).expect("a configuration");
        }
        let enrol = || {
            let arguments =
                ["enroll", "--repository", &url, "--root-fingerprint", &fingerprint, "--id", "till-1"];
            run(command("chroot").arg(root).arg("/prestage").args(arguments))
        };
        // Nobody vouches for the server; then somebody does.
        let refused = enrol();
        assert!(matches!(refused.code, Some(69 | 78)), "{bundle}: {refused}");
        fs::copy(authority.certificate(), root.join(bundle)).expect("an authority");
        enrol().expect(0);
        let pinned = fs::read(root.join("etc/prestage/root.json")).expect("a pinned root of trust");
        assert_eq!(pinned, trusted, "{bundle}");
    }
}
