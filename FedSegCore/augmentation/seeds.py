"""From one seed to the generator of any one thing drawn, the same in preview, training and every experiment."""

import numpy as np
import torch


def sample_generator(seed: int, *indices: int) -> torch.Generator:
    """Return the CPU generator of one thing drawn: sample n of a preview, or step t of round r of a site.

    The generator's own seed is the first 32-bit word of ``numpy.random.SeedSequence(seed, spawn_key=indices)``, which
    NumPy keeps the same in all versions. Different ``indices`` give unrelated draws; the same give the same draw,
    whatever was drawn before. Sample n of seed S in ``fedseg gin`` is ``sample_generator(S, n)``.

    Args:
        seed: whole number, 0 or more.
        indices: whole numbers, 0 or more; their order and number matter.
    """
    state = np.random.SeedSequence(seed, spawn_key=indices).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
