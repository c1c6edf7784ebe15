"""Feature statistics mixed between the photos of a batch: a style that no photo has, where the object stays its own.

After MixStyle (Zhou et al., "Domain Generalization with MixStyle", ICLR 2021, section 3.2). Not in the paper.
"""

import torch
from torch import Tensor

from .engine.device import to_device

CONCENTRATION = 0.1
"""Of the Beta distribution of the shares, as in MixStyle: mostly nearly all of one of the two."""
FLOOR = 1e-6


def mix_statistics(maps: Tensor, share: float) -> Tensor:
    """Give some maps a mixture of their own mean and deviation and another photo's, channel by channel.

    Random numbers come from torch's global generator, on the CPU, as dropout's do there.

    Args:
        maps: (B, C, h, w), any floating type.
        share: probability of each photo to be mixed.

    Returns:
        (B, C, h, w) of the same type; gradients don't flow through the statistics.
    """
    count = len(maps)
    own = torch.distributions.Beta(CONCENTRATION, CONCENTRATION).sample((count,))
    own = to_device(torch.where(torch.rand(count) < share, own, 1.0), maps.device).view(-1, 1, 1, 1)
    other = to_device(torch.randperm(count), maps.device)
    with torch.no_grad():
        variance, mean = torch.var_mean(maps.float(), dim=(2, 3), keepdim=True, correction=0)  # (B, C, 1, 1)
        deviation = (variance + FLOOR).sqrt()
        scale = (own * deviation + (1 - own) * deviation[other]) / deviation
        target = own * mean + (1 - own) * mean[other]
    return ((maps.float() - mean) * scale + target).to(maps.dtype)
