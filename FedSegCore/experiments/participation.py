"""Sites that are missing: at random, at first, or for good."""

import zlib
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from FedSegCore.federation.groups import Participation

Round = Annotated[int, Field(ge=1)]


class SiteParticipation(BaseModel):
    """Who takes part in which round.

    Attributes:
        missing: share of site-rounds that are missing at random. The same seed loses nested site-rounds: what is
            missing at 0.1 is missing at 0.3 too.
        joins: site → the first round it takes part in.
        leaves: site → the last round it takes part in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    missing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    joins: dict[str, Round] = {}
    leaves: dict[str, Round] = {}

    def sites(self) -> set[str]:
        """Return the names of the sites it speaks of."""
        return {*self.joins, *self.leaves}

    def asked(self, seed: int) -> Participation:
        """Return (site, round) → whether the site is asked, for a run of ``seed``."""

        def is_asked(site: str, round_number: int) -> bool:
            here = self.joins.get(site, 1) <= round_number <= self.leaves.get(site, round_number)
            luck = np.random.default_rng([seed, zlib.crc32(site.encode()), round_number]).random()
            return here and bool(luck >= self.missing)

        return is_asked
