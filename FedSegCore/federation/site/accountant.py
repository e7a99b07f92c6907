"""The running (ε, δ) of a site's noisy updates, from Opacus's Rényi accountant."""

import math
from collections import Counter
from collections.abc import Sequence

SENSITIVITY = 2.0
"""Two clipped updates can lie two clipping norms apart: one patient more or less may turn the whole update round."""


def running_epsilon(noise_multipliers: Sequence[float | None], delta: float) -> float:
    """Return ε for δ of all rounds together, each one Gaussian mechanism on the site's whole update.

    It is infinite where one of them left without noise: nothing bounds what that one told.

    Neighbouring cohorts differ in any one patient (or in all of them: the bound is the same), and no amplification by
    sampling is claimed, since the server knows who answered.

    Args:
        noise_multipliers: of every round that left, the noise's standard deviation over the clipping norm; None: no
            noise.
        delta: δ.
    """
    if not noise_multipliers:
        return 0.0
    noisy = [noise for noise in noise_multipliers if noise is not None]
    if len(noisy) < len(noise_multipliers):
        return math.inf
    # Opacus imports torch and takes two seconds: only sites that add noise pay for it.
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise / SENSITIVITY, 1.0, count) for noise, count in Counter(noisy).items()]
    return float(accountant.get_epsilon(delta=delta))
