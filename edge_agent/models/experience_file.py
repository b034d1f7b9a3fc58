"""The file in which an agent keeps what it has learnt of variants."""

from __future__ import annotations

from pathlib import Path

from edge_agent.errors import StateError
from edge_agent.folders import write_atomically
from edge_agent.models.experience import MAX_DOCUMENT_BYTES, Experience, parse

FILE_NAME = "experience.json"


def read(folder: Path) -> tuple[Experience, str]:
    """Return what was learnt, and in words what was wrong with the file, or nothing.

    A file that cannot be understood is set aside: everything is measured anew, and somebody may want to look at it.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as stream:
            return parse(stream.read(MAX_DOCUMENT_BYTES + 1)), ""
    except FileNotFoundError:
        return Experience(), ""
    except OSError as error:
        return Experience(), f"{path} cannot be read: {error.strerror}"
    except StateError as error:
        aside = path.with_suffix(".damaged")
        try:
            path.replace(aside)
        except OSError:
            aside = path
        return Experience(), f"{path} is damaged ({error.message}); it is kept as {aside}"


def write(folder: Path, document: str) -> None:
    """Write what was learnt, in one piece.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(folder / FILE_NAME, document)
