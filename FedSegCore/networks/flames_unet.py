"""FLAMES's 2-D U-Net with a DenseNet-121 beginning (Expert Systems 2025; METHODS §3): 31,264,705 parameters.

That number, for one grey input and one output, fixes what METHODS leaves open: the 7x7 convolution has a bias and no
normalisation of its own, and the highest skip is the 256 channels of the dense block. Dropout sits at the end of each
pair of convolutions; the last step to full resolution is bilinear and has no parameters.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from monai.networks.nets import DenseNet121
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import functional

from FedSegCore.common.errors import BadInputError
from FedSegCore.networks.options import Dropout, NetworkOptions, monai_norm, norm_layer_2d
from FedSegCore.networks.padding import forward_padded

MULTIPLE = (32, 32)


class FlamesUnetOptions(NetworkOptions):
    """Options of ``"flames_densenet_unet"``; the paper's network has ``norm="batch"``."""

    dropout: Dropout = 0.3


def _pair(inputs: int, outputs: int, options: FlamesUnetOptions) -> torch.nn.Sequential:
    """Return two 3x3 convolution + norm + ReLU, then dropout."""
    layers: list[torch.nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            torch.nn.Conv2d(channels, outputs, kernel_size=3, padding=1),
            norm_layer_2d(options.norm, outputs),
            torch.nn.ReLU(inplace=True),
        ]
    return torch.nn.Sequential(*layers, torch.nn.Dropout(options.dropout))


class FlamesDenseNetUnet(torch.nn.Module):
    """The network.

    Args:
        in_channels: channels of the image.
        out_channels: background + labels.
        options: normalisation and dropout.
    """

    def __init__(self, in_channels: int, out_channels: int, options: FlamesUnetOptions) -> None:
        super().__init__()
        # Only the first block and transition are kept, so only they are made (one layer in each later block).
        dense = DenseNet121(2, in_channels, 1, block_config=(6, 1), norm=monai_norm(options.norm)).features
        self.conv0 = torch.nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3)
        self.denseblock1 = dense.denseblock1
        self.transition1 = dense.transition1
        self.downs = torch.nn.ModuleList(_pair(a, 2 * a, options) for a in (128, 256, 512))
        self.ups = torch.nn.ModuleList(
            torch.nn.ConvTranspose2d(2 * a, a, kernel_size=2, stride=2) for a in (512, 256, 128, 64)
        )
        skips = (512, 256, 128, 256)
        self.merges = torch.nn.ModuleList(
            _pair(a + skip, a, options) for a, skip in zip((512, 256, 128, 64), skips, strict=True)
        )
        self.head = torch.nn.Conv2d(64, out_channels, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, out, j, i) of ``images`` (N, C, j, i)."""
        return forward_padded(self._forward, images, MULTIPLE)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = [self.denseblock1(self.conv0(images))]
        levels.append(self.transition1(levels[-1]))
        for down in self.downs:
            levels.append(down(functional.max_pool2d(levels[-1], 2)))
        features = levels.pop()
        for up, merge in zip(self.ups, self.merges, strict=True):
            features = merge(torch.cat([up(features), levels.pop()], dim=1))
        return self.head(functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False))


def load_densenet_weights(network: FlamesDenseNetUnet, file: Path) -> int:
    """Put pretrained DenseNet-121 weights into the first convolution, dense block and transition.

    This belongs to making a group's first model, not to the network's options: a release must be buildable where the
    file is not. Names may be MONAI's or torchvision's. A first convolution for three channels is summed over them for
    grey input, since grey is the same in all three.

    Args:
        network: changed in place.
        file: a safetensors file on this machine.

    Returns:
        How many tensors were taken.

    Raises:
        BadInputError: ``network.pretrained`` where the file is unreadable or does not hold those layers.
    """
    try:
        held = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _pretrained_error(f"{file.name} is not a readable safetensors file") from error
    # torchvision calls "denselayer1.norm1" what MONAI calls "denselayer1.layers.norm1".
    given = {name.removeprefix("features.").replace(".layers.", "."): tensor for name, tensor in held.items()}
    own = network.state_dict()
    taken = {
        name: _fitting(given, name, tensor)
        for name, tensor in own.items()
        if name.startswith(("denseblock1.", "transition1.")) and not name.endswith("num_batches_tracked")
    }
    taken["conv0.weight"] = _fitting(given, "conv0.weight", own["conv0.weight"])
    network.load_state_dict(taken, strict=False)
    return len(taken)


def _fitting(given: Mapping[str, torch.Tensor], name: str, own: torch.Tensor) -> torch.Tensor:
    tensor = given.get(name.replace(".layers.", "."))
    if tensor is None:
        raise _pretrained_error(f"the file has no {name}")
    if name == "conv0.weight" and own.shape[1] == 1:
        tensor = tensor.sum(dim=1, keepdim=True)
    if tensor.shape != own.shape:
        raise _pretrained_error(f"{name} has shape {tuple(tensor.shape)}, not {tuple(own.shape)}")
    return tensor


def _pretrained_error(problem: str) -> BadInputError:
    return BadInputError(
        "network.pretrained",
        f"Pretrained weights cannot be used: {problem}.",
        "Give a safetensors file with the weights of DenseNet-121.",
    )
