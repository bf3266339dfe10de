//! End-to-end cases. Each file is one promise or one kind of attack; each test is named for what must hold.

mod attacks; // every attack that must fail, in one table
mod background; // others on the line, and what they leave
mod common; // what every package manager must pass
mod damage; // one byte is wrong, or something was taken away
mod delta; // packages made of what is installed and a patch
mod disk; // disks that are too small
mod export; // everything comes on a stick
mod fetch; // a bad line, and a mirror that misbehaves
mod fleet; // what the fleet server is told: once, whatever happens on the way
mod huge; // sizes beyond 32 bits
mod idle_poll; // what a node costs that has nothing to do, and when it comes
mod incoming; // an export is pushed, and not always to its end
mod interrupted; // the agent dies in the middle of an install
mod kube; // policies in a Kubernetes API server, and what their status says
mod lvm; // restore points by LVM that fail, or that are all that is left
mod mirrors; // several mirrors, liars among them, and those that ask who we are
mod monitoring; // what monitoring sees: schemas, alerts, dashboard
mod node_state; // nodes as they are: holds, locks, full disks, failing packages
mod packaged; // the packages as an administrator meets them: dpkg, rpm, systemd
mod policy; // what a policy makes of a node
mod proxy; // real web servers and a real proxy
mod rate; // the cap as the wire sees it
mod resume; // interruptions of every kind, at random
mod rollout; // batch by batch, stopped, taken back: by signed plans alone
mod roots; // what the shipped agent needs of a system: nothing
mod rpm; // what only RPM nodes and repositories have
mod safety; // restore points, health, going back, boots, and the agent killed at every record
mod server_misbehaviour; // whatever a server answers has one defined end
mod share; // what a node gives to its site
mod site; // a site whose nodes share, and what may go wrong with them
mod unconfigured; // nothing configured yet, or wrongly
mod whole_path; // from an archive to a patched node, and then nothing more to do
