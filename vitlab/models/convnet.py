"""The controls: two convolutional networks to compare a ViT with.

B images  C channels  K classes  R rows  S columns of a feature map
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import CNN6Config, ResNet18Config
from vitlab.errors import ConfigError
from vitlab.models.vit import Trace


class ConvNet(nn.Module):
    """Maps normalised images (B, C, height, width) to logits (B, K), stage by stage."""

    def __init__(self, stages: Mapping[str, nn.Module], head: nn.Module, init: str):
        super().__init__()
        self.stages = nn.Sequential(OrderedDict(stages))
        self.head = head
        if init == "kaiming":  # `torch` leaves the weights as they were made
            self.initialise()

    def forward(self, images: Tensor, trace: Trace = None) -> Tensor:
        """Images (B, C, height, width) to logits (B, K).

        A dictionary given as `trace` is filled with every stage's maps (B, C, R, S) by name:
        `stem`, `stage1` and so on.
        """
        maps = images
        for name, stage in self.stages.named_children():
            maps = stage(maps)  # (B, C, R, S)
            if trace is not None:
                trace[name] = maps
        return self.head(maps)  # (B, K)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw every weight, so that the first loss is about log(K).

        convolutions, hidden linear layers  Kaiming normal over the inputs, bias 0
        last linear layer                   N(0, 0.01), bias 0
        batch norms                         scale 1, shift 0, as they are made
        """
        last = None
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                last = module
        assert last is not None
        nn.init.normal_(last.weight, std=0.01)


class ResNet18(ConvNet):
    """A residual network of eight blocks of two 3x3 convolutions, with a 3x3 stem and no
    max-pooling, so that small images keep their pixels. Shortcuts carry a block's input past it,
    which lets gradients reach the first layer (He et al., 2016).
    """

    def __init__(
        self, cfg: ResNet18Config, image_size: tuple[int, int], channels: int, classes: int
    ):
        w = cfg.width
        stages = {
            "stem": nn.Sequential(conv3x3(channels, w), nn.BatchNorm2d(w), nn.ReLU()),
            "stage1": nn.Sequential(BasicBlock(w, w), BasicBlock(w, w)),
            "stage2": nn.Sequential(BasicBlock(w, 2 * w, stride=2), BasicBlock(2 * w, 2 * w)),
            "stage3": nn.Sequential(BasicBlock(2 * w, 4 * w, stride=2), BasicBlock(4 * w, 4 * w)),
            "stage4": nn.Sequential(BasicBlock(4 * w, 8 * w, stride=2), BasicBlock(8 * w, 8 * w)),
        }
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * w, classes))
        super().__init__(stages, head, cfg.init)

    def resize(self, image_size: tuple[int, int]) -> None:
        """Take images of another (height, width): nothing here depends on it."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them: (B, C, R, S) to the next maps."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, R, S) to maps, halved in size by a stride of 2."""
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        return F.relu(branch + self.downsample(maps))


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias: a batch norm follows it."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class CNN6(ConvNet):
    """Six 3x3 convolutions in three pairs, each pair ended by max-pooling and a batch norm, then
    three linear layers on the flattened maps. The plain kind of network that came before residual
    ones, and most of its weights sit in the first linear layer (Simonyan & Zisserman, 2015).
    """

    def __init__(self, cfg: CNN6Config, image_size: tuple[int, int], channels: int, classes: int):
        w = cfg.width
        stages = {
            "stage1": pair(channels, w, 2 * w),
            "stage2": pair(2 * w, 4 * w, 4 * w),
            "stage3": pair(4 * w, 8 * w, 8 * w),
        }
        flat = 8 * w * (image_size[0] // 8) * (image_size[1] // 8)
        head = nn.Sequential(
            nn.Flatten(),  # (B, flat)
            nn.Linear(flat, 32 * w),
            nn.ReLU(),
            nn.Linear(32 * w, 16 * w),
            nn.ReLU(),
            nn.Linear(16 * w, classes),
        )
        super().__init__(stages, head, cfg.init)
        self.image_size = image_size

    def resize(self, image_size: tuple[int, int]) -> None:
        """Refuse another (height, width): the first linear layer is made for one."""
        if image_size != self.image_size:
            raise ConfigError(
                [
                    f"model.kind='cnn6' is built for {self.image_size} pixels and cannot take "
                    f"train.small_size={image_size}: set train.small_size=none and "
                    "train.small_epochs=0, or use another model"
                ]
            )


def pair(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU, max-pooling that halves the maps, and a batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(middle, outputs, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(outputs),
    )
