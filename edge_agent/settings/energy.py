"""What the owner knows of the machine's watts and their price, as settings."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from edge_agent.settings.fields import Section
from edge_agent.settings.gates import source

SourceText = Annotated[str, Field(max_length=600), AfterValidator(source)]
Watts = Annotated[float, Field(gt=0, le=20_000, allow_inf_nan=False)]


class Energy(Section):
    """What is known of the watts of this machine, and what they cost; for `edge-agent report`."""

    idle_watts: Watts | None = Field(
        default=None, description="What the machine draws with nothing to do; otherwise the board's file says it."
    )
    max_watts: Watts | None = Field(
        default=None, description="What it draws with all CPUs busy; otherwise the board's file says it."
    )
    watts_topic: SourceText | None = Field(
        default=None,
        description="Topic on the broker of `home.url` on which a meter at the plug says the watts of this machine: "
        "`TOPIC[#MEMBER][ within SECONDS]`.",
    )
    price_per_kwh: Annotated[float | None, Field(ge=0, le=1e6, allow_inf_nan=False)] = Field(
        default=None, description="What a kilowatt-hour costs, in `energy.currency`."
    )
    price_topic: SourceText | None = Field(
        default=None,
        description="Topic on which the price of the moment is said, in the same form; while it says nothing, "
        "`energy.price_per_kwh` holds.",
    )
    currency: Annotated[str, Field(pattern=r"^[A-Za-z$€£¥]{1,8}$")] = Field(
        default="EUR", description="Of the price; it is only shown."
    )

    @model_validator(mode="after")
    def _idle_below_most(self) -> Self:
        if self.idle_watts is not None and self.max_watts is not None and self.idle_watts > self.max_watts:
            raise ValueError("energy.idle_watts must not be above energy.max_watts")
        return self
