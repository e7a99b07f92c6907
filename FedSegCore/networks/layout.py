"""How a network's weights lie in memory."""

import torch

from FedSegCore.networks.unet import PaddedUNet


def lay_out(network: torch.nn.Module, dimensions: int) -> None:
    """Keep weights channels last where that shortens work on the processor; results stay the same to rounding.

    In 3-D that is everywhere; in 2-D in the U-Net's last block only, with its few channels at full resolution.
    """
    if dimensions == 3:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    elif isinstance(network, PaddedUNet):
        network.last_block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
