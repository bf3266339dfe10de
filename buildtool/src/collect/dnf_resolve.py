# What one inventory needs of RPM repositories, by dnf's own resolver, and its download: one JSON object on standard output.
# The argument is a JSON object too; dnf.rs writes it and reads the answer. Signatures of packages are not checked here but
# there, for all of them at once; checksums are, by dnf.
import json
import sys

import dnf
import dnf.exceptions
import hawkey

ask = json.load(open(sys.argv[1]))


class GivenKeysOnly(object):
    """Metadata may be signed with the keys that were given, all of which were named as gpgkey."""
    def _confirm(self, *_):
        return True


def evr(package):
    return "%s:%s-%s" % (package.epoch, package.version, package.release)


def advisories(package, above):
    """All that is repaired by this version and by those between it and what is installed."""
    versions = base.sack.query().available().filter(name=package.name, arch=package.arch)
    found = {}
    for version in versions:
        if base.sack.evr_cmp(evr(version), evr(package)) > 0 or above and base.sack.evr_cmp(evr(version), above) <= 0:
            continue
        for advisory in version.get_advisories(hawkey.EQ):
            found[advisory.id] = advisory.severity or ""
            for reference in advisory.references:
                if reference.type == hawkey.REFERENCE_CVE:
                    found[reference.id] = advisory.severity or ""
    return [{"id": i, "severity": "" if s == "None" else s.lower()} for i, s in sorted(found.items())]


base = dnf.Base()
conf = base.conf
conf.config_file_path = "/dev/null"
conf.installroot = ask["root"]
conf.cachedir = ask["cache"]
conf.persistdir = ask["state"]
conf.logdir = ask["state"]
conf.reposdir = [ask["repos"]]
conf.pluginpath = []
conf.substitutions["arch"] = conf.substitutions["basearch"] = ask["arch"]
conf.substitutions["releasever"] = ask["releasever"]
conf.best = False
conf.obsoletes = True
conf.clean_requirements_on_remove = False
if ask["platform"]:
    conf.module_platform_id = ask["platform"]
try:
    base.read_all_repos()
    for repo in base.repos.iter_enabled():
        repo.gpgcheck = False
        repo.gpgkey = ["file://" + key for key in ask["keys"]]
        repo.skip_if_unavailable = False
        repo._set_key_import(GivenKeysOnly())
        repo.metadata_expire = 0 if ask["refresh"] else -1
    base.fill_sack(load_system_repo=True)
    listed = dict(((name, arch), version) for name, arch, version in ask["list"])
    if ask["security"]:
        base.add_security_filters("gte", types=("security",))
    if listed:
        for name, arch in sorted(listed):
            latest = base.sack.query().available().filter(name=name, arch=arch).latest()
            for package in latest:
                base.package_install(package, strict=False)
    else:
        base.upgrade_all()
    base.resolve(allow_erasing=False)
    # The solver's own answer: base.transaction cannot tell which package an item is where kernels are removed for a new one.
    goal = base._goal
    coming = list(goal.list_installs()) + list(goal.list_upgrades()) + list(goal.list_downgrades())
    going = set(goal.list_erasures()) | set(goal.list_obsoleted())

    def installed_version(package):
        if listed:
            return listed.get((package.name, package.arch))
        old = base.sack.query().installed().filter(name=package.name, arch=package.arch).latest()
        return evr(old[0]) if old else None

    if listed:
        names = set(name for name, _ in listed)

        def is_needed(package):
            have = installed_version(package)
            if have is None:
                return package.name not in names
            if base.sack.evr_cmp(evr(package), have) <= 0:
                return False
            return not ask["security"] or any(
                a.type == hawkey.ADVISORY_SECURITY for v in base.sack.query().available().filter(
                    name=package.name, arch=package.arch) if base.sack.evr_cmp(evr(v), have) > 0
                for a in v.get_advisories(hawkey.EQ))
        coming = [package for package in coming if is_needed(package)]
    base.download_packages(coming)
except (dnf.exceptions.Error, RuntimeError) as error:
    sys.stderr.write("%s\n" % error)
    sys.exit(1)

needed = []
for package in coming:
    kind, digest = package.returnIdSum()
    source = package.sourcerpm or ""
    needed.append({
        "name": package.name, "epoch": int(package.epoch), "version": package.version, "release": package.release,
        "arch": package.arch, "source": source.rsplit("-", 2)[0] or package.name,
        "source_version": "-".join(source[:-len(".src.rpm")].rsplit("-", 2)[1:]) if source else "",
        "repo": package.reponame, "path": package.localPkg(), "digest": digest if kind == "sha256" else "",
        "size": int(package.downloadsize), "advisories": advisories(package, installed_version(package)),
    })
names = set((p.name, p.arch) for p in coming)
kept = sorted(set(p.name for p in base.sack.query().upgrades().latest() if (p.name, p.arch) not in names)) \
    if not listed and not ask["security"] else []
replaced = set((p.name, p.arch) for p in coming)
removed = sorted(p.name for p in going if (p.name, p.arch) not in replaced)
releases = [{"id": repo.id, "name": repo.name or repo.id, "date": int(repo._repo.getMaxTimestamp())}
            for repo in base.repos.iter_enabled()]
# Of the streams whose packages come, as libmodulemd writes them, whatever the repository's own layout is; and which stream of
# such a module is the default one.
artifacts = set("%s-%s:%s-%s.%s" % (p.name, p.epoch, p.version, p.release, p.arch) for p in coming)
container = base._moduleContainer
streams = [m for m in (container.getModulePackages() if container else []) if set(m.getArtifacts()) & artifacts]
modules = [m.getYaml() for m in sorted(streams, key=lambda m: m.getFullIdentifier())]
for name in sorted(set(m.getName() for m in streams)):
    default = container.getDefaultStream(name)
    if default:
        modules.append("---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: %s\n  stream: %s\n...\n" % (
            json.dumps(name), json.dumps(default)))
json.dump({"releases": releases, "needed": needed, "kept_back": kept, "removed": removed,
           "installed": len(listed) or len(base.sack.query().installed()),
           "modules": modules}, sys.stdout)
