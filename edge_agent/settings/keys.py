"""Every setting by its name: where it can be set, and how it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args, get_origin

from pydantic import SecretStr

from edge_agent.settings.fields import Derived, Flag, Section
from edge_agent.settings.model import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

ENVIRONMENT_PREFIX = "EDGE_AGENT_"
HIDDEN = "(set)"
"""What is shown in place of a secret."""


class Key(NamedTuple):
    """One setting: its section, its name there, and its field."""

    section: str
    name: str
    field: FieldInfo

    @property
    def dotted(self) -> str:
        """`section.name`, as people write it."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{ENVIRONMENT_PREFIX}{self.section}_{self.name}".upper()

    @property
    def flag(self) -> Flag | None:
        """The flag that sets it, on commands that have it."""
        return next((part for part in self.field.metadata if isinstance(part, Flag)), None)

    @property
    def default_text(self) -> str:
        """The default, as `docs/settings.md` and `--help` show it."""
        derived = next((part.text for part in self.field.metadata if isinstance(part, Derived)), None)
        return derived if derived is not None else plain(self.field.default)

    def is_a(self, kind: type) -> bool:
        """Whether values of this setting are of `kind`, None aside."""
        annotation = self.field.annotation
        parts = (annotation, *get_args(annotation))
        plain_parts = [part.__origin__ if get_origin(part) is Annotated else part for part in parts]
        return any(part is kind or get_origin(part) is kind for part in plain_parts)


def keys() -> Iterator[Key]:
    """Give every setting there is, section by section."""
    for section, outer in Settings.model_fields.items():
        model = outer.annotation
        if not (isinstance(model, type) and issubclass(model, Section)):  # pragma: no cover - for who adds a section
            raise TypeError(f"the section {section} is no model")
        for name, field in model.model_fields.items():
            yield Key(section, name, field)


KEYS = {key.dotted: key for key in keys()}
"""Every setting by its `section.name`."""


def plain(value: object) -> str:
    """Return a value as people would write it in the file; "not set" for None and for no items."""
    match value:
        case None | ():
            return "not set"
        case SecretStr():
            return HIDDEN
        case float() if value.is_integer():
            return str(int(value))
        case tuple():
            return ", ".join(str(item) for item in value)
        case _:
            return str(value)
