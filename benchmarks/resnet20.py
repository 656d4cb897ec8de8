"""ResNet-20 for CIFAR-10 (He et al. 2016, §4.2), under the names of github.com/akamaster/pytorch_resnet_cifar10.

As ``[task] model`` it is ``python:benchmarks.resnet20:model``, from the checkout. It has BatchNorm and takes images of
32 pixels; the weights published there (``cifar10_resnet20.safetensors``) go with it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block of the CIFAR variant: the shortcut pads channels with zeros (option A)."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.more = stride, planes - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Maps activations ``(N, inputs, H, W)`` to ``(N, planes, H / stride, W / stride)``."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """The network with n = 3: 20 layers, 0.27 M parameters, ten classes."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for k in (1, 2, 3):
            blocks = [Block(widths[k - 1], widths[k], 1 if k == 1 else 2)]
            blocks += [Block(widths[k], widths[k], 1) for _ in range(2)]
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Gives the logits ``(N, 10)`` of normalised images ``(N, 3, 32, 32)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def model() -> nn.Module:
    """Makes the network, with random weights."""
    return ResNet20()
