"""Chance that does not depend on what else happened: a number for each question, by the script's seed.

A stream of random numbers would give every later message another fate when one fault is taken out of a script, and
a failing script could not be made smaller.
"""

from __future__ import annotations

_MASK = 2**64 - 1


def mix(*parts: int) -> int:
    """Return 64 well-mixed bits of these numbers (the finaliser of splitmix64 over each)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ part) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def share(*parts: int) -> float:
    """Return a number in [0, 1) of these numbers."""
    return mix(*parts) / 2**64
