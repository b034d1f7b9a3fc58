"""docs/protocol.md says what the code does: fields, types of numbers, limits, topics, signers and codes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import wire_samples
from annotated_types import Ge, Interval, Le, MaxLen, MinLen

from edge_agent import errors
from edge_agent.wire import messages, status, topics
from edge_agent.wire.kinds import ALL_STATEMENTS
from edge_agent.wire.messages import Part, Statement
from edge_agent.wire.tensors import DataType
from edge_agent.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PAGE = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
CDDL = re.sub(r";[^\n]*", "", PAGE.split("```cddl\n")[1].split("```")[0])
PEER = {"MalformedError", "TooLargeError", "SignatureRefusedError", "DigestMismatchError"}
PARTS = tuple(Part.__subclasses__())
MODELS: tuple[type[BaseModel], ...] = (*ALL_STATEMENTS, *PARTS)


def rules() -> dict[str, str]:
    """Return the right-hand side of every rule of the schema, without comments."""
    starts = list(re.finditer(r"^([a-z0-9-]+) = ", CDDL, re.MULTILINE))
    ends = [start.start() for start in starts[1:]] + [len(CDDL)]
    return {start[1]: CDDL[start.end() : end].strip() for start, end in zip(starts, ends, strict=True)}


RULES = rules()


def fields(rule: str) -> dict[str, str]:
    """Return the fields of a map rule with their types; `common` is opened."""
    body = RULES[rule].strip("{}() \n")
    found = {}
    for line in body.splitlines():
        entry = line.strip().rstrip(",").strip()
        if entry == "common":
            found.update(fields("common"))
        elif entry:
            name, kind = entry.removeprefix("? ").split(": ", 1)
            found[name] = kind.strip()
    return found


def rule_name(model: type[BaseModel]) -> str:
    """Return the schema's name for a model: HeldAttempt is held-attempt."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", model.__name__).lower()


def table(heading: str) -> Iterator[list[str]]:
    """Yield the rows of the first table under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    for row in rows[2:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def number(text: str) -> int:
    """Read 65,536."""
    return int(text.replace(",", ""))


@pytest.mark.parametrize("model", MODELS, ids=rule_name)
def test_every_field_is_in_the_schema_and_every_entry_is_a_field(model: type[BaseModel]) -> None:
    """The names are equal, both ways, and the kinds' literals too."""
    described = fields(rule_name(model))
    assert set(described) == set(model.model_fields)
    if issubclass(model, Statement):
        assert described["kind"] == f'"{model.model_fields["kind"].default}"'


def test_every_map_of_the_schema_is_a_model() -> None:
    """Nothing is described that does not exist."""
    maps = {name for name, body in RULES.items() if body.startswith("{")}
    assert maps == {rule_name(model) for model in MODELS} | {"protected-header"}


def test_the_statements_of_the_schema_are_the_kinds() -> None:
    """And every rule is used by another, so that no typing error hides."""
    assert {name.strip() for name in RULES["statement"].split("/")} == {rule_name(kind) for kind in ALL_STATEMENTS}
    used = set(re.findall(r"[a-z][a-z0-9_-]+", " ".join(RULES.values())))
    assert set(RULES) - used == {"sequence-of"}


def test_the_data_types_of_the_schema_are_the_data_types() -> None:
    """In the same order."""
    assert re.findall(r'"([A-Z0-9]+)"', RULES["datatype"]) == [datatype.value for datatype in DataType]


def bounds(field: FieldInfo, annotation: Any = None) -> tuple[int | None, int | None]:  # noqa: ANN401
    """Return the smallest and largest value or length that a model's field may have."""
    low = high = None
    for mark in [*field.metadata, *getattr(annotation, "__metadata__", ())]:
        for part in getattr(mark, "metadata", None) or [mark]:
            if isinstance(part, Ge | Interval) and part.ge is not None:
                low = part.ge
            if isinstance(part, Le | Interval) and part.le is not None:
                high = part.le
            if isinstance(part, MinLen):
                low = part.min_length
            if isinstance(part, MaxLen):
                high = part.max_length
    return low, high


@pytest.mark.parametrize("model", MODELS, ids=rule_name)
def test_numbers_lists_and_bytes_have_the_schemas_bounds(model: type[BaseModel]) -> None:
    """The bounds in the models are those in the schema."""
    checked = 0
    for name, described in fields(rule_name(model)).items():
        field = model.model_fields[name]
        nullable = described.endswith("/ null")
        kind = RULES.get(described.removesuffix("/ null").strip(), described)
        annotation = next((a for a in get_args(field.annotation) if a is not type(None)), None) if nullable else None
        low, high = bounds(field, annotation)
        if match := re.fullmatch(r"(\d+)\.\.(\d+)", kind):
            assert (low, high) == (int(match[1]), int(match[2])), name
        elif match := re.fullmatch(r"bytes \.size (\d+)", kind):
            assert (low, high) == (int(match[1]), int(match[1])), name
        elif match := re.fullmatch(r"bytes \.size \((\d+)\.\.(\d+)\)", kind):
            assert (low, high) == (int(match[1]), int(match[2])), name
        elif match := re.fullmatch(r"\[ (\d+)\*(\d+) [a-z-]+ \]", kind):
            assert (low or 0, high) == (int(match[1]), int(match[2])), name
        elif kind == "1":
            assert (low, high) == (1, 1)
        else:
            continue
        checked += 1
    assert checked or model in {messages.VariantClass, status.Reason}


@pytest.mark.parametrize(
    ("rule", "pattern"),
    [
        ("agent-id", topics.AGENT_ID_PATTERN),
        ("network-name", topics.NETWORK_PATTERN),
        ("family-name", get_args(messages.Family)[1].pattern),
        ("error-code", get_args(messages.Code)[1].pattern),
        ("label", get_args(messages.Label)[1].pattern),
    ],
)
def test_the_patterns_of_the_schema_are_the_models(rule: str, pattern: str) -> None:
    """CDDL's expressions are anchored by themselves."""
    assert RULES[rule] == f'text .regexp "{pattern.removeprefix("^").removesuffix("$")}"'


def test_the_table_of_limits_is_the_code() -> None:
    """Every constant that is named has the value that is printed, and every limit of messages is named."""
    named = set()
    for limit, value, _unit in table("Limits"):
        module, constant = limit.strip("`").split(".")
        assert getattr(importlib.import_module(f"edge_agent.wire.{module}"), constant) == number(value), limit
        named.add(constant)
    assert {name for name in vars(messages) if name.startswith("MAX_")} <= named


def test_the_table_of_kinds_is_the_code() -> None:
    """Topic, signer, tensors and length of every kind."""
    agent = wire_samples.AGENT.public.id
    samples = {statement.kind: statement for _, statement, _ in wire_samples.one_of_each()}
    rows = list(table("Topics and who signs what"))
    assert {row[0].strip("`") for row in rows} == set(samples)
    for kind, topic, signer, _retained, tensors, limit in rows:
        statement = samples[kind.strip("`")]
        assert statement.signed_by == signer
        assert statement.max_statement_bytes == number(limit)
        assert bool(statement.attached) == bool(tensors)
        if tensors:
            assert statement.attached == getattr(statement, tensors)
        if topic.startswith("`"):
            concrete = topic.strip("`").replace("{network}", "home").replace("{agent}", agent)
            agent_id, channel = Topics("home").parse(concrete)
            assert (agent_id is None) == (channel in {"coordinator", "revocations"})
            assert (channel in topics.UP_CHANNELS) == (signer == "agent")


def test_the_codes_are_codes_of_the_error_tree() -> None:
    """No code is documented that no error has."""

    def tree(kind: type[errors.EdgeAgentError]) -> set[str]:
        return {kind.code, *kind.codes}.union(*(tree(child) for child in kind.__subclasses__()))

    documented = {row[0].strip("`") for row in table("Error codes")}
    assert documented <= tree(errors.PeerError)
    raised = set()
    for module in ("envelope", "cose", "strict_cbor", "cbor_items", "keys", "tensors"):
        source = Path(importlib.import_module(f"edge_agent.wire.{module}").__file__ or "").read_text()
        raised |= set(re.findall(r'code="([a-z-]+)"', source))
        raised |= {errors.__dict__[name].code for name in re.findall(r"raise (\w+Error)\(", source) if name in PEER}
    assert documented == raised
