# As dnf4.py, for yum 3.4 (EL7) and its Python 2. yum has no `best`: what cannot be updated fails the plan.
import json
import sys

import yum

conf_file, scratch = sys.argv[1], sys.argv[2]


def entry(package):
    out = {"name": package.name, "epoch": int(package.epoch), "version": package.version, "release": package.release,
           "arch": package.arch, "installed_size": int(package.installedsize or 0)}
    if package.repoid != "installed":
        out["sha256"] = package.returnIdSum()[1] if package.returnIdSum()[0] == "sha256" else ""
    return out


base = yum.YumBase()
base.preconf.fn = conf_file
base.preconf.debuglevel = 0
base.preconf.errorlevel = 0
base.preconf.disabled_plugins = ["*"]
base.preconf.enabled_plugins = ["versionlock"]
base.conf.cachedir = scratch + "/cache"
base.update()
code, messages = base.resolveDeps()
if code == 1:
    sys.stderr.write("\n".join(messages) + "\n")
    sys.exit(1)
install, remove = [], []
for member in base.tsInfo.getMembers():
    if member.ts_state in ("u", "i"):
        install.append(entry(member.po))
    elif member.ts_state in ("ud", "od", "e"):
        remove.append(entry(member.po))
json.dump({"install": install, "remove": remove, "kept_back": []}, sys.stdout)
