"""GIN as MONAI transforms, for pipelines built with ``monai.transforms.Compose``."""

from collections.abc import Hashable, Mapping
from typing import Any, Self

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, apply_gin, draw_gin
from FedSegCore.augmentation.seeds import sample_generator


class RandGlobalIntensityNonlinear(RandomizableTransform):
    """Give one image a random, anatomy-preserving look (GIN; Ouyang et al., IEEE TMI 2023; METHODS §1).

    ``parameters`` holds what was drawn last; ``gin.apply_gin`` applies it again to any image.

    Args:
        config: what is drawn; its ``probability`` is the transform's. None: the paper's values, always applied.

    Raises:
        ValueError: ``config`` asks for IPA, which blends two outputs and adds a loss: see ``ipa``.

    Example::

        >>> transform = RandGlobalIntensityNonlinear().set_random_state(seed=0)
        >>> transform(torch.rand(1, 64, 64)).shape
        torch.Size([1, 64, 64])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's own attribute

    def __init__(self, config: GinConfig | None = None) -> None:
        self.config = config or GinConfig()
        if self.config.ipa:
            raise ValueError("IPA takes a training step with two outputs, and is no transform of one image")
        super().__init__(self.config.probability)
        self.parameters: GinParameters | None = None

    def randomize(self, data: Any) -> None:
        """Draw for an image of ``data``'s shape (C, j, i) or (C, k, j, i)."""
        generator = sample_generator(int(self.R.randint(2**32, dtype=np.uint32)))
        self.parameters = draw_gin(self.config, data.shape[0], 1, len(data.shape) - 1, generator)
        self._do_transform = bool(self.parameters.applied[0])

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Return the augmented image as float32.

        Args:
            img: (C, j, i) or (C, k, j, i), NumPy array, tensor or MetaTensor; the kind, and its meta data, are kept.
            randomize: draw anew; False applies what was drawn last.

        Raises:
            RuntimeError: ``randomize`` is False and nothing was drawn yet.
        """
        if randomize:
            self.randomize(img)
        if self.parameters is None:
            raise RuntimeError("call randomize() first, or the transform with randomize=True")
        plain = convert_to_tensor(img, dtype=np.float32, track_meta=False)
        changed = apply_gin(plain.unsqueeze(0), self.parameters)[0]
        return convert_to_dst_type(changed, dst=img, dtype=np.float32)[0]


class RandGlobalIntensityNonlineard(RandomizableTransform, MapTransform):
    """Dictionary version: one draw for all ``keys``, which are images of the same number of channels and axes.

    Args:
        keys: the images' keys; labels are not among them.
        config: as in ``RandGlobalIntensityNonlinear``.
        allow_missing_keys: pass over keys that are not there.
    """

    backend = RandGlobalIntensityNonlinear.backend

    def __init__(self, keys: KeysCollection, config: GinConfig | None = None, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = RandGlobalIntensityNonlinear(config)
        RandomizableTransform.__init__(self, self.transform.prob)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Set the seed or state of the draws; returns this transform."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any) -> None:
        """Draw for images of ``data``'s shape."""
        self.transform.randomize(data)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of ``data`` with the images under ``keys`` augmented alike."""
        changed = dict(data)
        keys = list(self.key_iterator(changed))
        if keys:
            self.randomize(changed[keys[0]])
        for key in keys:
            changed[key] = self.transform(changed[key], randomize=False)
        return changed
