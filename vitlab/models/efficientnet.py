"""EfficientNet-Lite0: a small network for photographs, whose ImageNet weights come as a package.

B images  C channels  R rows  S columns of a feature map
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.models.vit import Trace

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, WIDTH = 32, 1280
"""Channels after the first convolution, and of the last map."""


class EfficientNetLite0(nn.Module):
    """Maps normalised images (B, 3, height, width) to feature maps (B, 1280, R, S) of 32x32 pixels.

    Inverted bottlenecks with depth-wise convolutions, batch norms and ReLU6, found by a search
    over networks (Tan & Le, 2019) and freed of squeeze-and-excitation for small devices. Padding
    and epsilon are TensorFlow's, where it was trained; names are timm's.
    """

    width = WIDTH
    """Channels of the last maps."""
    input_size = (224, 224)
    """Height and width in pixels of the images that it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, STEM, 3, stride=2)
        self.bn1 = norm(STEM)
        self.blocks = nn.ModuleList()
        inputs = STEM
        for kernel, stride, expansion, channels, depth in STAGES:
            stage = nn.Sequential()
            for place in range(depth):
                stride = stride if place == 0 else 1
                stage.append(Bottleneck(inputs, channels, kernel, stride, expansion))
                inputs = channels
            self.blocks.append(stage)
        self.conv_head = SameConv(inputs, WIDTH, 1)
        self.bn2 = norm(WIDTH)

    def forward(self, images: Tensor, trace: Trace = None) -> Tensor:
        """A dictionary given as `trace` is filled with the maps of `stem` and of every stage."""
        maps = F.relu6(self.bn1(self.conv_stem(images)))
        if trace is not None:
            trace["stem"] = maps
        for number, stage in enumerate(self.blocks, 1):
            maps = stage(maps)
            if trace is not None:
                trace[f"stage{number}"] = maps
        return F.relu6(self.bn2(self.conv_head(maps)))


class Bottleneck(nn.Module):
    """Widen, convolve every channel by itself, narrow; with a shortcut where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        middle = inputs * expansion
        self.widen = expansion > 1
        if self.widen:
            self.conv_pw = SameConv(inputs, middle, 1)
            self.bn1 = norm(middle)
        self.conv_dw = SameConv(middle, middle, kernel, stride=stride, groups=middle)
        self.bn2 = norm(middle)
        self.conv_pwl = SameConv(middle, outputs, 1)
        self.bn3 = norm(outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, R, S) to maps, halved in size by a stride of 2."""
        branch = maps
        if self.widen:
            branch = F.relu6(self.bn1(self.conv_pw(branch)))
        branch = F.relu6(self.bn2(self.conv_dw(branch)))
        branch = self.bn3(self.conv_pwl(branch))
        return maps + branch if self.shortcut else branch


class SameConv(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: an odd pixel at right and bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, R, S) to maps of ceil(R / stride) rows and ceil(S / stride) columns."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (
            max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in maps.shape[-2:]
        )
        padding = (width // 2, width - width // 2, height // 2, height - height // 2)
        return self._conv_forward(F.pad(maps, padding), self.weight, None)


def norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm as TensorFlow has it."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
