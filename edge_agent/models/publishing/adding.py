"""From a model and samples to a family with measured variants: what `edge-agent catalogue add` does.

Every variant is measured on samples that did not set its ranges, and one whose quality falls further below the
original's than the gate allows is refused, with the figures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import onnx

from edge_agent.errors import InputError
from edge_agent.models import costs
from edge_agent.models.entries import Costs, Family, Golden, Quality, Usual, Variant
from edge_agent.models.publishing import goldens, graphs, reference, signature
from edge_agent.models.publishing.forms import FORMS, FULL_RANGE, ORIGINAL, REPRODUCIBLE, Form
from edge_agent.models.publishing.goldens import Truth
from edge_agent.models.publishing.quality import DEFAULT_GATE, Answer, Yardstick, relative_drop
from edge_agent.models.publishing.runs import ALL, OFF, VERSION, Runner
from edge_agent.models.publishing.samples import Samples
from edge_agent.models.publishing.variants import MadeVariant, Making, make_variants

Verdict: TypeAlias = Literal["published", "refused", "not made"]

MIN_RUNTIME = "1.27"
"""The lowest onnxruntime that agents run at all."""
NEWEST_COMMON_OPSET = 23
"""What that version knows; models of a later opset need the version that they were measured with."""


@dataclass(frozen=True)
class Wish:
    """What the operator says about a family.

    Attributes:
        name: of the family.
        title: a few words; the name if empty.
        task: what it does, in a sentence; the title if empty.
        licence: of the model.
        source: where the model is from.
        dataset: what the samples are, for people.
        metric: of quality; if None, top1 with labels, cosine for floats without, and else exact-match.
        output: the only one that counts; all floats, if None, or all if there are none.
        gate: the most that quality may fall, as a fraction of the original's.
        latency_target_ms: how long one sample may take for the family to be useful.
        forms: which to make.
        reference_seconds: how long ONNX's reference may think about the golden inputs; 0 does not ask it.
    """

    name: str
    title: str = ""
    task: str = ""
    licence: str = "not stated"
    source: str = "not stated"
    dataset: str = "the samples given"
    metric: str | None = None
    output: str | None = None
    gate: float = DEFAULT_GATE
    latency_target_ms: float = 1000.0
    forms: tuple[Form, ...] = FORMS
    reference_seconds: float = reference.DEFAULT_SECONDS


@dataclass(frozen=True)
class Row:
    """What became of one form.

    Attributes:
        form: that was to be made.
        verdict: what became of it.
        why: in words; for what is published, what the form is.
        size_bytes: of the file.
        quality: in the family's metric; None where nothing was measured.
        drop: how much lower that is than the original's, as a fraction of it.
        check: how machines of other kinds can check its outputs, and why not better.
    """

    form: Form
    verdict: Verdict
    why: str
    size_bytes: int | None = None
    quality: float | None = None
    drop: float | None = None
    check: str = ""


@dataclass(frozen=True)
class Addition:
    """The family to publish, its files by digest, and what became of each form."""

    family: Family
    files: dict[str, Path]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass
class _Measured:
    """A variant with its answers to the samples that measure."""

    made: MadeVariant
    answers: list[Answer] = field(default_factory=list)
    quality: float = 0.0
    drop: float = 0.0


def add(model: Path, samples: Samples | None, folder: Path, wish: Wish) -> Addition:
    """Make, measure and judge the variants of `model`; leaves their files in `folder`.

    Without samples only the original is offered, unmeasured: nothing would stop a broken 8-bit file.

    Raises:
        InputError: the model or the samples cannot be used at all.
    """
    if samples is None:
        return _unmeasured(model, folder, wish)
    for_ranges, for_measuring = samples.split()
    making = make_variants(model, for_ranges, folder, wish.forms)
    return _Judge(making, for_measuring, folder, wish).judge()


def _unmeasured(model: Path, folder: Path, wish: Wish) -> Addition:
    making = make_variants(model, None, folder, [ORIGINAL])
    original = making.variants[0]
    why = "nothing was measured: give samples with --calibrate"
    family = _family(wish, original, None, [_variant(original, wish, None, None, _costs(original, ()))], ())
    others = [Row(form, "refused", why) for form in wish.forms if form != ORIGINAL]
    first = Row(ORIGINAL, "published", why, original.size_bytes)
    return Addition(family, {original.sha256: original.path}, (first, *others), making.notes)


class _Judge:
    def __init__(self, making: Making, for_measuring: Samples, folder: Path, wish: Wish) -> None:
        self._making = making
        self._samples = for_measuring
        self._folder = folder
        self._wish = wish
        self._notes = list(making.notes)
        self._original = _Measured(making.variants[0])
        self._original.answers = self._run(self._original.made)
        self._stick = self._yardstick()
        self._usual = self._usual_extents()
        self._original.quality = self._measure(self._original)

    def judge(self) -> Addition:
        rows, kept = [], [self._original]
        rows.append(self._row(self._original, "published", "the original"))
        for made in self._making.variants[1:]:
            measured = _Measured(made)
            try:
                measured.answers = self._run(made)
            except InputError as error:
                rows.append(Row(made.form, "refused", error.message.rstrip("."), made.size_bytes))
                continue
            measured.quality = self._measure(measured)
            measured.drop = relative_drop(measured.quality, self._original.quality)
            if measured.drop > self._wish.gate:
                rows.append(self._row(measured, "refused", self._why_refused(measured)))
            else:
                kept.append(measured)
                rows.append(self._row(measured, "published", made.form.why))
        variants, files, checks = self._published(kept)
        rows = [self._with_check(row, checks) for row in rows]
        rows += [Row(entry.form, "not made", entry.why) for entry in self._making.not_made]
        self._note_reproducible(rows)
        family = _family(self._wish, self._original.made, self._stick.metric, variants, self._usual)
        order = {form.name: index for index, form in enumerate(FORMS)}
        rows.sort(key=lambda row: order[row.form.name])
        return Addition(family, files, tuple(rows), tuple(self._notes))

    def _run(self, made: MadeVariant, level: object = ALL) -> list[Answer]:
        runner = Runner(made.path, library=made.library, level=level)
        return [runner.run(feed) for feed in self._samples.feeds]

    def _yardstick(self) -> Yardstick:
        wish, labels = self._wish, self._samples.labels
        first = self._original.answers[0]
        floats = signature.float_outputs(first)
        metric = wish.metric or ("top1" if labels is not None else "cosine" if floats else "exact-match")
        if wish.output is not None:
            if wish.output not in first:
                raise InputError(f"The model has no output {wish.output!r}.", hint=f"It has {', '.join(first)}.")
            return Yardstick(metric, (wish.output,), labels)
        return Yardstick(metric, floats if metric == "cosine" else floats or tuple(first), labels)

    def _measure(self, measured: _Measured) -> float:
        return self._stick.measure(measured.answers, self._original.answers)

    def _why_refused(self, measured: _Measured) -> str:
        why = f"its quality falls by {measured.drop:.2%}, the gate allows {self._wish.gate:.2%}"
        if measured.made.form.saturates:
            exact = self._stick.measure(self._run(measured.made, OFF), self._original.answers)
            if relative_drop(exact, self._original.quality) <= self._wish.gate:
                why += f"; where 8-bit sums do not saturate it would be {exact:.4f}, but on this machine they do"
        return why

    def _row(self, measured: _Measured, verdict: Verdict, why: str) -> Row:
        return Row(measured.made.form, verdict, why, measured.made.size_bytes, measured.quality, measured.drop)

    @staticmethod
    def _with_check(row: Row, checks: dict[str, str]) -> Row:
        found = checks.get(row.form.name)
        return row if found is None or row.verdict != "published" else replace(row, check=found)

    def _published(self, kept: Sequence[_Measured]) -> tuple[list[Variant], dict[str, Path], dict[str, str]]:
        feeds = goldens.pick(self._samples.feeds, self._original.answers)
        if not feeds:
            self._notes.append(f"no golden files: one sample and its answer exceed {goldens.BUDGET_BYTES} bytes")
        truths = {
            measured.made.name: goldens.truth(
                measured.made,
                feeds,
                ask_reference=measured is self._original and self._wish.reference_seconds > 0,
                seconds=self._wish.reference_seconds,
            )
            for measured in kept
            if feeds
        }
        files: dict[str, Path] = {}
        variants, checks = [], {}
        for measured in kept:
            made = measured.made
            golden, reproducibility = None, None
            if feeds and not truths[made.name].comparable:
                self._notes.append(f"no golden file for {made.name}: no output is the same in two ways of running it")
            elif feeds:
                golden, judged, path = self._golden(made, truths, kept)
                files[golden.digest] = path
                reproducibility = judged.reproducibility
                checks[made.name] = f"{reproducibility.kind}: {judged.why}" if judged.why else reproducibility.kind
            quality = Quality(
                metric=self._stick.metric,
                value=round(measured.quality, 6),
                dataset=self._wish.dataset,
                n=len(self._samples),
            )
            entry = _variant(made, self._wish, quality, golden, _costs(made, self._usual))
            if reproducibility is not None:
                entry = entry.model_copy(update={"reproducibility": reproducibility})
            variants.append(entry)
            files[made.sha256] = made.path
        if feeds:
            self._notes.append(f"golden outputs of the original: {truths[self._original.made.name].judge}")
        return variants, files, checks

    def _golden(
        self, made: MadeVariant, truths: dict[str, Truth], kept: Sequence[_Measured]
    ) -> tuple[Golden, goldens.Tolerance, Path]:
        own = truths[made.name]
        cheaper = {m.made.name: truths[m.made.name] for m in kept if m.made.size_bytes < made.size_bytes}
        judged = goldens.tolerance(made, own, truths[self._original.made.name], cheaper)
        data = goldens.encode(self._samples.feeds[: len(own.answers)], own)
        path = self._folder / f"{self._wish.name}-{made.name}.golden.cbor"
        path.write_bytes(data)
        golden = Golden(
            file=path.name,
            digest=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            atol=judged.atol,
            rtol=0.0,
        )
        return golden, judged, path

    def _usual_extents(self) -> tuple[Usual, ...]:
        original = graphs.read(self._original.made.path)
        inputs, _ = signature.ports(original.model)
        inner = signature.inner_extents(original.model, self._samples.feeds, library=original.library)
        return (*signature.usual(inputs, self._samples.feeds), *inner)

    def _note_reproducible(self, rows: Sequence[Row]) -> None:
        by_form = {row.form: row for row in rows}
        seven, eight = by_form.get(REPRODUCIBLE), by_form.get(FULL_RANGE)
        if seven is None or eight is None or seven.quality is None or eight.quality is None:
            return
        self._notes.append(
            f"{REPRODUCIBLE.name} reaches {seven.quality:.4f} in {self._stick.metric}, "
            f"with all 8 bits of weight {eight.quality:.4f} on this machine"
        )


def _costs(made: MadeVariant, usual: Sequence[Usual]) -> Costs:
    return costs.count(onnx.load(str(made.path)), {entry.symbol: entry.extent for entry in usual})


def _variant(
    made: MadeVariant, wish: Wish, quality: Quality | None, golden: Golden | None, counted: Costs | None
) -> Variant:
    form = made.form
    runtime = MIN_RUNTIME if made.opset <= NEWEST_COMMON_OPSET else ".".join(VERSION.split(".")[:2])
    return Variant(
        name=form.name,
        file=f"{wish.name}-{form.name}.onnx",
        digest=made.sha256,
        size_bytes=made.size_bytes,
        format=form.format,
        signedness=form.signedness,
        per_channel=form.per_channel,
        reduce_range=form.reduce_range,
        opset=made.opset,
        min_runtime=runtime,
        quality=quality,
        costs=counted,
        golden=golden,
        requires=("onnxruntime-extensions",) if made.library else (),
    )


def _family(
    wish: Wish,
    original: MadeVariant,
    metric: str | None,
    variants: Sequence[Variant],
    usual: tuple[Usual, ...],
) -> Family:
    inputs, outputs = signature.ports(graphs.read(original.path).model)
    title = wish.title or wish.name
    return Family(
        name=wish.name,
        title=title,
        task=wish.task or title,
        licence=wish.licence,
        source=wish.source,
        inputs=inputs,
        outputs=outputs,
        metric=metric,
        usual=usual,
        latency_target_ms=wish.latency_target_ms,
        variants=tuple(variants),
    )
