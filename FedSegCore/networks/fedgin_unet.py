"""FedGIN's small 2-D U-Net (arXiv 2508.05137; METHODS §2): 1.93 M parameters."""

from itertools import pairwise

import torch
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat

from FedSegCore.networks.options import Dropout, NetworkOptions, monai_norm
from FedSegCore.networks.padding import forward_padded

WIDTHS = (32, 64, 128, 256)
MULTIPLE = (8, 8)


class FedGinUnetOptions(NetworkOptions):
    """Options of ``"fedgin_unet"``; the paper's network has ``norm="batch"``."""

    dropout: Dropout = 0.3


class FedGinUnet(torch.nn.Module):
    """Four levels 32/64/128/256 of two 3x3 convolution + norm + LeakyReLU 0.2, MONAI's parts.

    Args:
        in_channels: channels of the image.
        out_channels: background + labels.
        options: normalisation and dropout.
    """

    def __init__(self, in_channels: int, out_channels: int, options: FedGinUnetOptions) -> None:
        super().__init__()
        act = ("leakyrelu", {"negative_slope": 0.2, "inplace": True})
        norm = monai_norm(options.norm)
        tail = (act, norm, True, options.dropout)
        self.top = TwoConv(2, in_channels, WIDTHS[0], *tail)
        self.downs = torch.nn.ModuleList(Down(2, a, b, *tail) for a, b in pairwise(WIDTHS))
        rising = WIDTHS[::-1]
        self.ups = torch.nn.ModuleList(UpCat(2, a, b, b, *tail) for a, b in pairwise(rising))
        self.head = torch.nn.Conv2d(WIDTHS[0], out_channels, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, out, j, i) of ``images`` (N, C, j, i)."""
        return forward_padded(self._forward, images, MULTIPLE)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = [self.top(images)]
        for down in self.downs:
            levels.append(down(levels[-1]))
        features = levels.pop()
        for up in self.ups:
            features = up(features, levels.pop())
        return self.head(features)
