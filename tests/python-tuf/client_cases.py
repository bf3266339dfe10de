"""Our client against repositories that python-tuf builds. Named for the promise or the attack.

Each case is given a factory of worlds: `world()` is a valid repository and a client that trusts its first root.
"""

import hashlib
import json
from urllib.parse import quote

from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata

from world import World, in_days, key_with, new_signer

CASES = []
FIRST = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]


def case(*keytypes):
    """A case, for the given kinds of keys."""

    def register(function):
        CASES.extend((function, keytype) for keytype in keytypes)
        return function

    return register


both = case("ed25519", "ecdsa")
once = case("ed25519")


def cases(server):
    for function, keytype in CASES:
        title = f"{function.__name__.replace('_', ' ')} [{keytype}]"

        def run(function=function, keytype=keytype):
            count = 0

            def world(**options):
                nonlocal count
                count += 1
                return World(server, f"{function.__name__}-{keytype}-{count}", keytype, **options)

            function(world)

        yield title, run


def altered(content, change):
    """The signed part changed by `change`, the signatures left as they were."""
    document = json.loads(content)
    change(document["signed"])
    return json.dumps(document).encode()


# --- The order of requests, and what is kept


@both
def first_refresh_asks_for_exactly_four_files_and_keeps_their_bytes(world):
    w = world()
    w.ok()
    assert w.asked() == FIRST, w.asked()
    w.keeps(root=1, timestamp=1, snapshot=1, targets=1)
    for role in ["timestamp", "snapshot", "targets"]:
        assert (w.metadata / f"{role}.json").read_bytes() == w.repo.files[w.repo.name(role)]


@both
def a_refresh_without_news_asks_for_the_next_root_and_the_timestamp(world):
    w = world()
    w.ok()
    w.ok()
    assert w.asked() == FIRST[:2], w.asked()
    w.repo.bump()
    w.ok()
    assert w.asked() == ["2.root.json", "timestamp.json", "2.snapshot.json"], w.asked()


@both
def a_repository_without_consistent_snapshots(world):
    w = world(consistent=False)
    w.repo.add_target("d/file", b"content")
    w.repo.bump("targets")
    w.ok("d/file")
    assert w.asked() == ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"], w.asked()
    assert w.asked_targets() == ["targets/d/file"] and w.got() == [b"content"]


@once
def lengths_and_digests_of_metadata_are_checked(world):
    w = world(hashes=True)
    w.repo.bump("targets")
    w.ok()
    for role in ["targets", "snapshot"]:
        w = world(hashes=True)
        w.ok()
        w.repo.bump("targets")
        # Signed and of the right version, but not the bytes that were listed.
        w.repo.md[role].signed.unrecognized_fields["other"] = 1
        w.repo.put(role)
        w.refused(because=f"{role}.json is damaged")
        w.keeps(root=1, timestamp=2, snapshot=2 if role == "targets" else 1, targets=1)


@once
def an_interrupted_update_goes_on_from_the_same_timestamp(world):
    w = world()
    content = w.repo.files.pop("metadata/1.snapshot.json")
    w.refused()
    w.keeps(root=1, timestamp=1)
    assert w.asked() == FIRST[:3]
    w.repo.files["metadata/1.snapshot.json"] = content
    w.ok()


@once
def a_missing_file_ends_the_update_and_what_came_before_is_kept(world):
    for missing, kept in [("timestamp", {}), ("1.snapshot", {"timestamp": 1}), ("1.targets", {"timestamp": 1, "snapshot": 1})]:
        for instead in [None, "break off"]:
            w = world()
            w.repo.files[f"metadata/{missing}.json"] = instead
            w.refused()
            assert w.asked()[-1] == f"{missing}.json" and len(w.asked()) == len(kept) + 2, w.asked()
            w.keeps(root=1, **kept)


@once
def endless_metadata_is_cut_off(world):
    for name in FIRST:
        w = world()
        w.repo.files[f"metadata/{name}"] = "endless"
        w.refused(because="larger than")


# --- Roots and keys


@both
def an_initial_root_that_is_not_signed_by_itself_asks_for_nothing(world):
    w = world(init=False)
    good = w.repo.files["metadata/1.root.json"]
    for bad in [altered(good, lambda s: s.pop("version")), altered(good, lambda s: s.update(expires="2099-01-01T00:00:00Z"))]:
        w.init(bad)
        w.refused()
        assert w.repo.requests == []


@both
def roots_are_followed_over_many_versions_with_other_keys_each_time(world):
    w = world()
    for _ in range(6):
        old = w.repo.replace_keys("root")
        w.repo.bump_root(extra=old)
    w.ok()
    assert w.asked()[:7] == [f"{n}.root.json" for n in range(2, 9)], w.asked()
    w.keeps(root=7, timestamp=1, snapshot=1, targets=1)


@both
def a_root_needs_the_thresholds_of_the_old_and_of_the_new(world):
    w = world()
    old = w.repo.replace_keys("root")
    w.repo.bump_root()
    w.refused(because="root.json has 0 valid signatures")
    new, w.repo.signers["root"] = w.repo.signers["root"], old
    w.repo.put_root()
    w.refused(because="root.json has 0 valid signatures")
    w.keeps(root=1)
    w.repo.put_root(extra=new)
    w.ok()


@both
def a_threshold_of_roots_goes_up_and_down(world):
    w = world()
    w.repo.add_key("root")
    w.repo.add_key("root")
    w.repo.root.roles["root"].threshold = 2
    w.repo.bump_root()
    w.ok()
    one, two, three = w.repo.signers["root"]
    w.repo.signers["root"] = [three]
    w.repo.bump_root()
    w.refused(because="1 valid signatures")
    w.repo.root.roles["root"].threshold = 1
    w.repo.put_root()
    w.refused(because="needs 2")
    w.repo.put_root(extra=[one])
    w.ok()
    w.keeps(root=3, timestamp=1, snapshot=1, targets=1)


@once
def the_last_good_root_of_a_chain_is_kept(world):
    w = world()
    w.repo.bump_root()
    w.repo.bump_root()
    w.repo.files["metadata/3.root.json"] = w.repo.files["metadata/2.root.json"]
    w.refused(because="version 2, but version 3 was announced")
    w.keeps(root=2)


@both
def every_role_can_get_other_keys_and_the_old_ones_count_no_more(world):
    for role in ["timestamp", "snapshot", "targets"]:
        w = world()
        w.ok()
        old = w.repo.replace_keys(role)
        w.repo.bump_root()
        w.repo.signers[role], new = old, w.repo.signers[role]
        w.repo.bump("targets")
        w.refused(because=f"{role}.json has 0 valid signatures")
        w.repo.signers[role] = new
        w.repo.put(role)
        w.ok()
        w.keeps(root=2, timestamp=2, snapshot=2, targets=2)


@both
def after_a_rotation_of_keys_lower_versions_recover_from_a_fast_forward(world):
    for role in ["timestamp", "snapshot"]:
        w = world()
        w.repo.md[role].signed.version = 1000
        w.repo.bump("targets")
        w.ok()
        w.repo.md[role].signed.version = 5
        if role == "snapshot":
            w.repo.put("snapshot")
        w.repo.bump_timestamp()
        w.refused(because="older than version")
        # The one key that could have said so is replaced; where the snapshot went ahead, the timestamp named it.
        for rotated in {"timestamp", role}:
            w.repo.replace_keys(rotated)
        w.repo.bump_root()
        if role == "snapshot":
            w.repo.put("snapshot")
        w.repo.bump_timestamp()
        w.ok()


@both
def too_few_signatures_and_none_are_refused_for_every_role(world):
    for role in ["timestamp", "snapshot", "targets"]:
        w = world()
        w.ok()
        w.repo.add_key(role)
        w.repo.root.roles[role].threshold = 2
        w.repo.bump_root()
        w.repo.signers[role].pop()
        w.repo.bump("targets")
        w.refused(because=f"{role}.json has 1 valid signatures")
        w.repo.signers[role] = []
        w.repo.put(role)
        w.refused(because=f"{role}.json has 0 valid signatures")


@both
def a_key_counts_once_however_often_and_under_however_many_ids_it_is_listed(world):
    w = world()
    signer = w.repo.signers["snapshot"][0]
    w.repo.root.roles["snapshot"].keyids.append(signer.public_key.keyid)
    twin = key_with(signer.public_key, note="again")
    w.repo.root.add_key(twin, "snapshot")
    w.repo.root.roles["snapshot"].threshold = 2
    w.repo.bump_root()
    document = json.loads(w.repo.files["metadata/1.snapshot.json"])
    document["signatures"].append({"keyid": twin.keyid, "sig": document["signatures"][0]["sig"]})
    w.repo.files["metadata/1.snapshot.json"] = json.dumps(document).encode()
    w.refused(because="1 valid signatures")


@both
def a_key_id_twice_in_the_signatures_makes_a_file_invalid(world):
    w = world()
    document = json.loads(w.repo.files["metadata/timestamp.json"])
    document["signatures"] *= 2
    w.repo.files["metadata/timestamp.json"] = json.dumps(document).encode()
    w.refused(because="signs twice")


@both
def wrong_empty_and_foreign_signatures_are_passed_over(world):
    w = world()
    document = json.loads(w.repo.files["metadata/timestamp.json"])
    good = document["signatures"][0]["sig"]
    document["signatures"] += [{"keyid": "ab", "sig": ""}, {"keyid": "cd", "sig": "no hex"}, {"keyid": "ef", "sig": good}]
    w.repo.files["metadata/timestamp.json"] = json.dumps(document).encode()
    w.ok()
    w = world()
    w.repo.add_key("timestamp")
    w.repo.bump_root()
    document = json.loads(w.repo.signed("timestamp"))
    document["signatures"][0]["sig"] = good
    w.repo.files["metadata/timestamp.json"] = json.dumps(document).encode()
    w.ok()


@once
def both_kinds_of_keys_in_one_root_and_one_that_nobody_knows(world):
    w = world()
    w.repo.add_key("root", new_signer("ecdsa"))
    w.repo.add_key("root", new_signer("rsa"))
    w.repo.root.roles["root"].threshold = 2
    w.repo.bump_root()
    w.ok()
    # The third is RSA, which counts for nothing here.
    w.repo.root.roles["root"].threshold = 3
    w.repo.bump_root()
    w.refused(because="2 valid signatures")


@case("ecdsa")
def the_older_name_of_the_key_type(world):
    w = world()
    signer = w.repo.signers["timestamp"][0]
    key = key_with(signer.public_key, keytype="ecdsa-sha2-nistp256")
    w.repo.root.revoke_key(signer.public_key.keyid, "timestamp")
    w.repo.root.add_key(key, "timestamp")
    w.repo.bump_root()
    document = json.loads(w.repo.files["metadata/timestamp.json"])
    document["signatures"][0]["keyid"] = key.keyid
    w.repo.files["metadata/timestamp.json"] = json.dumps(document).encode()
    w.ok()


@both
def fields_that_nobody_knows_count_in_signatures_and_key_ids(world):
    for fields in [{"extra": {"b": [1, None, True], "a": "ü\n\"\\"}}, {"keyid_hash_algorithms": "sha256"}]:
        w = world()
        signer = w.repo.signers["timestamp"][0]
        w.repo.root.revoke_key(signer.public_key.keyid, "timestamp")
        key = key_with(signer.public_key, **fields)
        w.repo.root.add_key(key, "timestamp")
        w.repo.root.unrecognized_fields.update(fields)
        w.repo.timestamp.unrecognized_fields.update(fields)
        w.repo.bump_root()
        document = json.loads(w.repo.signed("timestamp"))
        document["signatures"][0]["keyid"] = key.keyid
        w.repo.files["metadata/timestamp.json"] = json.dumps(document).encode()
        w.ok()
        w.repo.files["metadata/timestamp.json"] = altered(w.repo.files["metadata/timestamp.json"], lambda s: s.update(x=1))
        w.refused(because="timestamp.json has 0 valid")


@once
def a_key_under_an_id_that_is_not_its_own_is_refused(world):
    w = world()
    key = w.repo.signers["snapshot"][0].public_key
    key.unrecognized_fields["note"] = "the id was made without this"
    w.repo.bump_root()
    w.refused(because="really has the id")
    w.keeps(root=1)


@once
def another_type_and_another_major_version_are_refused(world):
    for field, value, because in [("_type", "targets", "its _type is"), ("spec_version", "2.0.0", "follows version")]:
        w = world()
        signer = w.repo.signers["snapshot"][0]
        document = json.loads(w.repo.files["metadata/1.snapshot.json"])
        document["signed"][field] = value
        document["signatures"][0]["sig"] = signer.sign(encode_canonical(document["signed"]).encode()).signature
        w.repo.files["metadata/1.snapshot.json"] = json.dumps(document).encode()
        w.refused(because=because)
        w.keeps(root=1, timestamp=1)


# --- Freeze


@both
def expired_metadata_is_a_freeze_and_is_not_kept(world):
    kept = {"timestamp": {}, "snapshot": {"timestamp": 1}, "targets": {"timestamp": 1, "snapshot": 1}}
    for role, rest in kept.items():
        w = world()
        w.repo.md[role].signed.expires = in_days(-1)
        w.repo.put(role)
        w.refused(because=f"{role}.json expired")
        w.keeps(root=1, **rest)


@both
def an_expired_root_is_kept_but_ends_the_update_unless_there_is_a_newer(world):
    w = world()
    w.repo.root.expires = in_days(-1)
    w.repo.bump_root()
    w.refused(because="root.json expired")
    assert w.asked() == ["2.root.json", "3.root.json"], w.asked()
    w.keeps(root=2)
    w.repo.root.expires = in_days(30)
    w.repo.bump_root()
    w.ok()


@once
def an_expired_delegated_role_is_refused(world):
    w = world()
    w.repo.delegate("targets", "role")
    w.repo.md["role"].signed.expires = in_days(-1)
    w.repo.bump("targets", "role")
    w.refused("x", because="role.json expired")


# --- Rollback, mix-and-match


@both
def an_older_timestamp_is_a_rollback(world):
    w = world()
    old = w.repo.files["metadata/timestamp.json"]
    w.repo.bump()
    w.ok()
    w.repo.files["metadata/timestamp.json"] = old
    w.refused(because="timestamp.json is version 1, older")
    w.keeps(root=1, timestamp=2, snapshot=2, targets=1)


@both
def an_older_snapshot_is_a_rollback(world):
    for hashes in [False, True]:
        w = world(hashes=hashes)
        w.repo.bump()
        w.ok()
        w.repo.snapshot.version = 1
        w.repo.bump_timestamp()
        w.refused(because="snapshot.json is version 1, older")
        assert w.asked() == FIRST[:2]
        w.keeps(root=1, timestamp=2, snapshot=2, targets=1)


@both
def older_targets_and_a_role_that_went_away_are_a_rollback(world):
    for hashes in [False, True]:
        w = world(hashes=hashes)
        w.repo.bump("targets")
        w.ok()
        w.repo.targets.version = 1
        w.repo.snapshot.meta["targets.json"] = w.repo.meta("targets")
        w.repo.bump()
        w.refused(because="targets.json is version 1, older")
        w.keeps(root=1, timestamp=3, snapshot=2, targets=2)
    w = world()
    w.repo.delegate("targets", "role")
    w.repo.bump("targets")
    w.ok()
    del w.repo.snapshot.meta["role.json"]
    w.repo.bump()
    w.refused(because="role.json is not listed")


@both
def a_timestamp_of_the_same_version_changes_nothing(world):
    w = world()
    w.ok()
    before = (w.metadata / "timestamp.json").read_bytes()
    w.repo.timestamp.snapshot_meta.version = 100
    w.repo.put("timestamp")
    w.ok()
    assert w.asked() == FIRST[:2]
    assert (w.metadata / "timestamp.json").read_bytes() == before


@both
def files_of_different_states_do_not_mix(world):
    w = world()
    w.repo.bump("targets")
    # Under the new names, the old files: signed and unexpired.
    w.repo.files["metadata/2.snapshot.json"] = w.repo.files["metadata/1.snapshot.json"]
    w.refused(because="snapshot.json is version 1, but version 2")
    w = world()
    w.repo.bump("targets")
    w.repo.files["metadata/2.targets.json"] = w.repo.files["metadata/1.targets.json"]
    w.refused(because="targets.json is version 1, but version 2")
    w.keeps(root=1, timestamp=2, snapshot=2)


# --- Delegations


def graph(w, *edges):
    """Delegations as `a b` (a delegates to b) or `a b!` (terminating)."""
    for edge in edges:
        delegator, role = edge.split()
        w.repo.delegate(delegator, role.rstrip("!"), terminating=role.endswith("!"))
    w.repo.bump(*{delegator for delegator, _ in map(str.split, edges)})


@both
def delegations_are_searched_depth_first_in_order_each_role_once(world):
    for edges, order in [
        (["targets A"], "A"),
        (["targets A", "targets B"], "AB"),
        (["targets A", "targets B", "B C"], "ABC"),
        (["targets A", "targets B", "A C", "A D"], "ACDB"),
        (["targets A", "targets B", "A C", "C D"], "ACDB"),
        (["targets A", "targets B", "A C!", "A D"], "AC"),
        (["targets A", "targets B", "A C!", "C D"], "ACD"),
        (["targets A", "targets B", "B C", "C D", "D B"], "ABCD"),
    ]:
        w = world()
        graph(w, *edges)
        w.refused("missing", because="no role lists it")
        assert w.asked_below() == list(order), (edges, w.asked())


@both
def a_target_must_match_the_paths_of_every_delegation_on_the_way(world):
    found = {"top": "", "README.md": "A", "releases/x/x_v1": "BC", "releases/y/y_v1.zip": "BD"}
    missing = {"releases/z/z_v1.zip": "B", "releases/x/d/f": "", "README.doc.exe": "", "readme.MD": ""}
    for target, order in (found | missing).items():
        w = world()
        w.repo.delegate("targets", "A", paths=["*.doc", "?*.md"])
        w.repo.delegate("targets", "B", paths=["releases/*/*"])
        w.repo.delegate("B", "C", paths=["releases/x/*"])
        w.repo.delegate("B", "D", paths=["releases/y/*.zip"])
        w.repo.add_target("top", b"top")
        for role in "ABCD":
            for path in [*found, *missing]:
                if path != "top":
                    w.repo.add_target(path, b"by " + role.encode(), role)
        # B itself lists none of them, so that the way goes on below it.
        w.repo.md["B"].signed.targets.clear()
        w.repo.bump("targets", *"ABCD")
        if target in found:
            w.ok(target)
            assert w.got() == [b"by " + order[-1].encode() if order else b"top"]
        else:
            w.refused(target, because="no role lists it")
        assert w.asked_below() == list(order), (target, w.asked())


@both
def delegations_by_prefixes_of_the_digest_of_the_path(world):
    w = world()
    digest = hashlib.sha256(b"some/file").hexdigest()
    other = f"{15 - int(digest[0], 16):x}"
    w.repo.delegate("targets", "other-bin", prefixes=[other, digest[0] + ("0" if digest[1] != "0" else "1")])
    w.repo.delegate("targets", "bin", prefixes=[other, digest[:2]])
    w.repo.add_target("some/file", b"wrong", "other-bin")
    w.repo.add_target("some/file", b"content", "bin")
    w.repo.bump("targets", "bin", "other-bin")
    w.ok("some/file")
    assert w.got() == [b"content"] and w.asked_below() == ["bin"], w.asked()


@both
def role_names_of_any_kind_stay_one_file(world):
    for role, encoded in [("?", "%3F"), ("#", "%23"), ("/delegatedrole", "%2Fdelegatedrole"), ("../delegatedrole", "..%2Fdelegatedrole"), ("2.root", "2.root"), ("ü%", "%C3%BC%25")]:
        w = world()
        w.repo.delegate("targets", role)
        w.repo.add_target("file", b"content", role)
        w.repo.bump("targets", role)
        w.ok("file")
        assert w.asked()[-1] == f"2.{encoded}.json", w.asked()
        w.keeps(root=1, timestamp=2, snapshot=2, targets=2, **{encoded: 2})


@both
def a_delegated_role_needs_its_own_threshold(world):
    w = world()
    w.repo.delegate("targets", "role", threshold=2, keys=3)
    w.repo.add_target("file", b"content", "role")
    w.repo.bump("targets", "role")
    w.ok("file")
    w = world()
    w.repo.delegate("targets", "role", threshold=2, keys=3)
    w.repo.add_target("file", b"content", "role")
    w.repo.signers["role"] = w.repo.signers["role"][:1]
    w.repo.bump("targets", "role")
    w.refused("file", because="role.json has 1 valid signatures")
    assert w.got() == []


@both
def a_delegated_role_whose_keys_were_replaced(world):
    w = world()
    w.repo.delegate("targets", "role")
    w.repo.add_target("file", b"content", "role")
    w.repo.bump("targets", "role")
    w.ok("file")
    old = w.repo.replace_keys("role", delegator="targets")
    new, w.repo.signers["role"] = w.repo.signers["role"], old
    w.repo.bump("targets", "role")
    w.refused("file", because="role.json has 0 valid signatures")
    w.repo.signers["role"] = new
    w.repo.put("role")
    w.ok("file")


@both
def a_kept_role_is_verified_by_whoever_delegates_to_it_now(world):
    w = world()
    w.repo.delegate("targets", "A", paths=["*.a"])
    w.repo.delegate("targets", "B", paths=["*.b"])
    w.repo.delegate("A", "C")
    w.repo.add_target("x.a", b"a", "C")
    w.repo.add_target("x.b", b"b", "C")
    w.repo.delegate("B", "C")
    # B gives C another key, with which C is not signed.
    stranger = new_signer(w.repo.keytype)
    w.repo.md["B"].signed.revoke_key(w.repo.signers["C"][0].public_key.keyid, "C")
    w.repo.md["B"].signed.add_key(stranger.public_key, "C")
    w.repo.bump("targets", "A", "B", "C")
    w.ok("x.a")
    w.refused("x.b", because="C.json has 0 valid signatures")
    w.refused("x.a", "x.b", because="C.json has 0 valid signatures")
    assert w.got() == [b"a"]


@once
def a_role_that_the_snapshot_does_not_list_is_not_asked_for(world):
    w = world()
    w.ok()
    w.repo.delegate("targets", "role")
    del w.repo.snapshot.meta["role.json"]
    w.repo.bump("targets")
    w.refused("x", because="role.json is not listed")
    assert w.asked_below() == []


@once
def a_role_that_fails_is_not_replaced_by_the_next(world):
    w = world()
    w.repo.delegate("targets", "A")
    w.repo.delegate("targets", "B")
    w.repo.add_target("file", b"by B", "B")
    w.repo.bump("targets", "A", "B")
    del w.repo.files[w.repo.name("A")]
    w.refused("file")
    assert w.asked_below() == ["A"] and w.got() == []


@once
def a_delegation_to_a_top_level_name_is_refused_and_the_root_stays(world):
    w = world()
    w.repo.delegate("targets", "other")
    w.repo.bump("targets")
    document = json.loads(w.repo.files[w.repo.name("targets")])
    document["signed"]["delegations"]["roles"][0]["name"] = "root"
    signer = w.repo.signers["targets"][0]
    document["signatures"][0]["sig"] = signer.sign(encode_canonical(document["signed"]).encode()).signature
    w.repo.files[w.repo.name("targets")] = json.dumps(document).encode()
    w.refused("x", because="top-level role")
    w.keeps(root=1, timestamp=2, snapshot=2)


@once
def no_more_roles_are_asked_for_than_the_limit(world):
    w = world()
    for n in range(40):
        w.repo.delegate(f"r{n - 1}" if n else "targets", f"r{n}")
    w.repo.bump("targets", *(f"r{n}" for n in range(40)))
    w.refused("x", because="no role lists it")
    assert len(w.asked_below()) == 32, w.asked()


# --- Targets


@both
def a_target_is_fetched_once_and_not_again_while_it_is_right(world):
    w = world()
    w.repo.add_target("path/to/file.txt", b"content")
    w.repo.bump("targets")
    w.ok("path/to/file.txt")
    (asked,) = w.asked_targets()
    assert asked.startswith("targets/path/to/") and asked.endswith(".file.txt"), asked
    (before,) = [f.stat() for f in w.targets.iterdir()]
    w.ok("path/to/file.txt")
    assert w.asked_targets() == [] and w.got() == [b"content"]
    (after,) = [f.stat() for f in w.targets.iterdir()]
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    next(w.targets.iterdir()).write_bytes(b"altered")
    w.ok("path/to/file.txt")
    assert w.got() == [b"content"]


@both
def several_targets_in_one_run_until_the_first_that_fails(world):
    w = world()
    for name in "abc":
        w.repo.add_target(name, name.encode())
    w.repo.bump("targets")
    w.ok("a", "b")
    w.refused("c", "missing", "a")
    assert sorted(w.got()) == [b"a", b"b", b"c"]
    w.refused("missing", "c")


@both
def a_new_content_replaces_the_old_and_a_wrong_one_does_not(world):
    w = world()
    for n in range(3):
        w.repo.add_target("file", b"right %d" % n)
        w.repo.bump("targets")
        w.ok("file")
        assert w.got() == [b"right %d" % n]
        file = w.repo.add_target("file", b"the next %d" % n)
        w.repo.bump("targets")
        # Of the right length, too long, too short, endless, gone.
        for wrong in [b"the nixt %d" % n, b"the next %d and more" % n, b"the", "endless", None]:
            w.repo.files[f"targets/{file.hashes['sha256']}.file"] = wrong
            w.refused("file")
            assert w.got() == [b"right %d" % n]


@both
def sha256_sha512_and_both_but_not_neither(world):
    for algorithms in [["sha256"], ["sha512"], ["sha256", "sha512"]]:
        w = world()
        file = w.repo.add_target("d/file", b"content", algorithms=algorithms)
        w.repo.bump("targets")
        w.ok("d/file")
        assert len(w.asked_targets()) == 1 and w.got() == [b"content"]
        file.hashes[algorithms[-1]] = "00" * (len(file.hashes[algorithms[-1]]) // 2)
        w.repo.files |= {f"targets/d/{digest}.file": b"content" for digest in file.hashes.values()}
        w.repo.bump("targets")
        w.targets.joinpath("d%2Ffile").unlink()
        w.refused("d/file", because=f"its {algorithms[-1]} is")
    w = world()
    w.repo.add_target("d/file", b"content", algorithms=["sha384"])
    w.repo.bump("targets")
    w.refused("d/file", because="no digest of it")
    assert w.asked_targets() == []


@once
def target_paths_of_any_shape(world):
    for path in [".hidden", "a b", "x/../y", "ü/ñ", "-rf", "q?s#f", "long/" * 60 + "x"]:
        w = world()
        w.repo.add_target(path, b"content")
        w.repo.bump("targets")
        # The server looks names up as they came; put them as a URL spells them.
        w.repo.files = {quote(name, "/%~") if name.startswith("targets/") else name: c for name, c in w.repo.files.items()}
        w.ok(path)
        assert w.got() == [b"content"] and len(list(w.targets.iterdir())) == 1


# --- The front itself


@once
def wrong_arguments_end_with_exit_code_1(world):
    w = world()
    for args in [[], ["refresh"], ["--metadata-dir"], ["--unknown", "x", "refresh"], ["--metadata-dir", w.metadata, "init", "/nowhere"], ["--metadata-dir", w.metadata, "--metadata-url", "no url", "refresh"], ["--metadata-dir", w.metadata, "--metadata-url", w.url + "metadata/", "dance"]]:
        w.expect(1, w.client(*args))


@once
def damaged_files_of_the_client_are_fetched_again(world):
    w = world()
    w.ok()
    for damage in [b"", b"{", b"\xff" * 100, b"[" * 100_000, None]:
        for role in ["root", "timestamp", "snapshot", "targets"]:
            path = w.metadata / f"{role}.json"
            path.unlink(missing_ok=True) if damage is None else path.write_bytes(damage)
            w.ok()
            # A root begins again with the one that the client was given.
            assert role == "root" or Metadata.from_file(str(path)).signed.version == 1
