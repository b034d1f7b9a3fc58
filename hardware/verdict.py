"""What the figures mean, in plain language: a table and a few sentences for the owner of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hardware.benchmark import Measured
    from hardware.schema import Profile


class Task(NamedTuple):
    """A well-known model as a yardstick: its cost, and the kernels that carry it."""

    name: str
    gmac: float
    kernels: tuple[str, ...]


# Multiply-accumulates as the models' papers count them: MobileNetV2 at 224 pixels, MiniLM-L6 on 128 tokens.
TASKS = (
    Task("an image classifier of MobileNet's size", 0.3, ("conv_qdq_u8s8", "conv_fp32")),
    Task("an image classifier of ResNet-50's size", 4.1, ("conv_qdq_u8s8", "conv_fp32")),
    Task("a sentence encoder of MiniLM's size", 1.36, ("matmulinteger_u8s8", "matmul_fp32")),
)
FASTEST_SHARE, SLOWEST_SHARE = 0.6, 0.12
"""What whole models reach of a single large layer's rate: the rest goes to small and thin layers."""
BILLION_BYTES = 0.625e9
"""A billion weights in 4 bits, with a scale for each block of 32: what every token reads."""
_SPEEDS = (
    (1 / 30, "in real time (30 a second or more)"),
    (0.1, "fluently (10 a second or more)"),
    (1.0, "at leisure (one a second or more)"),
)


def verdict(profile: Profile, measured: Measured) -> list[str]:
    """Return sentences that say what this machine serves. Estimates are given as ranges."""
    sentences = [sentence for task in TASKS if (sentence := _task(task, measured))]
    others = (_language_model(profile, measured), _formats(measured), _memory(profile), _disk(measured))
    sentences.extend(sentence for sentence in others if sentence)
    sentences.extend(_accelerators(profile))
    sentences.extend(_heat(profile, measured))
    return sentences


def table(measured: Measured) -> list[str]:
    """Return the figures as lines of text."""
    threads = measured.figure("threads")
    lines = [f"{'':24}{'1 thread':>12}{f'{threads} threads' if threads != 1 else '':>14}"]

    def row(name: str, one: object, all_threads: object, unit: str) -> None:
        if isinstance(one, (int, float)):
            more = f"{all_threads:>14.1f}" if isinstance(all_threads, (int, float)) and threads != 1 else " " * 14
            lines.append(f"{name:24}{one:>12.1f}{more}  {unit}")

    row("memory read", measured.figure("memory", "read_gb_s_1"), measured.figure("memory", "read_gb_s"), "GB/s")
    kernels = measured.figure("kernels")
    for name in kernels if isinstance(kernels, dict) else ():
        row(name, measured.gmac_s(name, one_thread=True), measured.gmac_s(name), "GMAC/s")
    for name in ("write", "read"):
        value = measured.figure("disk", f"{name}_mb_s")
        if isinstance(value, (int, float)):
            lines.append(f"{f'disk {name}':24}{value:>12.1f}{'':14}  MB/s")
    before, after = (measured.figure("thermal", f"{name}_celsius") for name in ("before", "after"))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        lines.append(f"{'CPU temperature':24}{before:>12.1f}{after:>14.1f}  °C, before and after")
    return lines


def _task(task: Task, measured: Measured) -> str | None:
    rates = [rate for name in task.kernels if (rate := measured.gmac_s(name)) is not None]
    if not rates:
        return None
    fast, slow = (task.gmac / (max(rates) * share) for share in (FASTEST_SHARE, SLOWEST_SHARE))
    # The slower estimate decides what is promised.
    speed = next((words for limit, words in _SPEEDS if slow <= limit), "slowly (more than a second each)")
    return f"It serves {task.name} {speed}: an estimated {_milliseconds(fast)} to {_milliseconds(slow)} each."


def _milliseconds(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def _language_model(profile: Profile, measured: Measured) -> str | None:
    rate, bandwidth = measured.gmac_s("matmulnbits_4"), measured.figure("memory", "read_gb_s")
    budget = profile.memory.budget_bytes
    if rate is None or not isinstance(bandwidth, (int, float)) or budget is None:
        return None
    if budget < 1.5 * BILLION_BYTES:
        return "A language model of a billion parameters does not fit into its memory, not even in 4 bits."
    # Every token reads all weights and multiplies with each once: the slower of the two decides.
    tokens = min(bandwidth * 1e9 / BILLION_BYTES, rate)
    return f"A language model of a billion parameters in 4 bits writes at most {tokens:.0f} tokens a second."


def _formats(measured: Measured) -> str | None:
    full, small = measured.gmac_s("conv_fp32"), measured.gmac_s("conv_qdq_u8s8")
    if full is None or small is None:
        return None
    ratio = small / full
    if ratio < 1.1:
        text = "Models in 8 bits are no faster here than in 32: take them for their size"
    else:
        text = f"Convolutions in 8 bits run {ratio:.1f} times as fast as in 32"
    signed, unsigned = measured.gmac_s("matmulinteger_u8s8"), measured.gmac_s("matmulinteger_u8u8")
    if signed is not None and unsigned is not None and max(signed, unsigned) > 1.5 * min(signed, unsigned):
        better, worse = ("signed", "unsigned") if signed > unsigned else ("unsigned", "signed")
        times = max(signed, unsigned) / min(signed, unsigned)
        text += f"; matrix products with {better} weights are {times:.1f} times as fast as with {worse} ones"
    return text + "."


def _memory(profile: Profile) -> str | None:
    budget = profile.memory.budget_bytes
    if budget is None:
        return None
    text = f"{budget / 1e9:.1f} GB are free for models"
    limit = profile.memory.limit_bytes
    if limit is not None:
        text += f" (this process may take {limit / 1e9:.1f} GB at most)"
    return text + "."


def _disk(measured: Measured) -> str | None:
    read = measured.figure("disk", "read_mb_s")
    if not isinstance(read, (int, float)) or read <= 0 or 100 / read < 1:
        return None  # nobody waits for it
    return f"Its disk is slow: reading a model of 100 MB takes {100 / read:.0f} s."


def _accelerators(profile: Profile) -> list[str]:
    return [
        f"{item.name}: ready to use ({item.why})." if item.usable else f"{item.name}: not usable, {item.why}."
        for item in profile.accelerators
    ]


def _heat(profile: Profile, measured: Measured) -> list[str]:
    sentences = []
    after = measured.figure("thermal", "throttled_after_seconds")
    if isinstance(after, (int, float)):
        sentences.append(f"It got too hot and slowed down {after:.0f} s into the measurement: cooling would help.")
    highest, limit = measured.figure("thermal", "max_celsius"), profile.thermal.limit_celsius
    if after is None and isinstance(highest, (int, float)) and limit is not None and highest > limit - 10:
        sentences.append(
            f"It reached {highest:.0f} °C within seconds, {limit - highest:.0f} °C below the point where it slows down."
        )
    if profile.thermal.under_voltage:
        sentences.append("Its power supply is too weak: the firmware reports under-voltage.")
    return sentences
