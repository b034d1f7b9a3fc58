"""Brings a family's model and golden files to where they are served from, and checks that each can be had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_agent.errors import UsageError
from edge_agent.models.entries import Family, Variant
from edge_agent.models.publishing.layout import BLOBS, Layout


def check_and_place(layout: Layout, family: Family, files: Mapping[str, Path]) -> Family:
    """Copy the files below `public/` and return the family with their addresses.

    Args:
        layout: of the repository.
        family: its files may also be there from before.
        files: by digest.

    Raises:
        UsageError: a file belongs to no variant; a variant has neither file nor URL; a golden file is missing.
        DigestMismatchError: a file is not the described one.
        StateError: something cannot be read or written.
    """
    described = {variant.digest: variant.size_bytes for variant in family.variants}
    golden = {v.golden.digest: v.golden.size_bytes for v in family.variants if v.golden is not None}
    for digest, path in files.items():
        if digest not in described and digest not in golden:
            raise UsageError(
                f"{path} has the digest {digest[:12]}…, which no variant of {family.name} names.",
                hint="Describe it in the family, or leave the file out.",
            )
    for variant in family.variants:
        _refuse_unreachable(layout, family, variant, files)
    for digest, path in files.items():
        layout.take_in(path, digest, described.get(digest) or golden[digest])
    variants = tuple(_with_address(layout, variant) for variant in family.variants)
    return Family.model_validate({**_fields(family), "variants": variants})


def _refuse_unreachable(layout: Layout, family: Family, variant: Variant, files: Mapping[str, Path]) -> None:
    def served(digest: str) -> bool:
        return digest in files or layout.blob(digest).exists()

    elsewhere = [url for url in variant.urls if "://" in url]
    if not served(variant.digest) and not elsewhere:
        raise UsageError(
            f"Nobody could get the variant {variant.name} of {family.name}: it has neither a file here nor a URL.",
            hint="Give its file, or an https URL in its description.",
        )
    if variant.golden is not None and not served(variant.golden.digest):
        raise UsageError(
            f"The golden file {variant.golden.file} of {family.name} {variant.name} is not given.",
            hint="Golden files are served from the repository itself: give the file.",
        )


def _with_address(layout: Layout, variant: Variant) -> Variant:
    own = f"{BLOBS}/{variant.digest}"
    others = tuple(url for url in variant.urls if url != own)
    urls = (own, *others) if layout.blob(variant.digest).exists() else others
    return Variant.model_validate({**_fields(variant), "urls": urls})


def _fields(entry: Family | Variant) -> dict[str, object]:
    return {name: getattr(entry, name) for name in type(entry).model_fields}
