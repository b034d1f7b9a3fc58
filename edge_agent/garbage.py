"""What a process that runs for years spends on looking for garbage in cycles."""

from __future__ import annotations

import gc

YOUNG = 10_000
"""So many new objects are made before Python looks for cycles among them; 700 by default, several times in one job."""


def settle() -> None:
    """Take what is there for permanent; to be called once, when a process has started.

    Modules, classes, routes and schemas are some hundred thousand objects that never become garbage, and Python would
    walk over all of them each time that it looks at its oldest generation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
