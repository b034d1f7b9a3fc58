"""`edge-agent models pull | import | verify | gc | pin | unpin`: the files of models on this machine."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_verb
from edge_agent.cli.parts import known_catalogue
from edge_agent.errors import DigestMismatchError, EdgeAgentError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from edge_agent.cli.parsing import Parser, Subparsers
    from edge_agent.models.catalogue import Catalogue, Variant
    from edge_agent.models.content import Content
    from edge_agent.models.download import Downloader, Wanted
    from edge_agent.settings import Settings

BAR_WIDTH = 24
REDRAW_SECONDS = 0.1


def add_verbs(verbs: Subparsers) -> None:
    """Describe the verbs."""
    pull = _verb(
        verbs,
        "pull",
        "fetch a family's variants that may serve here",
        "Fetch model files into the store, and their known answers. Each is checked against the digest in the\n"
        "catalogue before it gets a name there: other bytes are refused, wherever they come from. What breaks off is\n"
        "gone on with the next time. Room on the disk is checked first; the files used longest ago make room.",
        ("edge-agent models pull digits", "edge-agent models pull digits/int8-static"),
    )
    pull.add_argument("names", metavar="FAMILY[/VARIANT]", nargs="+", help="what to fetch")
    pull.add_argument("--all", action="store_true", help="also the variants that are too large for this machine")
    pull.add_argument("--keep", action="store_true", help="remove no other files to make room")
    add_json_flag(pull, "what was fetched")
    take = _verb(
        verbs,
        "import",
        "take model files from this machine or a disk into the store",
        "Put files into the store that came another way, such as on a USB stick. A file is taken if its digest is\n"
        "in the catalogue.",
        ("edge-agent models import /media/usb/model.onnx",),
    )
    take.add_argument("files", metavar="FILE", nargs="+", type=Path, help="files to take")
    verify = _verb(
        verbs,
        "verify",
        "read every file of the store again and compare its digest",
        "Read every file of the store and compare its digest. A damaged one is named, and removed with --remove;\n"
        "ends with 76 if there is any.",
        ("edge-agent models verify", "edge-agent models verify --remove"),
    )
    verify.add_argument("--remove", action="store_true", help="remove the damaged files")
    gc = _verb(
        verbs,
        "gc",
        "remove what no catalogue names, old parts, and what is over the limit",
        "Remove the files that no catalogue names any more and nobody pinned, parts that nobody went on with for a\n"
        "week, and of the rest those used longest ago until the store keeps to models.max_bytes.",
        ("edge-agent models gc", "edge-agent models gc --dry-run"),
    )
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    add_json_flag(gc, "what was removed")
    for name, summary in (("pin", "never remove a variant's files"), ("unpin", "let a variant's files be removed")):
        pin = _verb(
            verbs,
            name,
            summary,
            f"{summary[0].upper()}{summary[1:]} to make room.",
            (f"edge-agent models {name} digits/fp32",),
        )
        pin.add_argument("names", metavar="FAMILY[/VARIANT]", nargs="+", help="whose files")


def _verb(verbs: Subparsers, name: str, summary: str, description: str, examples: tuple[str, ...]) -> Parser:
    parser = new_verb(verbs, name, module="files", summary=summary, description=description, examples=examples)
    add_settings(parser, "catalogue.url", "catalogue.root_file")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    from edge_agent.models.content import Content  # noqa: PLC0415 - pydantic is not for `--help`

    settings = effective(args).settings
    known = known_catalogue(settings)
    catalogue = known.catalogue
    content = Content(settings.models.dir)
    match args.verb:
        case "pull":
            return _pull(args, settings, catalogue, content)
        case "import":
            return _import(args.files, settings, catalogue, content)
        case "verify":
            return _verify(content, remove=args.remove)
        case "gc":
            whole = settings.catalogue.url is None or known.record is not None
            return _gc(args, settings, catalogue, content, whole=whole)
        case verb:
            for _, variant in _named(catalogue, args.names):
                for wanted in _files_of("", variant):
                    (content.pin if verb == "pin" else content.unpin)(wanted.digest)
            return 0


# -- fetching -----------------------------------------------------------------------------------------------------


def _pull(args: argparse.Namespace, settings: Settings, catalogue: Catalogue, content: Content) -> int:
    from edge_agent.models.store import Store  # noqa: PLC0415 - as above

    store = Store(content=content)
    fetch = _downloader(settings, content)
    done: list[dict[str, object]] = []
    chosen = _named(catalogue, args.names)
    if not args.all:
        chosen = _without_hopeless(settings, catalogue, args.names, chosen)
    in_use = frozenset(wanted.digest for family, variant in chosen for wanted in _files_of(family, variant))
    if args.keep:
        in_use |= {entry.digest for entry in content.entries()}
    for family, variant in chosen:
        here = store.has(variant)
        for wanted in () if here else _files_of(family, variant):
            with _bar(wanted.name, quiet=args.json) as progress:
                fetch.fetch(wanted, progress, in_use=in_use)
        done.append(
            {
                "name": f"{family}/{variant.name}",
                "digest": variant.digest,
                "bytes": variant.size_bytes,
                "was_here": here,
            }
        )
        if not args.json:
            print(
                f"{family}/{variant.name}: " + ("is here already" if here else f"fetched, {_size(variant.size_bytes)}")
            )
    if args.json:
        print(json.dumps({"files": done, "evicted": fetch.evicted}, indent=2))
    elif fetch.evicted:
        print(f"Removed {len(fetch.evicted)} files that were used longest ago, to make room.")
    return 0


def _without_hopeless(
    settings: Settings, catalogue: Catalogue, names: Iterable[str], chosen: list[tuple[str, Variant]]
) -> list[tuple[str, Variant]]:
    """Leave out what cannot be served here, of families that were named without a variant; say why."""
    from edge_agent.agent.assemble import summarise  # noqa: PLC0415 - for this verb alone
    from edge_agent.models.selection import room_bytes  # noqa: PLC0415 - as above
    from edge_agent.models.trials import Trials, outlook  # noqa: PLC0415 - as above
    from hardware import profile  # noqa: PLC0415 - as above

    machine = summarise(profile())
    hopeless: set[str] = set()
    for name in names:
        if "/" in name:
            continue
        family = catalogue.family(name)
        room = room_bytes(machine.budget_bytes, settings.agent.memory_share)
        for lost in Trials(family, outlook(family, machine.facts, machine.facts.threads), room).lost:
            hopeless.add(lost.variant.digest)
            print(f"{name}/{lost.variant.name}: not fetched, {lost.reason}", file=sys.stderr)
    return [(family, variant) for family, variant in chosen if variant.digest not in hopeless]


def _import(files: Iterable[Path], settings: Settings, catalogue: Catalogue, content: Content) -> int:
    import hashlib  # noqa: PLC0415 - for this verb alone

    from edge_agent.models.download import Wanted  # noqa: PLC0415 - as above

    known = {
        wanted.digest: wanted
        for family in catalogue.families
        for variant in family.variants
        for wanted in _files_of(family.name, variant)
    }
    fetch = _downloader(settings, content)
    for path in files:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "is not there"
            raise UsageError(f"{path} {what}.", hint="Check the path.")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error
        if digest not in known:
            raise DigestMismatchError(
                f"{path} has the SHA-256 {digest[:16]}…, which is not in the catalogue.",
                hint="Is it another version of the model? `edge-agent models FAMILY` shows the digests.",
            )
        wanted = known[digest]
        fetch.fetch(Wanted(wanted.name, digest, wanted.size_bytes, (path.resolve().as_uri(),)))
        print(f"{path}: taken as {wanted.name}")
    return 0


def _downloader(settings: Settings, content: Content) -> Downloader:
    import random  # noqa: PLC0415 - for these verbs alone

    from edge_agent.models.download import Budget, Downloader, Places  # noqa: PLC0415 - urllib3 is not for `--help`
    from edge_agent.models.transfer import Source  # noqa: PLC0415 - as above

    return Downloader(
        content,
        Places(settings.catalogue.url, settings.models.mirrors),
        Budget(settings.models.max_bytes, settings.models.keep_free_bytes),
        Source(),
        time.sleep,
        random.Random(),  # noqa: S311 - jitter, not a secret
    )


def _named(catalogue: Catalogue, names: Iterable[str]) -> list[tuple[str, Variant]]:
    """Return (family, variant) for each `FAMILY` or `FAMILY/VARIANT`, each once."""
    found: dict[str, tuple[str, Variant]] = {}
    for name in names:
        family_name, _, variant_name = name.partition("/")
        family = catalogue.family(family_name)
        variants = [v for v in family.variants if not variant_name or v.name == variant_name]
        if not variants:
            raise UsageError(
                f"{family_name} has no variant {variant_name[:64]!r}.",
                hint=f"It has {', '.join(variant.name for variant in family.variants)}.",
            )
        found |= {variant.digest: (family.name, variant) for variant in variants}
    return list(found.values())


def _files_of(family: str, variant: Variant) -> list[Wanted]:
    """Return the files of a variant: its known answers first, they are small."""
    from edge_agent.models.download import Wanted  # noqa: PLC0415 - as above

    name = f"{family}/{variant.name}"
    files = [Wanted(name, variant.digest, variant.size_bytes, variant.urls)]
    if (golden := variant.golden) is not None:
        # Answers lie beside the model, under their own digest.
        files.insert(0, Wanted(f"{name}, answers", golden.digest, golden.size_bytes, (f"sha256/{golden.digest}",)))
    return files


@dataclass(slots=True)
class _bar:  # noqa: N801 - used like a function
    """Draws how far a transfer is, on a terminal; says nothing elsewhere."""

    name: str
    quiet: bool
    drawn: float = 0.0
    begun: float = 0.0
    first: int = -1

    def __enter__(self) -> Callable[[int, int], None]:
        self.begun = time.monotonic()
        return self._draw

    def _draw(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.first < 0:
            self.first, self.begun = done, now
        if self.quiet or not sys.stderr.isatty() or (now - self.drawn < REDRAW_SECONDS and done < total):
            return
        self.drawn = now
        full = BAR_WIDTH * done // total
        speed = (done - self.first) / (now - self.begun) if now > self.begun else 0.0
        left = f", {(total - done) / speed:.0f} s left" if speed and done < total else ""
        bar = "█" * full + "░" * (BAR_WIDTH - full)
        text = f"{self.name}  {bar} {100 * done // total:3d} %  {_size(done)} of {_size(total)}, {_size(speed)}/s{left}"
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self.drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


# -- looking after ------------------------------------------------------------------------------------------------


def _verify(content: Content, *, remove: bool) -> int:
    import hashlib  # noqa: PLC0415 - for this verb alone

    bad = 0
    entries = content.entries()
    for entry in entries:
        with content.path(entry.digest).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.digest:
            bad += 1
            print(
                f"{entry.digest}: damaged, its bytes have the SHA-256 {found[:16]}…" + (", removed" if remove else "")
            )
            if remove:
                content.remove(entry.digest)
    print(f"{len(entries)} files, {bad} damaged")
    return DigestMismatchError.exit_status if bad else 0


def _gc(args: argparse.Namespace, settings: Settings, catalogue: Catalogue, content: Content, *, whole: bool) -> int:
    from edge_agent.models.eviction import Room, make_room, stale, unwanted  # noqa: PLC0415 - for this verb alone

    known = {
        wanted.digest
        for family in catalogue.families
        for variant in family.variants
        for wanted in _files_of(family.name, variant)
    }
    entries = content.entries()
    # While the published catalogue is not known, nothing can be told from its absence there.
    gone = unwanted(entries, known) if whole else []
    parts = stale(content.partials(), time.time())
    left = [entry for entry in entries if entry not in gone]
    used = sum(entry.size_bytes for entry in left)
    abandoned = content.remove_abandoned(dry_run=args.dry_run)
    # Optimised copies go first: they can be made again.
    copies = content.optimised()
    full = used + sum(copies.values()) - (abandoned if args.dry_run else 0) > settings.models.max_bytes
    idle = [digest for digest in copies if digest and (full or (whole and digest not in known))]
    room = Room(content.free_bytes(), used, settings.models.max_bytes, keep_free_bytes=0)
    try:
        gone += make_room(left, room, 0)
    except EdgeAgentError as error:
        print(f"note: {error.message}", file=sys.stderr)
    freed = sum(entry.size_bytes for entry in gone) + sum(copies[digest] for digest in idle) + abandoned
    if not args.dry_run:
        for digest in (*(entry.digest for entry in gone), *parts):
            content.remove(digest)
        for digest in idle:
            content.remove_optimised(digest)
    if args.json:
        removed = [{"digest": entry.digest, "bytes": entry.size_bytes} for entry in gone]
        found = {
            "removed": removed,
            "parts": parts,
            "optimised": idle,
            "abandoned_bytes": abandoned,
            "dry_run": args.dry_run,
        }
        print(json.dumps(found, indent=2))
    else:
        word = "Would remove" if args.dry_run else "Removed"
        what = f"{len(gone)} files, {len(idle)} optimised copies ({_size(freed)}) and {len(parts)} old parts"
        print(f"{word} {what}; {len(entries) - len(gone)} files stay.")
    return 0


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
