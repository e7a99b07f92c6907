"""UTNet's attention (METHODS §4): full-resolution queries on an 8x8 grid of keys, with relative positions."""

import torch
from torch.nn import functional

from FedSegCore.networks.options import NormKind, norm_layer_2d

SIDE = 8
"""Keys and values are reduced to SIDE x SIDE."""


def depthwise(inputs: int, outputs: int) -> torch.nn.Sequential:
    """Return a depthwise 3x3 convolution followed by a 1x1 one, without biases."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(inputs, inputs, kernel_size=3, padding=1, groups=inputs, bias=False),
        torch.nn.Conv2d(inputs, outputs, kernel_size=1, bias=False),
    )


class RelativeBias(torch.nn.Module):
    """A trained number per head and per offset between query and key on the SIDE x SIDE grid.

    Args:
        heads: attention heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(0.02 * torch.randn((2 * SIDE - 1) ** 2, heads))

    def forward(self, height: int, width: int) -> torch.Tensor:
        """Return the bias (heads, height · width, SIDE²) of queries of a ``height`` x ``width`` map.

        Each query takes the position of the grid cell it lies in.
        """
        device = self.table.device
        rows = torch.arange(height, device=device) * SIDE // height
        columns = torch.arange(width, device=device) * SIDE // width
        keys = torch.arange(SIDE, device=device)
        down = rows[:, None] - keys + SIDE - 1
        along = columns[:, None] - keys + SIDE - 1
        index = down[:, None, :, None] * (2 * SIDE - 1) + along[None, :, None, :]
        return self.table[index.reshape(height * width, SIDE * SIDE)].permute(2, 0, 1)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, bias: RelativeBias) -> torch.Tensor:
    """Return softmax((q·k + bias) / √d)·v as (N, inner, j, i).

    Args:
        query: (N, inner, j, i), inner = heads · d.
        key: (N, inner, j', i'), reduced here to SIDE x SIDE.
        value: as ``key``.
        heads: attention heads.
        bias: their relative positions.
    """
    images, inner, height, width = query.shape
    width_of_head = inner // heads

    def split(maps: torch.Tensor) -> torch.Tensor:
        return maps.reshape(images, heads, width_of_head, -1).transpose(2, 3)

    size = (SIDE, SIDE)
    key, value = (functional.interpolate(maps, size=size, mode="bilinear", align_corners=True) for maps in (key, value))
    scaled = bias(height, width).to(query.dtype) * width_of_head**-0.5
    result = functional.scaled_dot_product_attention(split(query), split(key), split(value), attn_mask=scaled[None])
    return result.transpose(2, 3).reshape(images, inner, height, width)


class TransformerBlock(torch.nn.Module):
    """x + MHA(norm x), then + 1x1 convolution(ReLU(norm)); (N, C, j, i) to the same.

    Args:
        channels: C.
        heads: attention heads; each is C / heads wide.
        norm: normalisation.
    """

    def __init__(self, channels: int, heads: int, norm: NormKind) -> None:
        super().__init__()
        self.heads = heads
        self.norm = norm_layer_2d(norm, channels)
        self.to_qkv = depthwise(channels, 3 * channels)
        self.bias = RelativeBias(heads)
        self.to_out = depthwise(channels, channels)
        self.mlp = _mlp(channels, norm)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the block's result."""
        query, key, value = self.to_qkv(self.norm(maps)).chunk(3, dim=1)
        maps = maps + self.to_out(attend(query, key, value, self.heads, self.bias))
        return maps + self.mlp(maps)


class TransformerDecoder(torch.nn.Module):
    """TD: queries from the skip, keys and values from the map below, plus that map brought up.

    Args:
        inputs: channels of the map below.
        outputs: channels of the skip and of the result.
        heads: attention heads; each is ``outputs`` / heads wide.
        norm: normalisation.
    """

    def __init__(self, inputs: int, outputs: int, heads: int, norm: NormKind) -> None:
        super().__init__()
        self.heads = heads
        self.norm_below = norm_layer_2d(norm, inputs)
        self.norm_skip = norm_layer_2d(norm, outputs)
        self.to_query = depthwise(outputs, outputs)
        self.to_key_value = depthwise(inputs, 2 * outputs)
        self.bias = RelativeBias(heads)
        self.to_out = depthwise(outputs, outputs)
        self.shortcut = torch.nn.Conv2d(inputs, outputs, kernel_size=1)
        self.mlp = _mlp(outputs, norm)

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, j, i) from ``below`` (N, inputs, j', i') and ``skip`` (N, outputs, j, i)."""
        key, value = self.to_key_value(self.norm_below(below)).chunk(2, dim=1)
        query = self.to_query(self.norm_skip(skip))
        raised = functional.interpolate(self.shortcut(below), size=skip.shape[2:], mode="bilinear", align_corners=True)
        maps = raised + self.to_out(attend(query, key, value, self.heads, self.bias))
        return maps + self.mlp(maps)


def _mlp(channels: int, norm: NormKind) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        norm_layer_2d(norm, channels),
        torch.nn.ReLU(),
        torch.nn.Conv2d(channels, channels, kernel_size=1, bias=False),
    )
