# What dnf 4 would do with one repository, from its metadata alone: one JSON object on standard output. Nothing on the node
# changes. Run by the node's own Python for dnf. Arguments: a configuration file, a folder for dnf's own files.
#
# What is in it: Plan of plan.rs. `upgrade` with best=0 and without erasing is what `dnf upgrade` does there too.
import json
import os
import shutil
import sys

import dnf
import dnf.exceptions
import hawkey

conf_file, scratch = sys.argv[1], sys.argv[2]
base = dnf.Base()
conf = base.conf
conf.config_file_path = conf_file
conf.read(conf_file)
conf.persistdir = os.path.join(scratch, "persist")
conf.logdir = os.path.join(scratch, "log")
conf.cachedir = os.path.join(scratch, "cache")
for folder in (conf.persistdir, conf.logdir):
    if not os.path.isdir(folder):
        os.makedirs(folder)
# What dnf remembers of module streams whose metadata is not at hand counts for the plan as it will for the install.
remembered = "/var/lib/dnf/modulefailsafe"
copy = os.path.join(conf.persistdir, "modulefailsafe")
shutil.rmtree(copy, ignore_errors=True)
if os.path.isdir(remembered):
    shutil.copytree(remembered, copy)


def entry(package):
    out = {"name": package.name, "epoch": int(package.epoch), "version": package.version,
           "release": package.release, "arch": package.arch, "installed_size": int(package.installsize)}
    if not package.installed:
        kind, digest = package.returnIdSum()
        out["sha256"] = digest if kind == "sha256" else ""
    return out


try:
    base.init_plugins(disabled_glob=["*"], enable_plugins=["versionlock"])
    base.pre_configure_plugins()
    base.read_all_repos()
    base.configure_plugins()
    base.fill_sack(load_system_repo=True)
    base.upgrade_all()
    base.resolve(allow_erasing=False)
except dnf.exceptions.Error as error:
    sys.stderr.write("%s\n" % error)
    sys.exit(1)

# The solver's own answer: base.transaction cannot tell which package an item is where kernels are removed for a new one.
goal = base._goal
coming = list(goal.list_installs()) + list(goal.list_upgrades()) + list(goal.list_downgrades())
going = list(goal.list_erasures()) + list(goal.list_obsoleted())
for package in coming:
    going += goal.obsoleted_by_package(package)
install = dict((str(package), entry(package)) for package in coming)
remove = dict((str(package), entry(package)) for package in going if package.installed)
everything = base.sack.query(flags=hawkey.IGNORE_EXCLUDES).upgrades().latest()
allowed = set(base.sack.query().upgrades())
coming = set((e["name"], e["arch"]) for e in install.values())
kept = []
for package in everything:
    if (package.name, package.arch) not in coming:
        why = "dnf keeps it back" if package in allowed else "excluded by the operator (excludes or versionlock)"
        kept.append([package.name, why])
json.dump({"install": sorted(install.values(), key=lambda e: (e["name"], e["arch"])),
           "remove": sorted(remove.values(), key=lambda e: (e["name"], e["arch"])),
           "kept_back": sorted(kept)}, sys.stdout)
