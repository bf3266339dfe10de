"""python-tuf's client, and ours, against what `prestage-build` publishes."""

import hashlib
import json
import os
import subprocess
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater

from world import FRONT

VARIANT = "debian-12-amd64"
WITHOUT_POLICIES = ["root", "targets", "bundles", "snapshot", "timestamp"]
ROLES = [*WITHOUT_POLICIES, "policies"]
SIGNER = str(Path(__file__).parents[2] / "packaging" / "signers" / "openssl")
POLICY = "policies/operations/edge/policy.json"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Centre:
    """A repository that prestage-build made and published, served as any static server does."""

    def __init__(self, roles=ROLES, external=False):
        self.external = external
        self.contents = {}
        self.folder = tempfile.TemporaryDirectory()
        self.top = Path(self.folder.name)
        self.keys = {}
        for role in roles:
            self.key(role)
        flags = [word for role in roles for word in (f"--{role}-key", self.keys[role])]
        self.build("root", "init", "repo", *flags)
        handler = partial(Quiet, directory=str(self.top / "repo"))
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/"

    def build(self, *args):
        run = subprocess.run([os.environ["PRESTAGE_BUILD"], *args], cwd=self.top, capture_output=True, text=True)
        assert run.returncode == 0, f"prestage-build {' '.join(args)}: {run.stderr}"

    def key(self, role):
        """A new key for a role, which another program holds if keys are `external`; the old one is returned."""
        old = self.keys.get(role)
        name = self.keys[role] = f"{role}-{len(list(self.top.glob('*.pub')))}"
        self.build("key", "new", name)
        if self.external:
            self.keys[role] = f"{name}.signer"
            self.build("key", "signer", self.keys[role], "--public", f"{name}.pub", "--", SIGNER, name)
        return old

    def online(self, *more):
        return ["--snapshot-key", self.keys["snapshot"], "--timestamp-key", self.keys["timestamp"], *more]

    def release(self, version):
        """A bundle of one package, made, signed and published; its two target paths."""
        content = f"not really a package, {version}\n".encode() * 1000
        file = f"alpha_{version}_amd64.deb"
        collection = self.top / f"collected-{version}"
        (collection / "pool").mkdir(parents=True)
        (collection / "pool" / file).write_bytes(content)
        package = {
            "file": file, "name": "alpha", "version": version, "arch": "amd64", "source": "alpha",
            "sourceVersion": version, "origin": "Test:stable", "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "stanza": f"Package: alpha\nVersion: {version}\nArchitecture: amd64\nFilename: x.deb\nDescription: x\n",
        }  # fmt: skip
        collected = {
            "apiVersion": "patchmgmt.io/v1", "kind": "CollectedPackages", "variant": VARIANT, "family": "apt",
            "architecture": "amd64", "created": "2026-11-20T00:00:00Z", "securityOnly": False, "releases": [],
            "inventories": [], "packages": [package],
        }  # fmt: skip
        (collection / "collected.json").write_text(json.dumps(collected))
        out = f"out-{version}"
        self.build("bundle", collection.name, "--version", version, "--cycle", "2026-11", "--output", out)
        self.build("sign", "repo", out, "--key", self.keys["bundles"])
        self.build("publish", "repo", out, *self.online())
        targets = [f"bundles/{VARIANT}/{version}/{name}" for name in ("index.json", "bundle.tar.gz")]
        for target in targets:
            self.contents[target] = (self.top / out / target.rpartition("/")[2]).read_bytes()
        return targets

    def policy(self, **spec):
        """The one policy, with these further fields, is published; its target path."""
        spec |= {"bundleRef": {"version": "1"}, "targets": {"selector": {"matchLabels": {"role": "edge"}}}}
        metadata = {"name": "edge", "namespace": "operations"}
        document = {"apiVersion": "patchmgmt.io/v1", "kind": "PatchPolicy", "metadata": metadata, "spec": spec}
        # JSON is YAML.
        (self.top / "policy.yaml").write_text(json.dumps(document))
        self.build("policy", "publish", "repo", "policy.yaml", "--key", self.keys["policies"])
        self.build("publish", "repo", *self.online())
        listed = json.loads(self.newest("policies").read_bytes())["signed"]["targets"]
        folder, _, name = POLICY.rpartition("/")
        file = self.top / "repo" / "targets" / folder / f"{listed[POLICY]['hashes']['sha256']}.{name}"
        self.contents[POLICY] = file.read_bytes()
        assert json.loads(self.contents[POLICY])["spec"].items() >= spec.items()
        return POLICY

    def published(self, *targets):
        return [self.contents[target] for target in targets]

    def rotate_every_key(self):
        """As the operators' guide says it: online keys with the old ones beside the new once, then the offline ones."""
        old = {role: self.key(role) for role in list(self.keys)}
        for role in ["snapshot", "timestamp"]:
            self.build("root", "rotate", "repo", "--role", role, "--old", old[role], "--new", self.keys[role])
        self.build("root", "sign", "repo", "--key", old["root"])
        both = ["--snapshot-key", old["snapshot"], "--timestamp-key", old["timestamp"]]
        self.build("publish", "repo", *self.online(*both))
        for role, signers in [
            *((role, [old["targets"], self.keys[role]]) for role in ("bundles", "policies") if role in old),
            ("targets", [old["root"], self.keys["targets"]]),
            ("root", [old["root"], self.keys["root"]]),
        ]:
            self.build("root", "rotate", "repo", "--role", role, "--old", old[role], "--new", self.keys[role])
            for signer in signers:
                self.build("root", "sign", "repo", "--key", signer)
            self.build("publish", "repo", *self.online())

    def metadata(self, name):
        return self.top / "repo" / "metadata" / name

    def newest(self, role):
        return max(self.metadata("").glob(f"*.{role}.json"), key=lambda file: int(file.name.split(".")[0]))

    def current(self):
        """The files that a client without a past reads, after the first root."""
        return [*(self.newest(role) for role in self.keys if role != "timestamp"), self.metadata("timestamp.json")]


class Unlisted(RepositoryError):
    """No role that may list the target does."""


class PythonTuf:
    """python-tuf's client, begun with the first root."""

    def __init__(self, centre):
        self.centre = centre
        self.folder = tempfile.TemporaryDirectory()
        self.metadata, self.targets = (Path(self.folder.name) / name for name in ("metadata", "targets"))
        self.metadata.mkdir()
        self.targets.mkdir()
        self.root = centre.metadata("1.root.json").read_bytes()

    def get(self, *targets):
        """Refreshes; the contents of the targets."""
        updater = Updater(
            str(self.metadata), self.centre.url + "metadata/", str(self.targets), self.centre.url + "targets/",
            bootstrap=self.root,
        )  # fmt: skip
        updater.refresh()
        contents = []
        for target in targets:
            info = updater.get_targetinfo(target)
            if info is None:
                raise Unlisted(target)
            contents.append(Path(updater.download_target(info)).read_bytes())
        return contents

    def refuses(self, *targets):
        try:
            self.get(*targets)
        except (RepositoryError, DownloadError) as error:
            return f"{type(error).__name__}: {error}"
        raise AssertionError("it was accepted")

    def lacks(self, target):
        """Whether the target is not listed, in a repository that is accepted."""
        self.get()
        return "Unlisted" in self.refuses(target)


class Front(PythonTuf):
    """Ours."""

    def __init__(self, centre):
        super().__init__(centre)
        root = self.metadata.parent / "root.json"
        root.write_bytes(self.root)
        assert self.run("--metadata-dir", self.metadata, "init", root) == 0

    def run(self, *args):
        done = subprocess.run([FRONT, *map(str, args)], capture_output=True, text=True, timeout=30)
        self.said = done.stderr
        return done.returncode

    def get(self, *targets):
        url = self.centre.url
        flags = ["--metadata-url", url + "metadata/", "--metadata-dir", self.metadata]
        flags += ["--target-dir", self.targets, "--target-base-url", url + "targets/"]
        flags += [word for target in targets for word in ("--target-name", target)]
        code = self.run(*flags, "download")
        if code:
            assert code == 1, f"exit code {code}: {self.said}"
            raise RepositoryError(self.said)
        return [(self.targets / target.replace("/", "%2F")).read_bytes() for target in targets]

    def lacks(self, target):
        self.get()
        return "no role lists it" in self.refuses(target)


def published_bundles_are_refreshed_and_downloaded(client):
    centre = Centre(WITHOUT_POLICIES)
    node = client(centre)
    for version in ["1", "2"]:
        targets = centre.release(version)
        assert node.get(*targets) == centre.published(*targets)
        assert node.get(*targets) == centre.published(*targets)
    assert client(centre).get(*targets) == centre.published(*targets)
    centre.build("refresh-timestamp", "repo", "--timestamp-key", centre.keys["timestamp"])
    before = Metadata.from_file(str(node.metadata / "timestamp.json")).signed.version
    node.get()
    assert Metadata.from_file(str(node.metadata / "timestamp.json")).signed.version == before + 1


def policies_are_found_and_follow_each_other(client):
    centre = Centre()
    centre.release("1")
    node = client(centre)
    for zone in ["Europe/Berlin", "America/New_York"]:
        policy = centre.policy(schedule={"maintenanceWindow": "Tue 02:00-04:00", "timezone": zone})
        (content,) = node.get(policy)
        assert json.loads(content)["spec"]["schedule"]["timezone"] == zone
    assert client(centre).get(policy) == [content] == centre.published(policy)
    # What is not listed is not there, and the role speaks of nothing else.
    for unknown in ["policies/testing/edge/policy.json", "policies/policy.json", f"{POLICY}/x", "bundles/a/b/c"]:
        assert node.lacks(unknown), unknown


def a_repository_gets_the_policies_role_later_and_clients_of_before_find_it(client):
    centre = Centre(WITHOUT_POLICIES)
    targets = centre.release("1")
    node = client(centre)
    node.get(*targets)
    centre.key("policies")
    centre.build("root", "add-key", "repo", "--role", "policies", "--key", centre.keys["policies"])
    centre.build("root", "sign", "repo", "--key", centre.keys["targets"], "--key", centre.keys["policies"])
    centre.build("publish", "repo", *centre.online())
    targets.append(centre.policy())
    for client_of_before in [node, client(centre)]:
        assert client_of_before.get(*targets) == centre.published(*targets)


def policies_keys_cannot_name_a_bundle(client):
    """Their holder signs, and publishes with the online keys, a bundle that the bundles role does not list."""
    centre = Centre()
    centre.release("1")
    centre.policy()
    document = json.loads(centre.newest("policies").read_bytes())
    document["signed"]["version"] += 1
    forged = f"bundles/{VARIANT}/2/index.json"
    entry = {"length": 2, "hashes": {"sha256": hashlib.sha256(b"{}").hexdigest()}}
    document["signed"]["targets"][forged] = entry
    document["signatures"] = []
    (centre.top / "repo.pending" / "policies.json").write_text(json.dumps(document))
    (centre.top / "index.json").write_text("{}")
    centre.build("root", "sign", "repo", "--key", centre.keys["policies"])
    centre.build("publish", "repo", ".", *centre.online())
    assert client(centre).get(POLICY) == centre.published(POLICY)
    assert client(centre).lacks(forged)


def every_key_is_rotated_and_clients_of_the_first_root_follow(client, external=False):
    centre = Centre(external=external)
    first = [*centre.release("1"), centre.policy()]
    old, absent = client(centre), client(centre)
    old.get(*first)
    centre.rotate_every_key()
    assert client(centre).get(*first) == centre.published(*first)
    second = [*centre.release("2"), centre.policy(paused=True)]
    for node in [old, absent, client(centre)]:
        assert node.get(*first, *second) == centre.published(*first, *second)
    assert Metadata.from_file(str(old.metadata / "root.json")).signed.version >= 4


def keys_that_another_program_holds_sign_and_are_rotated_alike(client):
    every_key_is_rotated_and_clients_of_the_first_root_follow(client, external=True)


def whatever_is_tampered_with_is_refused(client):
    centre = Centre()
    targets = [*centre.release("1"), centre.policy()]
    centre.rotate_every_key()
    client(centre).get(*targets)
    # Every metadata file: a byte of what is signed, cut off, emptied, without its signatures, with another one's name.
    for file in centre.current():
        good = file.read_bytes()
        document = json.loads(good)
        signed = document["signed"] | {"expires": "2099-01-01T00:00:00Z"}
        other = centre.metadata("1.targets.json").read_bytes()
        for what, bad in {
            "another expiry": json.dumps(document | {"signed": signed}).encode(),
            "cut off": good[:-10],
            "empty": b"",
            "without signatures": json.dumps(document | {"signatures": []}).encode(),
            "another role's file": other,
        }.items():
            file.write_bytes(bad)
            assert client(centre).refuses(*targets), f"{file.name}: {what}"
        file.write_bytes(good)
    # Every target: a byte, cut off, gone.
    for target in targets:
        folder, _, name = target.rpartition("/")
        (file,) = (centre.top / "repo" / "targets" / folder).glob(f"*.{name}")
        good = file.read_bytes()
        for bad in [good[:-1] + bytes([good[-1] ^ 1]), good[:-1], good + b"x"]:
            file.write_bytes(bad)
            node = client(centre)
            assert node.refuses(target)
            assert list(node.targets.iterdir()) == [], "something was kept"
        file.write_bytes(good)
        assert client(centre).get(target) == centre.published(target)


def an_older_state_is_refused(client):
    centre = Centre()
    centre.release("1")
    centre.policy(paused=True)
    node = client(centre)
    node.get()
    old = centre.metadata("timestamp.json").read_bytes()
    second = [*centre.release("2"), centre.policy()]
    node.get(*second)
    centre.metadata("timestamp.json").write_bytes(old)
    assert node.refuses()
    assert Metadata.from_file(str(node.metadata / "timestamp.json")).signed.version > 1


def cases():
    for function in [
        published_bundles_are_refreshed_and_downloaded,
        policies_are_found_and_follow_each_other,
        policies_keys_cannot_name_a_bundle,
        a_repository_gets_the_policies_role_later_and_clients_of_before_find_it,
        keys_that_another_program_holds_sign_and_are_rotated_alike,
        every_key_is_rotated_and_clients_of_the_first_root_follow,
        whatever_is_tampered_with_is_refused,
        an_older_state_is_refused,
    ]:
        for name, client in [("python-tuf's client", PythonTuf), ("our client", Front)]:
            yield f"{function.__name__.replace('_', ' ')} [{name}]", partial(function, client)
