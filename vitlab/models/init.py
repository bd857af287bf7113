"""How the weights of a ViT are drawn before training: the field `init`.

Norms start at scale 1 and shift 0, temperatures at the root of the head width and layer scales at
`layer_scale`, as they are made; CLS, registers and learned positions as N(0, init_std), except
with `trunc_normal`. The first loss is about log(K).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vitlab.config import ViTConfig
from vitlab.models.attention import Attention
from vitlab.models.position import Learned

if TYPE_CHECKING:
    from vitlab.models.vit import ViT

TRUNCATED_STD = 0.02
"""Standard deviation of the truncated normal, as in the code of most ViTs."""


@torch.no_grad()
def initialise(model: "ViT", cfg: ViTConfig) -> None:
    """Draw every weight of a ViT anew."""
    INITS[cfg.init](model, cfg)


def draw_learned(model: "ViT", cfg: ViTConfig) -> None:
    """Draw CLS, registers and learned positions."""
    for vectors in learned(model):
        nn.init.normal_(vectors, std=cfg.init_std)


def learned(model: "ViT") -> list[Tensor]:
    """CLS, the distillation token, registers and learned positions, as far as there are any."""
    position = model.pos_embed
    table = position.weight if isinstance(position, Learned) else None
    tokens = (model.cls_token, model.dist_token, model.reg_token, table)
    return [each for each in tokens if isinstance(each, Tensor)]


def xavier(model: "ViT", cfg: ViTConfig) -> None:
    """Draw linear layers and the patch projection Xavier uniform, queries, keys and values each as
    a matrix of their own, several convolutions in a row Kaiming normal, heads as N(0, 0.01).
    Biases start at 0. The spread of what a layer returns is then that of what enters
    (Glorot & Bengio, 2010).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for attention in attentions(model):
        for matrix in attention.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(matrix)
    projection = model.patch_embed.proj
    if isinstance(projection, nn.Conv2d):
        nn.init.xavier_uniform_(projection.weight.flatten(1))
    draw_learned(model, cfg)
    for head in (model.head, model.head_dist):
        if isinstance(head, nn.Linear):
            nn.init.normal_(head.weight, std=0.01)


def trunc_normal(model: "ViT", cfg: ViTConfig) -> None:
    """Draw linear layers and convolutions, heads included, as N(0, 0.02), and what would lie beyond
    2 again; tokens and positions likewise, as N(0, init_std). Biases start at 0. All layers start
    small, whatever their width (Touvron et al., 2021).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=TRUNCATED_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for vectors in learned(model):
        nn.init.trunc_normal_(vectors, std=cfg.init_std)


def torch_default(model: "ViT", cfg: ViTConfig) -> None:
    """Leave layers as PyTorch makes them: uniform within one over the root of their inputs, biases
    too. Attention is that of its MultiheadAttention: queries, keys and values are one Xavier
    uniform matrix, and attention's biases start at 0 (Paszke et al., 2019).
    """
    draw_learned(model, cfg)
    for attention in attentions(model):
        nn.init.xavier_uniform_(attention.qkv.weight)
        for layer in (attention.qkv, attention.proj):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def torch_encoder(model: "ViT", cfg: ViTConfig) -> None:
    """Start as `torch`, with every block a copy of the first. PyTorch's TransformerEncoder makes
    its layers so, of one that it is given (Paszke et al., 2019).
    """
    torch_default(model, cfg)
    first, *others = model.blocks
    for block in others:
        block.load_state_dict(first.state_dict())


def attentions(model: "ViT") -> list[Attention]:
    """The attention of every block."""
    return [module for module in model.modules() if isinstance(module, Attention)]


INITS: dict[str, Callable[["ViT", ViTConfig], None]] = {
    "xavier": xavier,
    "trunc_normal": trunc_normal,
    "torch": torch_default,
    "torch_encoder": torch_encoder,
}
