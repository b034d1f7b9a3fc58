"""The owner's rules on when the machine works, as settings; `edge_agent.agent.policy` judges by them."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from edge_agent.settings.fields import FamilyPattern, Label, OwnerName, SecondsOrNever, Section
from edge_agent.settings.gates import MAX_GATES, gate

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
MAX_WINDOWS = 64
_DAY = "|".join(DAYS)
_WINDOW = re.compile(rf"(?:({_DAY})(?:-({_DAY}))? )?([0-9]{{2}}):([0-9]{{2}})-([0-9]{{2}}):([0-9]{{2}})")


class Window(NamedTuple):
    """Hours of some days, in local time.

    Attributes:
        days: on which it begins; 0 is Monday.
        start: minute of the day, 0 to 1439.
        minutes: how long it lasts, 1 to 1440; over midnight, where need be.
    """

    days: frozenset[int]
    start: int
    minutes: int


def parse_window(text: str) -> Window:
    """Read `[DAY[-DAY] ]HH:MM-HH:MM`; an end that is not after the start is one of the next day.

    Raises:
        ValueError: it is something else.
    """
    match = _WINDOW.fullmatch(text)
    if match is None or int(match[4]) >= 60 or int(match[6]) >= 60:
        raise ValueError("must be hours such as 22:00-07:00 or mon-fri 22:00-07:00")
    first = 0 if match[1] is None else DAYS.index(match[1])
    last = len(DAYS) - 1 if match[1] is None else DAYS.index(match[2] or match[1])
    count = (last - first) % len(DAYS) + 1  # sat-mon goes over the end of the week
    start, end = (60 * int(match[at]) + int(match[at + 1]) for at in (3, 5))
    if start >= DAY_MINUTES or end > DAY_MINUTES:
        raise ValueError("must begin from 00:00 to 23:59 and end by 24:00")
    if start == end:
        raise ValueError("must not be empty; the whole day is 00:00-24:00")
    days = frozenset((first + day) % len(DAYS) for day in range(count))
    return Window(days, start, (end - start) % DAY_MINUTES or DAY_MINUTES)


def _window(text: str) -> str:
    parse_window(text)
    return text


def _time_zone(name: str | None) -> str | None:
    if name is not None:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 only who names one pays for it

        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("must be a time zone that this machine knows, for example Europe/Paris") from error
    return name


Hours = Annotated[str, Field(max_length=64), AfterValidator(_window)]
GateText = Annotated[str, Field(max_length=600), AfterValidator(gate)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
ClientNames = Annotated[tuple[OwnerName, ...], Field(max_length=64)]
JobLabels = Annotated[tuple[Label, ...], Field(max_length=16)]
Budget = Annotated[int, Field(ge=1_000_000, le=2**50)]
Celsius = Annotated[float, Field(ge=20, le=120, allow_inf_nan=False)]
RESUME_BELOW_CELSIUS = 10.0


class Policy(Section):
    """When the machine works, and how it leaves work; may be changed while the agent runs (SIGHUP)."""

    work_hours: Annotated[tuple[Hours, ...], Field(max_length=MAX_WINDOWS)] = Field(
        default=(),
        description="Hours in which it may work: `[DAY[-DAY] ]HH:MM-HH:MM`, also over midnight; not set for always.",
    )
    time_zone: Annotated[str | None, AfterValidator(_time_zone)] = Field(
        default=None, description="Time zone of these hours, such as `Europe/Paris`; otherwise the machine's."
    )
    idle_seconds: SecondsOrNever = Field(
        default=0.0, description="Work only when nobody has used the machine for so long; 0 does not ask."
    )
    max_other_cpu_share: Share | None = Field(
        default=None, description="Rest when other programs take more than this share of the CPUs."
    )
    max_memory_pressure_share: Share | None = Field(
        default=None,
        description="Rest when programs wait for memory in more than this share of the time (PSI, `some`).",
    )
    mode: Literal["quiet", "normal", "full"] = Field(
        default="normal",
        description="How much it uses: `quiet` takes fewer threads and rests at a lower temperature, `full` passes "
        "over `policy.idle_seconds` and `policy.max_other_cpu_share`; `edge-agent mode` changes it.",
    )
    cpu_share: Share = Field(
        default=1.0,
        description="Share of the usable CPUs that the worker may take: so many threads, at least one, and in "
        "a control group of its own, as under systemd, no more than that share.",
    )
    quiet_cpu_share: Share = Field(default=0.5, description="The same in the mode `quiet`.")
    quiet_max_cpu_celsius: Celsius = Field(
        default=60.0,
        description="In the mode `quiet`, rest when the CPU is as hot as that, if its temperature is known.",
    )
    max_monthly_network_bytes: Budget | None = Field(
        default=None,
        description="Rest for the rest of the month when so many bytes went over the network, models included.",
    )
    network: Literal["any", "unmetered"] = Field(
        default="any",
        description="Whether it may work while the network is metered, by NetworkManager or because it is a modem.",
    )
    max_daily_written_bytes: Budget | None = Field(
        default=None, description="Rest for the rest of the day when so many bytes were written to disks."
    )
    deny_families: Annotated[tuple[FamilyPattern, ...], Field(max_length=256)] = Field(
        default=(),
        description="Families never to serve, whatever `agent.families` names; takes effect at the next start.",
    )
    clients: Literal["everybody", "circle", "mine"] = Field(
        default="everybody",
        description="Whose jobs it takes: `everybody`'s, those of a `circle` (`policy.my_clients` and "
        "`policy.circle`), or `mine` alone (`policy.my_clients`).",
    )
    my_clients: ClientNames = Field(
        default=(),
        description="Your own clients, by the names that the operator gave to their API keys; their jobs go first.",
    )
    circle: ClientNames = Field(
        default=(), description='Clients of others whose jobs it takes, too, with `policy.clients = "circle"`.'
    )
    allow_labels: JobLabels = Field(
        default=(),
        description="Take only jobs whose client labelled them with one of these (`job_labels`); not set for all.",
    )
    deny_labels: JobLabels = Field(default=(), description="Take no jobs that are labelled with one of these.")
    battery: Literal["any", "charging", "never"] = Field(
        default="any",
        description="Whether it may work on battery; with `charging` only while the battery charges or is full, "
        "with `never` only on mains.",
    )
    min_battery_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.0, description="On battery, rest below this charge."
    )
    max_cpu_celsius: Celsius | None = Field(default=None, description="Rest when the CPU is as hot as that.")
    resume_cpu_celsius: Celsius | None = Field(
        default=None, description="Then work again below this; otherwise 10 °C below `policy.max_cpu_celsius`."
    )
    gates: Annotated[tuple[GateText, ...], Field(max_length=MAX_GATES)] = Field(
        default=(),
        description="Work only while numbers on the broker of `home.url` are so: `TOPIC[#MEMBER] OPERATOR NUMBER"
        "[ within SECONDS][ else open]`, the operator `>`, `>=`, `<` or `<=`; all of them must be.",
    )
    unknowable: Literal["rest", "work"] = Field(
        default="rest", description="What to do when a rule that is set cannot be judged here; `why` says so."
    )
    dwell_seconds: SecondsOrNever = Field(
        default=60.0, description="What was measured and made it rest must be over for so long before it works again."
    )
    look_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = Field(
        default=10.0, description="How often the machine is looked at, if a rule needs that."
    )
    grace_seconds: SecondsOrNever = Field(
        default=5.0,
        description="How long running attempts may take to finish before a rest; others are handed back at once.",
    )

    @model_validator(mode="after")
    def _resume_below_the_limit(self) -> Self:
        limit, resume = self.max_cpu_celsius, self.resume_cpu_celsius
        if resume is not None and (limit is None or resume >= limit):
            raise ValueError("policy.resume_cpu_celsius must be below policy.max_cpu_celsius, which must be set")
        return self

    @model_validator(mode="after")
    def _somebody_to_work_for(self) -> Self:
        if self.clients == "mine" and not self.my_clients:
            raise ValueError('policy.clients = "mine" needs the names of your clients in policy.my_clients')
        if self.clients == "circle" and not (self.my_clients or self.circle):
            raise ValueError('policy.clients = "circle" needs names of clients in policy.circle or policy.my_clients')
        return self
