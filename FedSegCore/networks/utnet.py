"""UTNet (Gao et al., MICCAI 2021), FedGS's backbone (METHODS §4).

14,418,788 parameters with 3 inputs and 2 outputs (background and polyp). That number fixes what METHODS leaves open:
convolutions of blocks and the 1x1 MLP have no bias, those that only change the width on the way up and the last do,
and the shortcut of a block whose width changes has its own norm and ReLU.
"""

import torch
from torch.nn import functional

from FedSegCore.networks.attention import TransformerBlock, TransformerDecoder
from FedSegCore.networks.options import NetworkOptions, NormKind, norm_layer_2d
from FedSegCore.networks.padding import forward_padded

MULTIPLE = (16, 16)


class UtnetOptions(NetworkOptions):
    """Options of ``"utnet"`` and ``"sd_utnet"``; the papers' networks have ``norm="batch"``."""


def norm_relu_conv(inputs: int, outputs: int, kernel: int, norm: NormKind) -> torch.nn.Sequential:
    """Return norm, ReLU and a convolution without bias that keeps the size."""
    return torch.nn.Sequential(
        norm_layer_2d(norm, inputs, groups=8 if inputs % 8 == 0 else 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
    )


class ResidualBlock(torch.nn.Module):
    """BB: pre-activation residual block of two norm-ReLU-conv3x3.

    Args:
        inputs: channels in.
        outputs: channels out.
        norm: normalisation.
    """

    def __init__(self, inputs: int, outputs: int, norm: NormKind) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            norm_relu_conv(inputs, outputs, 3, norm), norm_relu_conv(outputs, outputs, 3, norm)
        )
        self.shortcut = torch.nn.Identity() if inputs == outputs else norm_relu_conv(inputs, outputs, 1, norm)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, j, i) from (N, inputs, j, i)."""
        return self.body(maps) + self.shortcut(maps)


class UpTransformer(torch.nn.Module):
    """TD, concatenated with the skip, then one residual block.

    Args:
        inputs: channels of the map below.
        outputs: channels of the skip and of the result.
        heads: attention heads.
        norm: normalisation.
    """

    def __init__(self, inputs: int, outputs: int, heads: int, norm: NormKind) -> None:
        super().__init__()
        self.attention = TransformerDecoder(inputs, outputs, heads, norm)
        self.merge = ResidualBlock(2 * outputs, outputs, norm)

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, j, i)."""
        return self.merge(torch.cat([self.attention(below, skip), skip], dim=1))


class UpBilinear(torch.nn.Module):
    """Bilinear enlargement, 1x1 convolution, concatenation with the skip, two residual blocks.

    Args:
        inputs: channels of the map below.
        outputs: channels of the skip and of the result.
        norm: normalisation.
    """

    def __init__(self, inputs: int, outputs: int, norm: NormKind) -> None:
        super().__init__()
        self.narrow = torch.nn.Conv2d(inputs, outputs, kernel_size=1)
        self.merge = torch.nn.Sequential(
            ResidualBlock(2 * outputs, outputs, norm), ResidualBlock(outputs, outputs, norm)
        )

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, j, i)."""
        # The 1x1 convolution comes first: it commutes with the enlargement and is a quarter of the work there.
        raised = functional.interpolate(self.narrow(below), size=skip.shape[2:], mode="bilinear", align_corners=True)
        return self.merge(torch.cat([raised, skip], dim=1))


class Utnet(torch.nn.Module):
    """The network.

    Args:
        in_channels: channels of the image.
        out_channels: background + labels.
        options: normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, options: UtnetOptions) -> None:
        super().__init__()
        norm = options.norm

        def down(inputs: int, outputs: int, blocks: int, heads: int) -> torch.nn.Sequential:
            attention = [TransformerBlock(outputs, heads, norm) for _ in range(blocks)]
            return torch.nn.Sequential(torch.nn.MaxPool2d(2), ResidualBlock(inputs, outputs, norm), *attention)

        self.top = torch.nn.Sequential(ResidualBlock(in_channels, 32, norm), ResidualBlock(32, 32, norm))
        self.downs = torch.nn.ModuleList(
            [
                torch.nn.Sequential(torch.nn.MaxPool2d(2), ResidualBlock(32, 64, norm), ResidualBlock(64, 64, norm)),
                down(64, 128, blocks=1, heads=2),
                down(128, 256, blocks=2, heads=4),
                down(256, 512, blocks=4, heads=8),
            ]
        )
        self.ups = torch.nn.ModuleList(
            [
                UpTransformer(512, 256, 8, norm),
                UpTransformer(256, 128, 4, norm),
                UpBilinear(128, 64, norm),
                UpBilinear(64, 32, norm),
            ]
        )
        self.head = torch.nn.Conv2d(32, out_channels, kernel_size=1)

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
