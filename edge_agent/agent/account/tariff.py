"""What the owner knows of watts and prices: from the settings, and from topics of the broker at home."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.agent.policy import Reading
from edge_agent.clock import Now
from edge_agent.settings import Energy, Source, parse_source
from hardware.meter import Meter

Read = Callable[[Source, Now], Reading]


class Tariff:
    """The watts and the price of the moment.

    Args:
        settings: of the owner.
        read: gives the last number that was said somewhere.
        meter: is told what the owner knows of the machine.
        board: idle and maximum watts by the board's file, as far as it says.
    """

    def __init__(
        self, settings: Energy, read: Read, meter: Meter, board: tuple[float | None, float | None] = (None, None)
    ) -> None:
        self._read = read
        self._board = board
        self.meter = meter
        self.change(settings)

    def change(self, settings: Energy) -> None:
        """Go by other settings from now on."""
        self.settings = settings
        self._plug = None if settings.watts_topic is None else parse_source(settings.watts_topic)
        self._price = None if settings.price_topic is None else parse_source(settings.price_topic)
        idle, most = self._board
        self.meter.idle_told = settings.idle_watts if settings.idle_watts is not None else idle
        self.meter.max_told = settings.max_watts if settings.max_watts is not None else most

    @property
    def sources(self) -> tuple[Source, ...]:
        """What is to be listened to."""
        return tuple(source for source in (self._plug, self._price) if source is not None)

    def plug(self, now: Now) -> float | None:
        """Return what the owner's own meter says, if there is one and it has said something of late."""
        watts = None if self._plug is None else self._read(self._plug, now).value
        return watts if watts is None or watts >= 0 else None

    def price(self, now: Now) -> float | None:
        """Return what a kilowatt-hour costs now, as far as it is known."""
        said = None if self._price is None else self._read(self._price, now).value
        return self.settings.price_per_kwh if said is None else said
