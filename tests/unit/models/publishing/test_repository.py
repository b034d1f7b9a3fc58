"""The operator's side of the catalogue: drafts, files, signatures, thresholds, key changes."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from repositories import DIGITS, NOW, Operator, digits_files, digits_named
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edge_agent.errors import DigestMismatchError, StateError, UnknownFamilyError, UsageError
from edge_agent.models.catalogue import parse
from edge_agent.models.publishing import documents, publication
from edge_agent.models.publishing.layout import write_bytes
from edge_agent.models.publishing.repository import Repository
from edge_agent.models.publishing.roles import DAYS, KeySigner, Waiting
from edge_agent.models.refresh import refresh
from edge_agent.wire.keys import SigningKey

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator with one key a role."""
    return Operator(tmp_path / "repository")


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def waiting(found: tuple[Waiting, ...]) -> list[tuple[str, int, int]]:
    """Return role, signatures there are, and signatures needed."""
    return [(entry.role, entry.have, entry.need) for entry in found]


def test_what_is_published_is_what_was_put(operator: Operator) -> None:
    """The signed catalogue has the family, and its files lie where the catalogue says, under their digests."""
    published = operator.publish("club-digits")
    assert published.waiting == ()
    assert published.catalogue is not None
    family = published.catalogue.family("club-digits")
    for variant in family.variants:
        assert variant.urls == (f"sha256/{variant.digest}",)
        assert hashlib.sha256((operator.public / variant.urls[0]).read_bytes()).hexdigest() == variant.digest
        assert variant.golden is not None
        assert (operator.public / "sha256" / variant.golden.digest).exists()


def test_metadata_is_tuf_and_each_role_vouches_for_the_next(operator: Operator) -> None:
    """python-tuf reads it; digests and versions chain from the timestamp to the catalogue."""
    operator.publish("club-digits")
    folder = operator.public / "metadata"
    root = Metadata[Root].from_file(str(folder / "1.root.json")).signed
    timestamp = Metadata[Timestamp].from_file(str(folder / "timestamp.json"))
    snapshot = Metadata[Snapshot].from_file(str(folder / "1.snapshot.json"))
    targets = Metadata[Targets].from_file(str(folder / "1.targets.json"))
    for role, metadata in (("timestamp", timestamp), ("snapshot", snapshot), ("targets", targets)):
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    timestamp.signed.snapshot_meta.verify_length_and_hashes((folder / "1.snapshot.json").read_bytes())
    snapshot.signed.meta["targets.json"].verify_length_and_hashes((folder / "1.targets.json").read_bytes())
    digest = targets.signed.targets["catalogue.json"].hashes["sha256"]
    data = (operator.public / "targets" / f"{digest}.catalogue.json").read_bytes()
    targets.signed.targets["catalogue.json"].verify_length_and_hashes(data)
    assert root.consistent_snapshot
    assert parse(data).version == 1


def test_nothing_secret_is_served(operator: Operator) -> None:
    """No draft, no key and no pending metadata lies below the served folder."""
    operator.publish("club-digits")
    assert {path.name for path in operator.public.iterdir()} == {"metadata", "targets", "sha256"}
    assert not any(b"PRIVATE" in content for content in tree(operator.public).values())


def test_publishing_without_a_change_signs_the_timestamp_alone(operator: Operator) -> None:
    """A daily refresh costs agents the smallest file."""
    operator.publish("club-digits")
    before = tree(operator.public)
    again = operator.publish(now=NOW + timedelta(days=1))
    changed = {name for name, content in tree(operator.public).items() if before.get(name) != content}
    assert changed == {"metadata/timestamp.json"}
    assert {s.role: s.version for s in again.signed} == {"root": 1, "targets": 1, "snapshot": 1, "timestamp": 2}
    assert again.catalogue is not None
    assert again.catalogue.version == 1


def test_a_changed_draft_gets_the_next_version(operator: Operator) -> None:
    """Old files stay, for agents that still have the old catalogue."""
    operator.publish("a")
    second = operator.publish("b")
    assert second.catalogue is not None
    assert [family.name for family in second.catalogue.families] == ["a", "b"]
    assert second.catalogue.version == 2
    assert (operator.public / "metadata" / "1.targets.json").exists()
    assert (operator.public / "metadata" / "2.snapshot.json").exists()


def test_a_family_of_the_same_name_is_replaced(operator: Operator) -> None:
    """Put twice, it is there once, as it was put last."""
    operator.publish("a")
    operator.repository.put_family(digits_named("a", title="Better"), digits_files())
    published = operator.publish()
    assert published.catalogue is not None
    assert [family.title for family in published.catalogue.families] == ["Better"]


def test_a_removed_family_is_gone_from_the_catalogue(operator: Operator) -> None:
    """And an unknown one is told."""
    operator.publish("a", "b")
    operator.repository.remove_family("a")
    with pytest.raises(UnknownFamilyError):
        operator.repository.remove_family("a")
    published = operator.publish()
    assert published.catalogue is not None
    assert [family.name for family in published.catalogue.families] == ["b"]


def test_draft_changes_nothing_that_agents_see(operator: Operator) -> None:
    """Only `publish` does."""
    operator.publish("a")
    before = tree(operator.public / "metadata")
    operator.repository.put_family(digits_named("b"), digits_files())
    assert tree(operator.public / "metadata") == before


def test_another_file_than_described_is_refused(operator: Operator, tmp_path: Path) -> None:
    """Neither the draft nor the served files change."""
    operator.publish("a")
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"not the model")
    variant = DIGITS.variants[0]
    operator.repository.layout.blob(variant.digest).unlink()
    before = tree(tmp_path / "repository")
    with pytest.raises(DigestMismatchError, match="13 bytes"):
        operator.repository.put_family(digits_named("b"), {**digits_files(), variant.digest: wrong})
    assert tree(tmp_path / "repository") == before


def test_a_file_that_belongs_to_nothing_is_refused(operator: Operator) -> None:
    """It would be served for ever without anybody asking for it."""
    with pytest.raises(UsageError, match="which no variant of b names"):
        operator.repository.put_family(digits_named("b"), {"0" * 64: operator.root_file})


def test_a_variant_that_nobody_could_get_is_refused(operator: Operator) -> None:
    """Without a file it needs a URL elsewhere; with one it is described without its file."""
    with pytest.raises(UsageError, match="neither a file here nor a URL"):
        operator.repository.put_family(digits_named("b"), {})
    elsewhere = [
        v.model_copy(update={"urls": (f"https://models.example/{v.file}",), "golden": None}) for v in DIGITS.variants
    ]
    put = operator.repository.put_family(digits_named("b", variants=tuple(elsewhere)), {})
    assert [v.urls for v in put.variants] == [(f"https://models.example/{v.file}",) for v in DIGITS.variants]


def test_a_missing_golden_file_is_refused(operator: Operator) -> None:
    """The canary run on the device would have nothing to compare with."""
    models = {variant.digest: digits_files()[variant.digest] for variant in DIGITS.variants}
    with pytest.raises(UsageError, match="golden file"):
        operator.repository.put_family(digits_named("b"), models)


def test_offline_targets_key_signs_elsewhere(operator: Operator, tmp_path: Path) -> None:
    """Agents see nothing new until the copy that was signed on the other machine is merged and published."""
    operator.publish("a")
    waits = operator.publish("b", without=["targets"])
    assert waiting(waits.waiting) == [("targets", 0, 1)]
    assert waits.catalogue is not None
    assert [family.name for family in waits.catalogue.families] == ["a"]
    copy = Metadata[Targets].from_file(str(tmp_path / "repository" / "pending" / "targets.json"))
    other = Repository(tmp_path / "repository")  # stands for the other machine: only the file travels
    copy.sign(KeySigner(operator.keys["targets"][0]), append=True)
    assert waiting(other.merge(copy.to_bytes())) == [("targets", 1, 1)]
    done = operator.publish(without=["targets", "root"])
    assert done.waiting == ()
    assert done.catalogue is not None
    assert [family.name for family in done.catalogue.families] == ["a", "b"]


def test_signatures_for_something_else_are_not_merged(operator: Operator, tmp_path: Path) -> None:
    """An old copy does not count for a newer draft, and rubbish is no metadata."""
    operator.publish("a", without=["targets"])
    old = (tmp_path / "repository" / "pending" / "targets.json").read_bytes()
    operator.publish("b", without=["targets"])
    before = tree(tmp_path / "repository")
    with pytest.raises(UsageError, match="not a copy of what waits"):
        operator.repository.merge(old)
    with pytest.raises(StateError, match="not TUF metadata"):
        operator.repository.merge(b"{}")
    assert tree(tmp_path / "repository") == before


def test_a_threshold_needs_that_many_different_keys(tmp_path: Path) -> None:
    """One key that signs twice counts once."""
    operator = Operator(tmp_path / "repository", thresholds={"root": 2, "targets": 2})
    first, second = operator.keys["targets"]
    operator.repository.sign(operator.keys["root"])
    operator.repository.put_family(digits_named("a"), digits_files())
    online = [*operator.keys["snapshot"], *operator.keys["timestamp"]]
    assert waiting(operator.repository.publish([first, first, *online], NOW).waiting) == [("targets", 1, 2)]
    assert waiting(operator.repository.publish([first, *online], NOW).waiting) == [("targets", 1, 2)]
    done = operator.repository.publish([second, *online], NOW)
    assert done.waiting == ()
    assert done.catalogue is not None


def test_a_first_root_waits_for_its_keys(tmp_path: Path) -> None:
    """Nothing is published before, and then everything is."""
    operator = Operator(tmp_path / "repository", thresholds={"root": 2})
    operator.repository.put_family(digits_named("a"), digits_files())
    early = operator.repository.publish([operator.keys["root"][0], *operator.all_keys(without=["root"])], NOW)
    assert waiting(early.waiting) == [("root", 1, 2)]
    assert (early.catalogue, early.signed) == (None, ())
    assert list((operator.public / "metadata").iterdir()) == []
    assert operator.publish().waiting == ()


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_without_the_online_keys_nothing_is_published(operator: Operator, role: str) -> None:
    """They are needed each time, and which is missing is said."""
    operator.publish("a")
    before = (operator.public / "metadata" / "timestamp.json").read_bytes()
    with pytest.raises(UsageError, match=f"The role {role} needs 1") as refused:
        operator.publish("b", without=[role])  # type: ignore[list-item]
    assert operator.keys[role][0].public.id in str(refused.value.hint)  # type: ignore[index]
    assert (operator.public / "metadata" / "timestamp.json").read_bytes() == before


def test_a_new_key_takes_the_place_of_a_revoked_one(operator: Operator) -> None:
    """The old root approves the new one; what the revoked key signed is signed anew by the new one."""
    operator.publish("a")
    new = SigningKey.generate(bytes([9]) * 32)
    old = operator.keys["targets"][0].public.id
    proposed = operator.repository.propose("targets", now=NOW, add=[new.public], revoke=[old])
    assert (proposed.role, proposed.version, proposed.have) == ("root", 2, 0)
    operator.keys["targets"] = [new]
    done = operator.publish()
    versions = {s.role: s.version for s in done.signed}
    assert versions == {"root": 2, "targets": 2, "snapshot": 2, "timestamp": 2}
    root = Metadata[Root].from_file(str(operator.root_file))
    assert root.signed.roles["targets"].keyids == [new.public.id]
    assert old not in root.signed.keys


def test_a_root_key_is_replaced_with_both_signatures(operator: Operator) -> None:
    """A new root needs the old root key and its own."""
    operator.publish("a")
    new = SigningKey.generate(bytes([9]) * 32)
    old = operator.keys["root"][0]
    operator.repository.propose("root", now=NOW, add=[new.public], revoke=[old.public.id])
    assert waiting(operator.repository.sign([new])) == [("root", 0, 1)]
    assert waiting(operator.publish(without=["root"]).waiting) == [("root", 0, 1)]
    assert {s.role: s.version for s in operator.repository.status().signed}["root"] == 1
    assert waiting(operator.repository.sign([old])) == [("root", 2, 2)]
    assert {s.role: s.version for s in operator.publish(without=["root"]).signed}["root"] == 2


def test_a_role_is_not_left_without_enough_keys(operator: Operator) -> None:
    """Nobody could ever sign for it again."""
    operator.publish("a")
    only = operator.keys["targets"][0].public.id
    before = tree(operator.repository.layout.folder)
    with pytest.raises(UsageError, match="would have 0 keys"):
        operator.repository.propose("targets", now=NOW, revoke=[only])
    with pytest.raises(UsageError, match="would have 1 keys and need 2"):
        operator.repository.propose("targets", now=NOW, threshold=2)
    with pytest.raises(UsageError, match="is no key of the role"):
        operator.repository.propose("targets", now=NOW, revoke=["nobody"])
    assert tree(operator.repository.layout.folder) == before


def test_what_would_expire_soon_is_signed_anew(operator: Operator) -> None:
    """Every role but the root in the last quarter of its time; the root waits for its key."""
    operator.publish("a")
    late = NOW + timedelta(days=DAYS["root"] * 0.8)
    done = operator.publish(without=["root"], now=late)
    assert waiting(done.waiting) == [("root", 0, 1)]
    assert {s.role: s.version for s in done.signed} == {"root": 1, "targets": 2, "snapshot": 2, "timestamp": 2}
    assert {s.role: s.expires for s in done.signed}["timestamp"] == late + timedelta(days=DAYS["timestamp"])
    assert operator.publish(now=late).waiting == ()


def test_a_folder_without_a_repository_is_told(tmp_path: Path) -> None:
    """With how to make one; a second `init` does not overwrite the first."""
    with pytest.raises(UsageError, match="no catalogue's repository"):
        Repository(tmp_path)
    first = Operator(tmp_path / "repository")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="holds a repository already"):
        Operator(tmp_path / "repository", seed=2)
    assert tree(tmp_path) == before
    assert Repository(first.repository.layout.folder).draft.families == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not json", "is damaged"), (b'{"v":1}', "is damaged"), (b'{"v":2,"days":{}}', "is damaged")],
)
def test_damaged_settings_are_told(operator: Operator, content: bytes, message: str) -> None:
    """Instead of publishing with other expiries."""
    operator.repository.layout.settings.write_bytes(content)
    with pytest.raises(StateError, match=message):
        Repository(operator.repository.layout.folder)


def test_a_newer_repository_is_told(operator: Operator) -> None:
    """With the code that says so."""
    settings = json.loads(operator.repository.layout.settings.read_bytes())
    operator.repository.layout.settings.write_text(json.dumps({**settings, "v": 2}))
    with pytest.raises(StateError) as refused:
        Repository(operator.repository.layout.folder)
    assert refused.value.error_code == "newer-schema"


def test_a_lost_file_is_told(operator: Operator) -> None:
    """A missing targets file is not silently replaced by an older catalogue."""
    operator.publish("a")
    for path in (operator.public / "targets").iterdir():
        path.unlink()
    with pytest.raises(StateError, match="is not there"):
        operator.publish("b")


def test_publishing_that_is_cut_anywhere_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each write that may be the last, agents are given a whole catalogue, and the next `publish` ends it."""
    cut = 0
    while True:
        operator = Operator(tmp_path / f"repository-{cut}", now=datetime.now(UTC))
        operator.publish("a")
        operator.repository.put_family(digits_named("b"), digits_files())
        left = [cut]

        def write(path: Path, content: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise StateError("the power was cut")
            left[0] -= 1
            write_bytes(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(documents, "write_bytes", write)
            patched.setattr(publication, "write_bytes", write)
            try:
                operator.publish()
                whole = True
            except StateError:
                whole = False
        url, root = operator.public.as_uri() + "/", operator.root_file.read_bytes()
        record = refresh(url, root, tmp_path / f"state-{cut}", 0)
        assert record.catalogue in ({2} if whole else {1, 2})
        operator.publish()
        assert refresh(url, root, tmp_path / f"state-{cut}", 0).catalogue == 2
        if whole:
            break
        cut += 1
    assert cut >= 4  # the catalogue, targets, snapshot, timestamp
