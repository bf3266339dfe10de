"""A real prestage-fleet with a real repository and 10,000 nodes that have enrolled and reported through its API.

Everything that nodes say goes in signed, as nodes send it. What only time can make is written into the database before
the browser looks: rows of the history, that nodes enrolled a month ago, and that some were heard of last three days ago.
"""

import concurrent.futures
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

from chromium import Failed, PATIENCE
from nodes import HOSTILE, NEW, OLD, VARIANTS, Node, packages, say, sha, wire

PROJECT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BIN = os.environ.get("PRESTAGE_BIN", os.path.join(PROJECT, "target/debug"))

LINES = 8  # connections over which nodes enrol


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
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=120, **options
        )
        if done.returncode != 0:
            raise Failed(
                f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
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
        self.build(
            "root",
            "init",
            self.repository,
            *[
                part
                for role in ("root", "targets", "bundles", "policies", "snapshot", "timestamp")
                for part in (f"--{role}-key", self.key(role))
            ],
        )
        with open(f"{self.folder}/inventory", "w", encoding="utf-8") as file:
            file.write(
                "Package: till\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nMaintainer: Test <test@localhost>\nDescription: for tests\n\n"
            )
        found = {}
        for version in (OLD, NEW):
            self.package(archive, version)
            self.archive_release(archive, gpg)
            with open(f"{archive}/sources.list", "w", encoding="utf-8") as file:
                file.write(f"deb file://{archive} stable main\n")
            for variant in VARIANTS[:1]:
                collected, bundle = f"{self.folder}/collected-{version}", f"{self.folder}/bundle-{version}"
                self.build(
                    "collect",
                    "apt",
                    "--variant",
                    variant,
                    "--sources",
                    f"{archive}/sources.list",
                    "--keyring",
                    f"{archive}/keyring.gpg",
                    "--inventory",
                    f"{self.folder}/inventory",
                    "--output",
                    collected,
                )
                self.build(
                    "bundle", collected, "--version", version, "--cycle", "2026-11", "--output", bundle
                )
                self.build("sign", self.repository, bundle, "--key", self.key("bundles"))
                self.build(
                    "publish",
                    self.repository,
                    bundle,
                    "--snapshot-key",
                    self.key("snapshot"),
                    "--timestamp-key",
                    self.key("timestamp"),
                )
            index = next(
                name
                for name in sorted(os.listdir(f"{self.repository}/targets/bundles/{VARIANTS[0]}/{version}"))
                if name.endswith(".index.json")
            )
            found[version] = {
                "version": version,
                "cycle": "2026-11",
                "serial": len(found) + 1,
                "index": index.split(".")[0],
            }
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
            file.write(
                f"Package: till\nVersion: {version}\nArchitecture: amd64\nMaintainer: Test <test@localhost>\nDescription: for tests\n"
            )
        self.run(
            "dpkg-deb", "--root-owner-group", "--build", tree, f"{archive}/pool/till_{version}_amd64.deb"
        )

    def archive_release(self, archive, gpg):
        binary = f"{archive}/dists/stable/main/binary-amd64"
        os.makedirs(binary, exist_ok=True)
        with open(f"{binary}/Packages", "w", encoding="utf-8") as file:
            file.write(self.run("apt-ftparchive", "packages", "pool", cwd=archive))
        options = [
            f"-o=APT::FTPArchive::Release::{name}={value}"
            for name, value in (
                ("Origin", "Test"),
                ("Suite", "stable"),
                ("Codename", "stable"),
                ("Components", "main"),
                ("Architectures", "amd64"),
            )
        ]
        with open(f"{archive}/dists/stable/Release", "w", encoding="utf-8") as file:
            file.write(self.run("apt-ftparchive", *options, "release", "dists/stable", cwd=archive))
        self.run(
            *gpg,
            "--output",
            f"{archive}/dists/stable/InRelease",
            "--clearsign",
            f"{archive}/dists/stable/Release",
        )

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
        self.build(
            "policy",
            "publish",
            self.repository,
            folder,
            "--key",
            self.key("policies"),
            "--nodes",
            str(self.count),
        )
        self.build(
            "publish",
            self.repository,
            "--snapshot-key",
            self.key("snapshot"),
            "--timestamp-key",
            self.key("timestamp"),
        )

    # ----------------------------------------------------------------------------------------------- the server

    def configure(self):
        control = [
            f"{BIN}/prestage-build",
            "policy",
            "{action}",
            self.repository,
            "{policy}",
            "--reason={reason}",
            "--by={by}",
            "--key",
            self.key("policies"),
            "--snapshot-key",
            self.key("snapshot"),
            "--timestamp-key",
            self.key("timestamp"),
        ]
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
            self.server = subprocess.Popen(
                [f"{BIN}/prestage-fleet", "--config", f"{self.folder}/fleet.toml", "serve"],
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
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
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
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
            labels = {
                "role": "till",
                "site": site,
                "region": "north" if i % 2 else "south",
                **({"ring": "canary"} if i % 500 == 0 else {}),
            }
            if i == 3:
                labels = {**labels, "site": HOSTILE, "note": HOSTILE}
            nodes.append(Node(f"{site}-till-{i % 12:02}", labels, VARIANTS[i % 3]))
        return nodes

    def seed(self):
        self.nodes = self.make_nodes()
        now = int(time.time())
        token = self.api(
            "POST", "tokens", {"kind": "enrollment", "name": "kickstart", "uses": 100_000}, self.admin
        )["token"]
        with concurrent.futures.ThreadPoolExecutor(LINES) as lines:
            list(
                lines.map(
                    lambda part: self.enrol(part, token, now), [self.nodes[i::LINES] for i in range(LINES)]
                )
            )
        keep = http.client.HTTPConnection(self.url.split("//")[1], timeout=PATIENCE)
        documents = []
        for i, node in enumerate(self.nodes):
            documents += say(i, node, now, self.bundles)
        for at in range(0, len(documents), 400):
            answer = self.api("POST", "reports", {"documents": documents[at : at + 400]}, keep=keep)
            if answer["refused"]:
                raise Failed(f"the server refuses {answer['refused'][0]}")
        # A set of packages is asked for once for all who have it.
        installed = packages()
        digest = sha("".join(f"{one['name']} {one['arch']} {one['version']}\n" for one in installed))
        one = self.nodes[0]
        self.api(
            "PUT",
            f"inventories/{digest}",
            one.seal(
                {
                    "kind": "NodeInventory",
                    "node": one.name,
                    "inventory": digest,
                    "packages": installed,
                    "sentAt": wire(now),
                }
            ),
            keep=keep,
        )
        self.the_past(now)

    def enrol(self, nodes, token, now):
        keep = http.client.HTTPConnection(self.url.split("//")[1], timeout=PATIENCE)
        for node in nodes:
            self.api("POST", "enrollments", node.enrollment(token, now), keep=keep)

    def the_past(self, now):
        """What only time can make."""
        with sqlite3.connect(f"{self.folder}/fleet.db", timeout=PATIENCE) as database:
            for i in range(2, 200):
                at = now - now % 300 - i * 300
                share = 1 - i / 200
                states = {
                    "upToDate": int(self.count * 0.3 * share),
                    "failed": int(self.count * 0.012 * max(0, share - 0.6) / 0.4),
                    "silent": 40,
                }
                states["staged"] = self.count - sum(states.values())
                if not 90 < i < 100:  # when nobody recorded anything
                    database.execute(
                        "INSERT OR REPLACE INTO history (step, at, states, received, from_site, reports) VALUES (300, ?, ?, ?, ?, ?)",
                        (at, json.dumps(states), int(3e8 * share + (i % 7) * 1e7), int(9e8 * share), 300),
                    )
            database.execute("UPDATE nodes SET enrolled = enrolled - 30 * 86400")
            database.execute(
                "UPDATE nodes SET last_seen = last_seen - 3 * 86400 WHERE state = 'staged' AND rowid % 150 = 1"
            )
        database.close()
