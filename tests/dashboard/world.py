"""A real prestage-fleet with a real repository and 10,000 nodes that have enrolled and reported through its API.

Everything that nodes say goes in signed, as nodes send it. What only time can make is written into the database before
the browser looks: rows of the history, and that some nodes were heard of last three days ago.
"""

import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chromium import Failed, PATIENCE

PROJECT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BIN = os.environ.get("PRESTAGE_BIN", os.path.join(PROJECT, "target/debug"))

# What must never become more than text. Wherever a node or a person can say something, it says this.
HOSTILE = "<img src=x onerror=\"window.hit='img'\"><script>window.hit='script'</script><svg onload=\"window.hit='svg'\">'\"><a href=\"javascript:hit\">x</a>{{7*7}}&lt;b&gt;\u202egnp.exe"
VARIANTS = ["debian-12-amd64", "debian-13-amd64", "rocky-9-x86_64"]
OLD, NEW = "20261103-41", "20261123-43"


def wire(at):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def canonical(value):
    """The form that is signed: sorted, no white space, only the quote and the backslash escaped (format/src/json.rs)."""
    if isinstance(value, dict):
        return b"{" + b",".join(canonical(key) + b":" + canonical(value[key]) for key in sorted(value)) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, str):
        return b'"' + value.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
    return json.dumps(value).encode()


def sha(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()


class Node:
    """One node: its key, and what it says of itself."""

    def __init__(self, name, labels, variant):
        self.name, self.labels, self.variant = name, labels, variant
        self.key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.public = {
            "keytype": "ed25519", "scheme": "ed25519",
            "keyval": {"public": self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()},
        }
        self.key_id = sha(canonical(self.public))

    def seal(self, signed):
        signed = {"apiVersion": "patchmgmt.io/v1", **signed}
        return {"signed": signed, "signatures": [{"keyid": self.key_id, "sig": self.key.sign(canonical(signed)).hex()}]}

    def enrollment(self, token, at):
        site = {"site": self.labels["site"]} if "site" in self.labels else {}
        return self.seal({"kind": "NodeEnrollment", "node": self.name, "publicKey": self.public, "variant": self.variant,
                          "labels": self.labels, "sentAt": wire(at), "token": token, **site})

    def report(self, at, step, outcome, code, message, bundle, **more):
        transaction = more.get("transaction")
        name = step.capitalize()
        identity = sha(f"{self.name}\n{wire(at)}\n{transaction or ''}\n{name}\n{message}")
        return self.seal({"kind": "NodeReport", "id": identity, "node": self.name, "at": wire(at), "variant": self.variant, "step": step,
                          "outcome": outcome, "exitCode": code, "message": message, "bundle": bundle, "seconds": 41,
                          "bytesReceived": 4_200_000, "bytesFromSite": 900_000, **more})

    def status(self, at, state, summary, **more):
        inventory = more.pop("inventory", None)
        return self.seal({"kind": "NodeStatus", "metadata": {"name": self.name, "labels": self.labels}, "sentAt": wire(at),
                          **({"inventory": inventory} if inventory else {}),
                          "status": {"updatedAt": wire(at), "agentVersion": "0.2.0", "variant": self.variant, "state": state,
                                     "summary": summary, "quarantine": [], "rebootRequired": False, "reportsQueued": 0,
                                     "policy": "operations/tills", **more}})


def step(name, at, outcome, code, message):
    return {"step": name, "at": wire(at), "outcome": outcome, "exitCode": code, "message": message, "seconds": 74,
            "bytesReceived": 4_200_000, "bytesFromSite": 0, "requests": 14}


class World:
    """The server and what is around it. A context manager: at the end nothing of it is left."""

    def __init__(self, nodes=10_000):
        self.count = nodes

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="prestage-dashboard.")
        self.server = None
        try:
            self.bundles = self.publish()
            self.configure()
            self.admin = self.token("admin")
            self.start()
            self.seed()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        subprocess.run(["gpgconf", "--homedir", f"{self.folder}/gpg", "--kill", "all"], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------- the repository

    def build(self, *arguments, **options):
        return self.run(f"{BIN}/prestage-build", *arguments, **options)

    def run(self, *command, **options):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def publish(self):
        """Two bundles for each variant's worth of nothing: one small package, from an archive of our own."""
        archive, home = f"{self.folder}/archive", f"{self.folder}/gpg"
        self.repository = f"{self.folder}/repository"
        os.makedirs(f"{archive}/pool")
        os.makedirs(home, mode=0o700)
        gpg = ["gpg", "--homedir", home, "--batch", "--yes"]
        self.run(*gpg, "--passphrase", "", "--quick-gen-key", "Test Archive", "ed25519", "sign", "never")
        self.run(*gpg, "--output", f"{archive}/keyring.gpg", "--export")
        for role in ("root", "targets", "bundles", "policies", "snapshot", "timestamp"):
            self.build("key", "new", self.key(role))
        self.build("root", "init", self.repository, *[part for role in ("root", "targets", "bundles", "policies", "snapshot", "timestamp")
                                                     for part in (f"--{role}-key", self.key(role))])
        with open(f"{self.folder}/inventory", "w", encoding="utf-8") as file:
            file.write("Package: till\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nMaintainer: Test <test@localhost>\nDescription: for tests\n\n")
        found = {}
        for version in (OLD, NEW):
            self.package(archive, version)
            self.archive_release(archive, gpg)
            with open(f"{archive}/sources.list", "w", encoding="utf-8") as file:
                file.write(f"deb file://{archive} stable main\n")
            for variant in VARIANTS[:1]:
                collected, bundle = f"{self.folder}/collected-{version}", f"{self.folder}/bundle-{version}"
                self.build("collect", "apt", "--variant", variant, "--sources", f"{archive}/sources.list", "--keyring",
                           f"{archive}/keyring.gpg", "--inventory", f"{self.folder}/inventory", "--output", collected)
                self.build("bundle", collected, "--version", version, "--cycle", "2026-11", "--output", bundle)
                self.build("sign", self.repository, bundle, "--key", self.key("bundles"))
                self.build("publish", self.repository, bundle, "--snapshot-key", self.key("snapshot"), "--timestamp-key", self.key("timestamp"))
            index = next(name for name in sorted(os.listdir(f"{self.repository}/targets/bundles/{VARIANTS[0]}/{version}")) if name.endswith(".index.json"))
            found[version] = {"version": version, "cycle": "2026-11", "serial": len(found) + 1, "index": index.split(".")[0]}
        self.policy(OLD, "first")
        self.policy(NEW, "raised")
        return found

    def key(self, role):
        return f"{self.folder}/{role}.key"

    def package(self, archive, version):
        """A package that differs from version to version."""
        tree = f"{self.folder}/package"
        os.makedirs(f"{tree}/DEBIAN", exist_ok=True)
        with open(f"{tree}/DEBIAN/control", "w", encoding="utf-8") as file:
            file.write(f"Package: till\nVersion: {version}\nArchitecture: amd64\nMaintainer: Test <test@localhost>\nDescription: for tests\n")
        self.run("dpkg-deb", "--root-owner-group", "--build", tree, f"{archive}/pool/till_{version}_amd64.deb")

    def archive_release(self, archive, gpg):
        binary = f"{archive}/dists/stable/main/binary-amd64"
        os.makedirs(binary, exist_ok=True)
        with open(f"{binary}/Packages", "w", encoding="utf-8") as file:
            file.write(self.run("apt-ftparchive", "packages", "pool", cwd=archive))
        options = [f"-o=APT::FTPArchive::Release::{name}={value}" for name, value in
                   (("Origin", "Test"), ("Suite", "stable"), ("Codename", "stable"), ("Components", "main"), ("Architectures", "amd64"))]
        with open(f"{archive}/dists/stable/Release", "w", encoding="utf-8") as file:
            file.write(self.run("apt-ftparchive", *options, "release", "dists/stable", cwd=archive))
        self.run(*gpg, "--output", f"{archive}/dists/stable/InRelease", "--clearsign", f"{archive}/dists/stable/Release")

    def policy(self, version, commit):
        """What a Git pipeline does with the policy of the tills."""
        folder = f"{self.folder}/policies"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/tills.yaml", "w", encoding="utf-8") as file:
            file.write(f"""apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata:
  name: tills
  namespace: operations
spec:
  bundleRef:
    version: "{version}"
  targets:
    selector:
      matchLabels:
        role: till
  rolloutStrategy:
    type: RollingUpdate
    batchSize: {max(1, self.count // 40)}
    batchDelayMinutes: 15
    failureThreshold: "60%"
    canary:
      matchLabels:
        ring: canary
""")
        self.build("policy", "publish", self.repository, folder, "--key", self.key("policies"), "--nodes", str(self.count))
        self.build("publish", self.repository, "--snapshot-key", self.key("snapshot"), "--timestamp-key", self.key("timestamp"))

    # ----------------------------------------------------------------------------------------------- the server

    def configure(self):
        control = [f"{BIN}/prestage-build", "policy", "{action}", self.repository, "{policy}", "--reason={reason}", "--by={by}",
                   "--key", self.key("policies"), "--snapshot-key", self.key("snapshot"), "--timestamp-key", self.key("timestamp")]
        with open(f"{self.folder}/fleet.toml", "w", encoding="utf-8") as file:
            file.write(f"""[server]
listen = "127.0.0.1:0"
[database]
url = "sqlite:{self.folder}/fleet.db"
[repository]
location = "{self.repository}"
root = "{self.repository}/metadata/1.root.json"
every-seconds = 1
[control]
command = {json.dumps(control)}
[limits]
requests = 1000000
enrollments = 1000000
logins = 1000
""")

    def fleet(self, *arguments):
        return self.run(f"{BIN}/prestage-fleet", "--config", f"{self.folder}/fleet.toml", *arguments)

    def token(self, role):
        """An operator's token, made on the server's own machine."""
        return self.fleet("token", "new", "--name", f"{role} of the test", "--role", role).strip()

    def start(self):
        log = f"{self.folder}/server.log"
        with open(log, "ab") as file:
            before = file.tell()
            self.server = subprocess.Popen([f"{BIN}/prestage-fleet", "--config", f"{self.folder}/fleet.toml", "serve"],
                                           stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while True:
            with open(log, encoding="utf-8", errors="replace") as file:
                file.seek(before)
                said = file.read()
            if "http://" in said:
                self.url = "http://" + said.split("http://", 1)[1].split()[0].rstrip("/.,;")
                break
            if self.server.poll() is not None or time.monotonic() > end:
                raise Failed(f"prestage-fleet does not serve: {said}")
            time.sleep(0.05)
        # The same address again after a restart: the browser comes back to it.
        with open(f"{self.folder}/fleet.toml", encoding="utf-8") as file:
            text = file.read()
        with open(f"{self.folder}/fleet.toml", "w", encoding="utf-8") as file:
            file.write(text.replace("127.0.0.1:0", self.url.split("//")[1]))

    def stop(self, how=signal.SIGTERM):
        if self.server and self.server.poll() is None:
            os.killpg(self.server.pid, how)
            try:
                self.server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(self.server.pid, signal.SIGKILL)
                self.server.wait()

    def api(self, method, path, body=None, token=None, keep=None):
        """A request as an operator's program makes it; `keep` is a connection to go on with."""
        connection = keep or http.client.HTTPConnection(self.url.split("//")[1], timeout=PATIENCE)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {data[:500]!r}")
        return json.loads(data) if data else None

    # ------------------------------------------------------------------------------------------------ the nodes

    def make_nodes(self):
        random.seed(8)
        nodes = []
        for i in range(self.count):
            site = f"store-{i // 12:04}"
            labels = {"role": "till", "site": site, "region": "north" if i % 2 else "south", **({"ring": "canary"} if i % 500 == 0 else {})}
            if i == 3:
                labels = {**labels, "site": HOSTILE, "note": HOSTILE}
            nodes.append(Node(f"{site}-till-{i % 12:02}", labels, VARIANTS[i % 3]))
        return nodes

    def seed(self):
        self.nodes = self.make_nodes()
        now = int(time.time())
        keep = http.client.HTTPConnection(self.url.split("//")[1], timeout=PATIENCE)
        token = self.api("POST", "tokens", {"kind": "enrollment", "name": "kickstart", "uses": 100_000}, self.admin, keep)["token"]
        for node in self.nodes:
            self.api("POST", "enrollments", node.enrollment(token, now), keep=keep)
        documents = []
        for i, node in enumerate(self.nodes):
            documents += self.say(i, node, now)
        for at in range(0, len(documents), 400):
            answer = self.api("POST", "reports", {"documents": documents[at:at + 400]}, keep=keep)
            if answer["refused"]:
                raise Failed(f"the server refuses {answer['refused'][0]}")
        # A set of packages is asked for once for all who have it.
        packages = self.packages()
        digest = sha("".join(f"{one['name']} {one['arch']} {one['version']}\n" for one in packages))
        one = self.nodes[0]
        self.api("PUT", f"inventories/{digest}", one.seal({"kind": "NodeInventory", "node": one.name, "inventory": digest, "packages": packages, "sentAt": wire(now)}), keep=keep)
        self.the_past(now)

    @staticmethod
    def packages():
        return [{"name": f"package-{i:03}", "arch": "amd64", "version": f"1.{i}-1+deb12u{i % 4}"} for i in range(600)]

    def say(self, i, node, now):
        """What node i has to say: a report or two, then its status."""
        old, new = self.bundles[OLD], self.bundles[NEW]
        digest = sha("".join(f"{one['name']} {one['arch']} {one['version']}\n" for one in self.packages()))
        was = {"bundle": old, "at": wire(now - 20 * 86400), "packages": 41, "inventory": digest}
        has = {"bundle": new, "at": wire(now - 7200), "packages": 12, "inventory": digest}
        # A failed canary halts a rollout by itself; that is the server's to be tested for.
        r = random.random() if i % 500 else 0.1
        at = now - random.randint(60, 3000)
        if i == 3 or r < 0.012:
            text = HOSTILE if i == 3 else f"install of {NEW} failed: dpkg could not configure openssl (exit status 2); the node is in its pre-patch state"
            done = step("install", at, "installFailed", 4, f"dpkg: error processing package openssl (--configure):\n installed post-installation script returned exit status 2\n{text}")
            change = {"name": "openssl", "arch": "amd64", "from": "3.0.14-1", "to": HOSTILE if i == 3 else "3.0.15-1"}
            return [node.report(at - 4000, "fetch", "staged", 0, f"everything of {NEW} is here", new),
                    node.report(at, "install", "installFailed", 4, text, new, transaction=f"t{i}", changes=[change], restorePoint="lvm-thin:vg0/prestage_ab12"),
                    node.status(now, "failed", text, install=done, installed=was, inventory=digest,
                                quarantine=[{"bundle": new, "step": "install", "since": wire(at), "exitCode": 4, "reason": text, "ends": "byHand", "wayOut": "prestage install --now insists; another bundle ends it"}],
                                restorePoint={"kind": "lvm-thin", "id": "vg0/prestage_ab12", "before": new})]
        if r < 0.02:
            text = f"bundle {NEW} is refused: member pool/openssl_3.0.15_amd64.deb does not match its digest"
            return [node.report(at, "fetch", "integrityFailure", 2, text, new),
                    node.status(now, "quarantined", text, fetch=step("fetch", at, "integrityFailure", 2, text), installed=was, inventory=digest,
                                quarantine=[{"bundle": new, "step": "fetch", "since": wire(at), "exitCode": 2, "reason": text, "ends": "verified", "wayOut": "nothing to do here: it ends when a fetch verifies all of it"}])]
        if r < 0.0205:
            text = "the rollback failed: the thin pool is full; a person must look"
            return [node.report(at, "install", "needsPerson", 6, text, new, transaction=f"t{i}"),
                    node.status(now, "needsPerson", text, install=step("install", at, "needsPerson", 6, text), installed=was, inventory=digest)]
        if r < 0.30:
            return [node.report(at, "install", "installed", 0, f"patched with {NEW}: 12 packages", new, transaction=f"t{i}", inventory=digest),
                    node.status(now, "upToDate", f"patched with {NEW}", install=step("install", at, "installed", 0, f"patched with {NEW}"), installed=has, inventory=digest if i % 50 else sha(f"other {i % 100}"),
                                restorePoint={"kind": "lvm-thin", "id": "vg0/prestage_ab12", "before": new})]
        if r < 0.35:
            return [node.status(now, "fetching", f"fetching {NEW}: 3.1 of 5.0 MiB", installed=was, inventory=digest,
                                plan={"bundle": new, "packages": 12, "bytesNeeded": 5_000_000, "bytesPresent": 3_100_000, "bundleBytes": 90_000_000, "keptBack": ["vim: held"], "complete": False},
                                transfer={"source": "https://patches.example/", "bytesDone": 3_100_000, "bytesTotal": 5_000_000, "rate": 32_000, "cap": 32_000})]
        if r < 0.37:
            return [node.status(now, "deferred", "the battery is low: it will be tried again", installed=was, inventory=digest)]
        if r < 0.372:
            return []  # enrolled, and never heard of again
        if i % 997 == 5:
            # A clock that is three hours ahead.
            return [node.status(now + 3 * 3600, "staged", f"{NEW} is staged; waits for the window Tue 02:00-04:00", installed=was, inventory=digest)]
        return [node.status(now, "staged", f"{NEW} is staged; waits for the window Tue 02:00-04:00", installed=was, inventory=digest,
                            plan={"bundle": new, "packages": 12, "bytesNeeded": 5_000_000, "bytesPresent": 5_000_000, "bundleBytes": 90_000_000, "complete": True})]

    def the_past(self, now):
        """What only time can make."""
        with sqlite3.connect(f"{self.folder}/fleet.db", timeout=PATIENCE) as database:
            for i in range(2, 200):
                at = now - now % 300 - i * 300
                share = 1 - i / 200
                states = {"upToDate": int(self.count * 0.3 * share), "failed": int(self.count * 0.012 * max(0, share - 0.6) / 0.4), "silent": 40}
                states["staged"] = self.count - sum(states.values())
                if not 90 < i < 100:  # when nobody recorded anything
                    database.execute("INSERT OR REPLACE INTO history (step, at, states, received, from_site, reports) VALUES (300, ?, ?, ?, ?, ?)",
                                     (at, json.dumps(states), int(3e8 * share + (i % 7) * 1e7), int(9e8 * share), 300))
            database.execute("UPDATE nodes SET last_seen = last_seen - 3 * 86400 WHERE state = 'staged' AND rowid % 150 = 1")
        database.close()
