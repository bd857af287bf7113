"""How the weights of a ViT are drawn before training: the field `init`.

Norms start at scale 1 and shift 0, temperatures at the root of the head width and layer scales at
`layer_scale`, as they are made; CLS, registers and learned positions as N(0, std), except with
`trunc_normal`. The first loss is about log(K).
"""

from collections.abc import Callable

import torch
from torch import nn

from vitlab.models.attention import attentions

TRUNCATED_STD = 0.02
"""Standard deviation of the truncated normal, as in the code of most ViTs."""


@torch.no_grad()
def xavier(model: nn.Module, std: float) -> None:
    """Draw linear layers and the patch projection Xavier uniform, queries, keys and values each as
    a matrix of their own, several convolutions in a row Kaiming normal, heads as N(0, 0.01).
    Biases start at 0. The spread of what a layer returns is then that of what enters
    (Glorot & Bengio, 2010).
    """
    for layer in layers(model):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.xavier_uniform_(layer.weight)
        zero_bias(layer)
    for attention in attentions(model):
        for matrix in attention.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(matrix)
    projection = model.get_submodule("patch_embed.proj")
    if isinstance(projection, nn.Conv2d):  # one convolution is a linear map of each patch
        nn.init.xavier_uniform_(projection.weight.flatten(1))
    for vectors in learned_vectors(model):
        nn.init.normal_(vectors, std=std)
    for name, head in model.named_children():
        if name.startswith("head") and isinstance(head, nn.Linear):
            nn.init.normal_(head.weight, std=0.01)


@torch.no_grad()
def trunc_normal(model: nn.Module, std: float) -> None:
    """Draw linear layers and convolutions, heads included, as N(0, 0.02), and what would lie beyond
    2 again; tokens and positions likewise, as N(0, std). Biases start at 0. All layers start
    small, whatever their width (Touvron et al., 2021).
    """
    for layer in layers(model):
        nn.init.trunc_normal_(layer.weight, std=TRUNCATED_STD)
        zero_bias(layer)
    for vectors in learned_vectors(model):
        nn.init.trunc_normal_(vectors, std=std)


@torch.no_grad()
def torch_default(model: nn.Module, std: float) -> None:
    """Leave layers as PyTorch makes them: uniform within one over the root of their inputs, biases
    too. Attention is that of its MultiheadAttention: queries, keys and values are one Xavier
    uniform matrix, and attention's biases start at 0 (Paszke et al., 2019).
    """
    for vectors in learned_vectors(model):
        nn.init.normal_(vectors, std=std)
    for attention in attentions(model):
        nn.init.xavier_uniform_(attention.qkv.weight)
        zero_bias(attention.qkv)
        zero_bias(attention.proj)


def torch_encoder(model: nn.Module, std: float) -> None:
    """Start as `torch`, with every block a copy of the first. PyTorch's TransformerEncoder makes
    its layers so, of one that it is given (Paszke et al., 2019).
    """
    torch_default(model, std)
    first, *others = model.get_submodule("blocks").children()
    for block in others:
        block.load_state_dict(first.state_dict())


def layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """All linear layers and convolutions, heads included."""
    return [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def learned_vectors(model: nn.Module) -> list[nn.Parameter]:
    """Learned tokens and positions: what belongs to the model and its position, and to no layer."""
    position = model.get_submodule("pos_embed")
    return [*model.parameters(recurse=False), *position.parameters(recurse=False)]


def zero_bias(layer: nn.Linear | nn.Conv2d) -> None:
    """Set the bias of a layer to 0, if it has one."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


INITS: dict[str, Callable[[nn.Module, float], None]] = {
    "xavier": xavier,
    "trunc_normal": trunc_normal,
    "torch": torch_default,
    "torch_encoder": torch_encoder,
}
