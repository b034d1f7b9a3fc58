"""`edge-agent models refresh`: ask the catalogue's address for news now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_verb
from edge_agent.cli.parts import complain_about

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_verbs(verbs: Subparsers) -> None:
    """Describe the verb."""
    parser = new_verb(
        verbs,
        "refresh",
        module="refresh",
        summary="ask the catalogue's address for news, and verify it",
        description="Fetch what is new from the catalogue's address and verify it against the pinned root. What is\n"
        "refused changes nothing: what was known before stays in use. A running agent notices within 15 seconds;\n"
        "it also asks by itself, at its start and every catalogue.refresh_seconds. Model files are not fetched.",
        examples=(
            "edge-agent models refresh",
            "edge-agent models refresh --catalogue http://192.0.2.7:8430/ --catalogue-root root.json",
        ),
    )
    add_json_flag(parser, "what is known now")
    add_settings(parser, "agent.state_dir", "catalogue.url", "catalogue.root_file")


def run(args: argparse.Namespace) -> int:
    """Refresh, and say what is known then."""
    from edge_agent.models.known import day  # noqa: PLC0415 - pydantic is not for `--help`
    from edge_agent.models.refresher import Refresher  # noqa: PLC0415 - as above
    from edge_agent.published import known_now, source_of  # noqa: PLC0415 - as above

    settings = effective(args).settings
    source = source_of(settings, settings.agent.state_dir)
    before = known_now(source)
    Refresher(source).refresh()
    found = known_now(source)
    names = {family.name: family for family in before.catalogue.families}
    new = [family.name for family in found.catalogue.families if family.name not in names]
    gone = sorted(set(names) - {family.name for family in found.catalogue.families})
    changed = [f.name for f in found.catalogue.families if f.name in names and names[f.name] != f]
    complain_about(found)
    if args.json:
        record = found.record
        print(
            json.dumps(
                {
                    "url": source.url,
                    "catalogue": record.catalogue if record else None,
                    "expires_ms": record.expires_ms if record else None,
                    "metadata": dict(record.versions) if record else {},
                    "families": [family.name for family in found.catalogue.families],
                    "new": new,
                    "changed": changed,
                    "gone": gone,
                    "problem": found.problem,
                }
            )
        )
        return 0
    if found.record is not None:
        print(
            f"Catalogue {found.record.catalogue} of {source.url} is verified; expires {day(found.record.expires_ms)}."
        )
    for word, those in (("New", new), ("Changed", changed), ("Gone", gone)):
        if those:
            print(f"{word}: {', '.join(those)}")
    if not (new or changed or gone):
        print("Nothing is new.")
    return 0
