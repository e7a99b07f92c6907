"""SD-UTNet: UTNet as the anatomy encoder of a network that also takes an image's look apart (METHODS §4).

18,836,223 parameters with 3 inputs and 2 outputs. The modality encoder's full connection is sized for 512x512 images;
for others its maps are brought to the same 32x32 by adaptive averaging, which changes nothing at 512x512.
"""

from itertools import pairwise

import torch
from torch.nn import functional

from FedSegCore.networks.options import NormKind, norm_layer_2d
from FedSegCore.networks.padding import cut_to, pad_to_multiple
from FedSegCore.networks.utnet import MULTIPLE, Utnet, UtnetOptions

ANATOMY = 8
"""Channels of the anatomy maps."""
STYLE = 8
"""Numbers that describe an image's look."""
REDUCED = 32
"""Side of the modality encoder's last maps."""
KL_WEIGHT = 0.01


class _BatchNormOfFew(torch.nn.BatchNorm1d):
    """BatchNorm over a batch's vectors; a single one, which has no spread, is normalised by the running statistics.

    Memory may leave room for one image a step only.
    """

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (N, numbers) of the same shape."""
        if self.training and len(vectors) == 1:
            return functional.batch_norm(vectors, self.running_mean, self.running_var, self.weight, self.bias)
        return super().forward(vectors)


class ModalityEncoder(torch.nn.Module):
    """Four conv3x3/2 (16, 32, 64, 128) with norm and LeakyReLU, a full connection to 32, then μ and log σ² in R^8.

    Args:
        in_channels: channels of the image.
        norm: normalisation; the 32 numbers are normalised over the batch with ``"batch"``, else over themselves.
    """

    def __init__(self, in_channels: int, norm: NormKind) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        widths = (in_channels, 16, 32, 64, 128)
        for inputs, outputs in pairwise(widths):
            layers += [
                torch.nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1),
                norm_layer_2d(norm, outputs),
                torch.nn.LeakyReLU(),
            ]
        self.body = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(REDUCED), torch.nn.Flatten())
        self.squeeze = torch.nn.Sequential(
            torch.nn.Linear(128 * REDUCED * REDUCED, 32),
            _BatchNormOfFew(32) if norm == "batch" else torch.nn.LayerNorm(32),
            torch.nn.LeakyReLU(),
        )
        self.mean = torch.nn.Linear(32, STYLE)
        self.log_variance = torch.nn.Linear(32, STYLE)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return μ and log σ², both (N, 8), of ``images`` (N, C, j, i)."""
        features = self.squeeze(self.body(images))
        return self.mean(features), self.log_variance(features)


class Decoder(torch.nn.Module):
    """Draws an image from anatomy and style: three 8→8 convolutions with AdaIN, conv3x3 to the image, tanh.

    Args:
        in_channels: channels of the image.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.style = torch.nn.Sequential(
            torch.nn.Linear(STYLE, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 3 * 2 * ANATOMY),
            torch.nn.ReLU(),
        )
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(ANATOMY, ANATOMY, kernel_size=3, padding=1) for _ in range(3)
        )
        self.head = torch.nn.Conv2d(ANATOMY, in_channels, kernel_size=3, padding=1)

    def forward(self, anatomy: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Return images (N, C, j, i) in (-1, 1) from ``anatomy`` (N, 8, j, i) and ``style`` (N, 8)."""
        parameters = self.style(style).reshape(-1, 3, 2, ANATOMY, 1, 1)
        maps = anatomy
        for number, convolution in enumerate(self.convolutions):
            shift, scale = parameters[:, number, 0], parameters[:, number, 1]
            maps = functional.leaky_relu(functional.instance_norm(convolution(maps)) * scale + shift)
        return torch.tanh(self.head(maps))


class SdUtnet(torch.nn.Module):
    """The network; calling it gives logits alone, as inference needs.

    Args:
        in_channels: channels of the image.
        out_channels: background + labels.
        options: normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, options: UtnetOptions) -> None:
        super().__init__()
        norm = options.norm
        self.anatomy = Utnet(in_channels, ANATOMY, options)
        self.segmentor = torch.nn.Sequential(
            torch.nn.Conv2d(ANATOMY, 64, kernel_size=3, padding=1),
            norm_layer_2d(norm, 64),
            torch.nn.ReLU(),
            torch.nn.Conv2d(64, 64, kernel_size=3, padding=1),
            norm_layer_2d(norm, 64),
            torch.nn.ReLU(),
            torch.nn.Conv2d(64, out_channels, kernel_size=1),
        )
        self.modality = ModalityEncoder(in_channels, norm)
        self.decoder = Decoder(in_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, out, j, i) of ``images`` (N, C, j, i)."""
        padded = pad_to_multiple(images, MULTIPLE)
        return cut_to(self.segmentor(torch.tanh(self.anatomy(padded))), tuple(images.shape[2:]))

    def forward_with_loss(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and 0.01·KL + L1(z̃, z) + L1(x̂, x), to be added to the segmentation loss ``"sd_utnet"``.

        z is drawn from N(μ, σ²) with torch's global generator, x̂ is decoded from anatomy and z, z̃ is x̂'s own μ.
        KL to N(0, I) is summed over the 8 numbers and averaged over images; L1 terms are means.
        """
        padded = pad_to_multiple(images, MULTIPLE)
        anatomy = torch.tanh(self.anatomy(padded))
        mean, log_variance = self.modality(padded)
        style = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        drawn = self.decoder(anatomy, style)
        again, _ = self.modality(drawn)
        loss = (
            KL_WEIGHT * kl_to_standard_normal(mean, log_variance)
            + functional.l1_loss(again, style)
            + functional.l1_loss(drawn, padded)
        )
        return cut_to(self.segmentor(anatomy), tuple(images.shape[2:])), loss


def kl_to_standard_normal(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return the mean over images of ½ Σ (μ² + σ² - 1 - log σ²); both arguments (N, numbers)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(dim=1).mean()
