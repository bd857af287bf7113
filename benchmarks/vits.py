"""The same ViT as its neighbours build it: what a user would pick instead of ours.

Each peer maps images (B, 3, H, W) to logits (B, K). Heads, width, depth, patch and feed-forward
width and the rate of dropout are equal; details that a library fixes (a norm more in the patch
embedding, no bias on queries, where dropout is) stay as it has them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import Config, ViTConfig
from vitlab.export.timm import declare_torchvision_operators

declare_torchvision_operators()  # timm, vit-pytorch and transformers import torchvision


def shape(config: Config) -> tuple[ViTConfig, int, int]:
    """A square ViT's config, image side in pixels and number of classes."""
    model, size, classes = config.model, config.data.image_size, config.data.classes
    assert isinstance(model, ViTConfig) and size is not None and classes is not None
    return model, size[0], classes


def timm(config: Config) -> nn.Module:
    """timm's VisionTransformer."""
    from timm.models.vision_transformer import VisionTransformer  # pyright: ignore[reportMissingImports]

    model, side, classes = shape(config)
    return VisionTransformer(
        img_size=side,
        patch_size=model.patch_size,
        embed_dim=model.width,
        depth=model.depth,
        num_heads=model.heads,
        mlp_ratio=model.ffn_ratio,
        num_classes=classes,
        proj_drop_rate=model.dropout,
    )


def vit_pytorch(config: Config) -> nn.Module:
    """vit-pytorch's ViT."""
    from vit_pytorch.vit import ViT  # pyright: ignore[reportMissingImports]

    model, side, classes = shape(config)
    return ViT(
        image_size=side,
        patch_size=model.patch_size,
        num_classes=classes,
        dim=model.width,
        depth=model.depth,
        heads=model.heads,
        dim_head=model.head_width,
        mlp_dim=round(model.width * model.ffn_ratio),
        dropout=model.dropout,
    )


def transformers(config: Config) -> nn.Module:
    """Hugging Face's ViTForImageClassification."""
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTForImageClassification

    model, side, classes = shape(config)
    theirs = ViTForImageClassification(
        TheirConfig(
            image_size=side,
            patch_size=model.patch_size,
            hidden_size=model.width,
            num_hidden_layers=model.depth,
            num_attention_heads=model.heads,
            intermediate_size=round(model.width * model.ffn_ratio),
            hidden_dropout_prob=model.dropout,
            attention_probs_dropout_prob=0.0,
            num_labels=classes,  # pyright: ignore[reportCallIssue]
        )
    )
    return Logits(theirs)


def torch_encoder(config: Config) -> nn.Module:
    """A ViT around torch.nn.TransformerEncoder."""
    model, _, _ = shape(config)
    layer = nn.TransformerEncoderLayer(
        model.width,
        model.heads,
        round(model.width * model.ffn_ratio),
        dropout=model.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    encoder = nn.TransformerEncoder(layer, model.depth, enable_nested_tensor=False)
    return Around(config, encoder)


def tutorial(config: Config) -> nn.Module:
    """The attention a tutorial writes: a loop over heads, softmax spelt out."""
    model, _, _ = shape(config)
    return Around(config, nn.Sequential(*(LoopBlock(model) for _ in range(model.depth))))


VITS: dict[str, Callable[[Config], nn.Module]] = {
    "timm": timm,
    "vit-pytorch": vit_pytorch,
    "transformers": transformers,
    "nn.TransformerEncoder": torch_encoder,
    "tutorial loop": tutorial,
}
"""How each peer's model is built; ImportError where its package is not installed."""


class Logits(nn.Module):
    """A transformers model that returns its logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        return self.model(images).logits


class Around(nn.Module):
    """Patches, CLS, positions and head around somebody's encoder."""

    def __init__(self, config: Config, encoder: nn.Module):
        super().__init__()
        model, side, classes = shape(config)
        patch = model.patch_size
        self.patches = nn.Conv2d(3, model.width, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, model.width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (side // patch) ** 2, model.width))
        self.encoder = encoder
        self.norm = nn.LayerNorm(model.width)
        self.head = nn.Linear(model.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls.expand(len(images), -1, -1), patches), 1) + self.positions
        return self.head(self.norm(self.encoder(tokens)[:, 0]))


class LoopBlock(nn.Module):
    """A block whose heads are modules of their own, visited one after another."""

    def __init__(self, model: ViTConfig):
        super().__init__()
        self.scale = model.head_width**-0.5
        self.heads = nn.ModuleList(
            nn.Linear(model.width, 3 * model.head_width) for _ in range(model.heads)
        )
        hidden = round(model.width * model.ffn_ratio)
        self.out = nn.Linear(model.width, model.width)
        self.norm1, self.norm2 = nn.LayerNorm(model.width), nn.LayerNorm(model.width)
        self.grow, self.shrink = nn.Linear(model.width, hidden), nn.Linear(hidden, model.width)
        self.drop = nn.Dropout(model.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        normed, answers = self.norm1(tokens), []
        for head in self.heads:
            query, key, value = head(normed).chunk(3, dim=-1)
            attention = (query @ key.mT * self.scale).softmax(-1)
            answers.append(attention @ value)
        tokens = tokens + self.drop(self.out(torch.cat(answers, dim=-1)))
        hidden = self.drop(F.gelu(self.grow(self.norm2(tokens))))
        return tokens + self.drop(self.shrink(hidden))
