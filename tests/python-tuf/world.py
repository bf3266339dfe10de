"""A repository that python-tuf builds, a server that writes down what is asked of it, and our client.

Each case gets a whole valid world and breaks one thing in it. Nothing is published by itself: what a case changes is
seen by the client once the case calls one of the methods that sign and put.
"""

import hashlib
import os
import socket
import subprocess
import tempfile
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

FRONT = str(Path(__file__).parents[2] / "conformance" / "prestage-conformance")
TOP = ["timestamp", "snapshot", "targets"]


def in_days(days):
    return datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=days)


def new_signer(keytype):
    return {
        "ed25519": CryptoSigner.generate_ed25519,
        "ecdsa": CryptoSigner.generate_ecdsa,
        "rsa": CryptoSigner.generate_rsa,
    }[keytype]()


class Server:
    """Serves files from memory, over HTTP/1.0 as the official suite does; each repository has a folder."""

    def __init__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.repositories = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.http.server_port}/{name}/"

    def answer(self, handler):
        _, name, path = handler.path.split("/", 2)
        repository = self.repositories[name]
        repository.requests.append(path)
        content = repository.files.get(path)
        if content is None:
            handler.send_error(404)
        elif content == "break off":
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif content == "endless":
            handler.send_response(200)
            handler.end_headers()
            try:
                while True:
                    handler.wfile.write(b" " * 65536)
            except OSError:
                pass
        else:
            handler.send_response(200)
            handler.send_header("Content-length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)


class Repository:
    """Four top-level roles of one key each, signed and put; `md` is the content, `signers` who signs it."""

    def __init__(self, keytype="ed25519", consistent=True, hashes=False):
        self.keytype = keytype
        # Whether snapshot and timestamp list lengths and digests.
        self.hashes = hashes
        self.files = {}
        self.requests = []
        self.md = {
            "root": Metadata(Root(expires=in_days(30), consistent_snapshot=consistent)),
            "timestamp": Metadata(Timestamp(expires=in_days(30))),
            "snapshot": Metadata(Snapshot(expires=in_days(30))),
            "targets": Metadata(Targets(expires=in_days(30))),
        }
        self.signers = {}
        for role in ["root", *TOP]:
            self.add_key(role)
        self.put_root()
        self.put("targets")
        self.put("snapshot")
        self.put("timestamp")

    def __getattr__(self, name):
        # repository.root, .timestamp, .snapshot, .targets
        return self.md[name].signed

    def add_key(self, role, signer=None, delegator=None):
        signer = signer or new_signer(self.keytype)
        self.signers.setdefault(role, []).append(signer)
        (self.md[delegator].signed if delegator else self.root).add_key(signer.public_key, role)
        return signer

    def replace_keys(self, role, delegator=None):
        """New keys for a role. Who had the old ones is returned."""
        old, self.signers[role] = self.signers[role], []
        holder = self.md[delegator].signed if delegator else self.root
        for signer in old:
            holder.revoke_key(signer.public_key.keyid, role)
        for _ in old:
            self.add_key(role, delegator=delegator)
        return old

    def signed(self, role, extra=()):
        """The file as it is published: signed by the role's signers."""
        md = self.md[role]
        md.signatures.clear()
        for signer in [*self.signers[role], *extra]:
            md.sign(signer, append=True)
        return md.to_bytes()

    def name(self, role):
        encoded = quote(role, "")
        versioned = role != "timestamp" and (self.root.consistent_snapshot or role == "root")
        return f"metadata/{self.md[role].signed.version}.{encoded}.json" if versioned else f"metadata/{encoded}.json"

    def put(self, role, content=None):
        self.files[self.name(role)] = self.signed(role) if content is None else content

    def put_root(self, extra=()):
        self.put("root", self.signed("root", extra))

    def bump_root(self, extra=()):
        self.root.version += 1
        self.put_root(extra)

    def meta(self, role):
        md = self.md[role].signed
        if not self.hashes:
            return MetaFile(md.version)
        return MetaFile.from_data(md.version, self.files[self.name(role)], ["sha256"])

    def bump(self, *roles):
        """New versions of these targets roles, and of snapshot and timestamp."""
        for role in roles:
            self.md[role].signed.version += 1
            self.put(role)
            self.snapshot.meta[f"{role}.json"] = self.meta(role)
        self.snapshot.version += 1
        self.put("snapshot")
        self.bump_timestamp()

    def bump_timestamp(self):
        self.timestamp.snapshot_meta = self.meta("snapshot")
        self.timestamp.version += 1
        self.put("timestamp")

    def delegate(self, delegator, role, paths=("*",), terminating=False, prefixes=None, threshold=1, keys=1):
        """A delegation; the role is made (version 1, put) if it is new. Publish with `bump`."""
        holder = self.md[delegator].signed
        if holder.delegations is None:
            holder.delegations = Delegations({}, {})
        holder.delegations.roles[role] = DelegatedRole(
            role, [], threshold, terminating, None if prefixes else list(paths), prefixes
        )
        if role in self.md:
            for signer in self.signers[role]:
                holder.add_key(signer.public_key, role)
            return
        self.md[role] = Metadata(Targets(expires=in_days(30)))
        self.signers[role] = []
        for _ in range(keys):
            self.add_key(role, delegator=delegator)
        self.put(role)
        self.snapshot.meta[f"{role}.json"] = self.meta(role)

    def add_target(self, path, content, role="targets", algorithms=("sha256",)):
        file = TargetFile.from_data(path, content, list(algorithms))
        self.md[role].signed.targets[path] = file
        folder, slash, name = path.rpartition("/")
        names = [f"{digest}.{name}" for digest in file.hashes.values()] if self.root.consistent_snapshot else [name]
        for name in names:
            self.files[f"targets/{folder}{slash}{name}"] = content
        return file


class World:
    """One repository on the server, and one client of ours that trusts its first root."""

    def __init__(self, server, name, keytype="ed25519", init=True, **options):
        self.repo = Repository(keytype, **options)
        server.repositories[name] = self.repo
        self.url = server.url(name)
        self.folder = tempfile.TemporaryDirectory()
        top = Path(self.folder.name)
        self.metadata, self.targets = top / "metadata", top / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        if init:
            assert self.init(self.repo.files["metadata/1.root.json"]) == 0

    def client(self, *args):
        self.repo.requests.clear()
        run = subprocess.run([FRONT, *map(str, args)], capture_output=True, timeout=30)
        self.said = run.stderr.decode(errors="replace")
        return run.returncode

    def init(self, root):
        path = self.metadata.parent / "trusted.json"
        path.write_bytes(root)
        return self.client("--metadata-dir", self.metadata, "init", path)

    def refresh(self):
        return self.client("--metadata-url", self.url + "metadata/", "--metadata-dir", self.metadata, "refresh")

    def download(self, *names):
        flags = [flag for name in names for flag in ("--target-name", name)]
        flags += ["--target-dir", self.targets, "--target-base-url", self.url + "targets/"]
        url = self.url + "metadata/"
        return self.client("--metadata-url", url, "--metadata-dir", self.metadata, *flags, "download")

    def expect(self, code, found):
        assert found == code, f"exit code {found}, not {code}: {self.said}"

    def ok(self, *targets):
        self.expect(0, self.download(*targets) if targets else self.refresh())

    def refused(self, *targets, because=""):
        self.expect(1, self.download(*targets) if targets else self.refresh())
        assert because in self.said, f"not refused because of {because!r}: {self.said}"

    def asked(self):
        """The metadata files that the last run asked for, in order."""
        return [path.removeprefix("metadata/") for path in self.repo.requests if path.startswith("metadata/")]

    def asked_below(self):
        """The same without the top-level roles and versions."""
        names = [name.removesuffix(".json").lstrip("0123456789").lstrip(".") for name in self.asked()]
        return [name for name in names if name not in ["root", *TOP]]

    def asked_targets(self):
        return [path for path in self.repo.requests if path.startswith("targets/")]

    def stored(self):
        """Role → version of everything that the client keeps."""
        found = {}
        for file in sorted(os.listdir(self.metadata)):
            if file.endswith(".json"):
                found[file.removesuffix(".json")] = Metadata.from_file(str(self.metadata / file)).signed.version
        return found

    def keeps(self, root, timestamp=None, snapshot=None, targets=None, **others):
        want = {"root": root, "timestamp": timestamp, "snapshot": snapshot, "targets": targets, **others}
        want = {role: version for role, version in want.items() if version}
        assert self.stored() == want, f"it keeps {self.stored()}, not {want}; {self.said}"

    def got(self):
        """The contents of the target folder, by age."""
        files = sorted((f for f in self.targets.rglob("*") if f.is_file()), key=lambda f: f.stat().st_mtime_ns)
        assert not [f for f in files if f.name.startswith(".")], "a temporary file was left"
        return [f.read_bytes() for f in files]


def key_with(key, **fields):
    """The public key with other or further fields, and so under another id: that of the whole object."""
    fields = key.to_dict() | fields
    return Key.from_dict(hashlib.sha256(encode_canonical(fields).encode()).hexdigest(), fields)
