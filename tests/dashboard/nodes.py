"""Nodes and what they say, signed as real ones sign it (format/src/envelope.rs)."""

import hashlib
import json
import random
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
            "keytype": "ed25519",
            "scheme": "ed25519",
            "keyval": {"public": self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()},
        }
        self.key_id = sha(canonical(self.public))

    def seal(self, signed):
        signed = {"apiVersion": "patchmgmt.io/v1", **signed}
        return {
            "signed": signed,
            "signatures": [{"keyid": self.key_id, "sig": self.key.sign(canonical(signed)).hex()}],
        }

    def enrollment(self, token, at):
        site = {"site": self.labels["site"]} if "site" in self.labels else {}
        return self.seal(
            {
                "kind": "NodeEnrollment",
                "node": self.name,
                "publicKey": self.public,
                "variant": self.variant,
                "labels": self.labels,
                "sentAt": wire(at),
                "token": token,
                **site,
            }
        )

    def report(self, at, step, outcome, code, message, bundle, **more):
        transaction = more.get("transaction")
        name = step.capitalize()
        identity = sha(f"{self.name}\n{wire(at)}\n{transaction or ''}\n{name}\n{message}")
        return self.seal(
            {
                "kind": "NodeReport",
                "id": identity,
                "node": self.name,
                "at": wire(at),
                "variant": self.variant,
                "step": step,
                "outcome": outcome,
                "exitCode": code,
                "message": message,
                "bundle": bundle,
                "seconds": 41,
                "bytesReceived": 4_200_000,
                "bytesFromSite": 900_000,
                **more,
            }
        )

    def status(self, at, state, summary, **more):
        inventory = more.pop("inventory", None)
        return self.seal(
            {
                "kind": "NodeStatus",
                "metadata": {"name": self.name, "labels": self.labels},
                "sentAt": wire(at),
                **({"inventory": inventory} if inventory else {}),
                "status": {
                    "updatedAt": wire(at),
                    "agentVersion": "0.2.0",
                    "variant": self.variant,
                    "state": state,
                    "summary": summary,
                    "quarantine": [],
                    "rebootRequired": False,
                    "reportsQueued": 0,
                    "policy": "operations/tills",
                    **more,
                },
            }
        )


def step(name, at, outcome, code, message):
    return {
        "step": name,
        "at": wire(at),
        "outcome": outcome,
        "exitCode": code,
        "message": message,
        "seconds": 74,
        "bytesReceived": 4_200_000,
        "bytesFromSite": 0,
        "requests": 14,
    }


def packages():
    return [
        {"name": f"package-{i:03}", "arch": "amd64", "version": f"1.{i}-1+deb12u{i % 4}"} for i in range(600)
    ]


def say(i, node, now, bundles):
    """What node i has to say: a report or two, then its status."""
    old, new = bundles[OLD], bundles[NEW]
    digest = sha("".join(f"{one['name']} {one['arch']} {one['version']}\n" for one in packages()))
    was = {"bundle": old, "at": wire(now - 20 * 86400), "packages": 41, "inventory": digest}
    has = {"bundle": new, "at": wire(now - 7200), "packages": 12, "inventory": digest}
    # A failed canary halts a rollout by itself; that is the server's to be tested for.
    r = random.random() if i % 500 else 0.1
    at = now - random.randint(60, 3000)
    if i == 3 or r < 0.012:
        text = (
            HOSTILE
            if i == 3
            else f"install of {NEW} failed: dpkg could not configure openssl (exit status 2); the node is in its pre-patch state"
        )
        done = step(
            "install",
            at,
            "installFailed",
            4,
            f"dpkg: error processing package openssl (--configure):\n installed post-installation script returned exit status 2\n{text}",
        )
        change = {
            "name": "openssl",
            "arch": "amd64",
            "from": "3.0.14-1",
            "to": HOSTILE if i == 3 else "3.0.15-1",
        }
        return [
            node.report(at - 4000, "fetch", "staged", 0, f"everything of {NEW} is here", new),
            node.report(
                at,
                "install",
                "installFailed",
                4,
                text,
                new,
                transaction=f"t{i}",
                changes=[change],
                restorePoint="lvm-thin:vg0/prestage_ab12",
            ),
            node.status(
                now,
                "failed",
                text,
                install=done,
                installed=was,
                inventory=digest,
                quarantine=[
                    {
                        "bundle": new,
                        "step": "install",
                        "since": wire(at),
                        "exitCode": 4,
                        "reason": text,
                        "ends": "byHand",
                        "wayOut": "prestage install --now insists; another bundle ends it",
                    }
                ],
                restorePoint={"kind": "lvm-thin", "id": "vg0/prestage_ab12", "before": new},
            ),
        ]
    if r < 0.02:
        text = f"bundle {NEW} is refused: member pool/openssl_3.0.15_amd64.deb does not match its digest"
        return [
            node.report(at, "fetch", "integrityFailure", 2, text, new),
            node.status(
                now,
                "quarantined",
                text,
                fetch=step("fetch", at, "integrityFailure", 2, text),
                installed=was,
                inventory=digest,
                quarantine=[
                    {
                        "bundle": new,
                        "step": "fetch",
                        "since": wire(at),
                        "exitCode": 2,
                        "reason": text,
                        "ends": "verified",
                        "wayOut": "nothing to do here: it ends when a fetch verifies all of it",
                    }
                ],
            ),
        ]
    if r < 0.0205:
        text = "the rollback failed: the thin pool is full; a person must look"
        return [
            node.report(at, "install", "needsPerson", 6, text, new, transaction=f"t{i}"),
            node.status(
                now,
                "needsPerson",
                text,
                install=step("install", at, "needsPerson", 6, text),
                installed=was,
                inventory=digest,
            ),
        ]
    if r < 0.30:
        return [
            node.report(
                at,
                "install",
                "installed",
                0,
                f"patched with {NEW}: 12 packages",
                new,
                transaction=f"t{i}",
                inventory=digest,
            ),
            node.status(
                now,
                "upToDate",
                f"patched with {NEW}",
                install=step("install", at, "installed", 0, f"patched with {NEW}"),
                installed=has,
                inventory=digest if i % 50 else sha(f"other {i % 100}"),
                restorePoint={"kind": "lvm-thin", "id": "vg0/prestage_ab12", "before": new},
            ),
        ]
    if r < 0.35:
        return [
            node.status(
                now,
                "fetching",
                f"fetching {NEW}: 3.1 of 5.0 MiB",
                installed=was,
                inventory=digest,
                plan={
                    "bundle": new,
                    "packages": 12,
                    "bytesNeeded": 5_000_000,
                    "bytesPresent": 3_100_000,
                    "bundleBytes": 90_000_000,
                    "keptBack": ["vim: held"],
                    "complete": False,
                },
                transfer={
                    "source": "https://patches.example/",
                    "bytesDone": 3_100_000,
                    "bytesTotal": 5_000_000,
                    "rate": 32_000,
                    "cap": 32_000,
                },
            )
        ]
    if r < 0.37:
        return [
            node.status(
                now,
                "deferred",
                "the battery is low: it will be tried again",
                installed=was,
                inventory=digest,
            )
        ]
    if r < 0.372:
        return []  # enrolled, and never heard of again
    if i % 997 == 5:
        # A clock that is three hours ahead.
        return [
            node.status(
                now + 3 * 3600,
                "staged",
                f"{NEW} is staged; waits for the window Tue 02:00-04:00",
                installed=was,
                inventory=digest,
            )
        ]
    return [
        node.status(
            now,
            "staged",
            f"{NEW} is staged; waits for the window Tue 02:00-04:00",
            installed=was,
            inventory=digest,
            plan={
                "bundle": new,
                "packages": 12,
                "bytesNeeded": 5_000_000,
                "bytesPresent": 5_000_000,
                "bundleBytes": 90_000_000,
                "complete": True,
            },
        )
    ]
