"""What a model costs: parameters and multiply-adds, per component and per layer.

The convention: a multiply-add (MAC) is one multiplication and one addition of a matrix product
or a convolution, attention's two products QK^T and AV included; FLOPs are twice the MACs. Norms,
activations, biases, softmax, sums and poolings are not counted. Figures hold for one image of
`data.image_size`, forward; a training step costs about three times as much.

All is found on the meta device, where tensors have shapes and no numbers.
"""

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vitlab.config import Config
from vitlab.models import build_model
from vitlab.models.attention import Attention
from vitlab.models.convnet import BasicBlock
from vitlab.models.patch import Patch, Whitening
from vitlab.models.stage import ConvStage
from vitlab.models.vit import Block


@dataclass(frozen=True)
class Row:
    """One layer of the summary table; shapes are without the batch, megabytes those of fp32."""

    name: str
    type: str
    parameters: int
    input: tuple[int, ...]
    output: tuple[int, ...]
    megabytes: float
    macs: int


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-adds per image, altogether and as component -> (parameters, macs)."""

    parameters: int
    macs: int
    components: dict[str, tuple[int, int]]


@lru_cache
def cost(config: Config) -> Cost:
    """Count a model's parameters and multiply-adds without giving it any memory."""
    rows = summary(config)
    parameters, macs = Counter(), Counter()
    for row in rows:
        parameters[component(row.name)] += row.parameters
        macs[component(row.name)] += row.macs
    components = {name: (parameters[name], macs[name]) for name in parameters}
    return Cost(parameters.total(), macs.total(), components)


def training_macs(config: Config, epochs: float, images: int) -> float:
    """Multiply-adds of so many epochs of a training; backward takes twice as many as forward.

    Small images are counted at their size, and each pass of SAM. A teacher is not counted.
    """
    train, size = config.train, config.data.image_size
    small = min(epochs, train.small_epochs)
    total = 0.0
    for pixels, part in ((train.small_size, small), (size, epochs - small)):
        if pixels is not None and part:
            total += part * cost(replace(config, data=replace(config.data, image_size=pixels))).macs
    return (6 if config.optim.sam else 3) * images * total


def activation_bytes(
    model: nn.Module, shape: Sequence[int], *, gradients: bool = False, traced: bool = False
) -> int:
    """Peak bytes of the numbers inside a model, in fp32, without the weights.

    It is a lower bound: what kernels and allocators need for themselves is not known here.

    Args:
        model: on any device; it is left as it is.
        shape: of the images, (B, C, height, width).
        gradients: all is kept that they need. The backward pass hardly adds to that.
        traced: the forward pass fills a trace, with attention weights written out.
    """
    weights = [*model.parameters(), *model.buffers()]
    model = copy.deepcopy(model, {id(each): _to_meta(each) for each in weights})
    images = torch.empty(tuple(shape), device="meta")
    memory = _PeakMemory([*model.parameters(), *model.buffers(), images])
    with torch.set_grad_enabled(gradients), _FusedAttention(), memory:
        model(images, *([{}] if traced else []))
    return memory.peak


def _to_meta(weight: Tensor) -> Tensor:
    empty = torch.empty_like(weight, device="meta")
    parameter = isinstance(weight, nn.Parameter)
    return nn.Parameter(empty, weight.requires_grad) if parameter else empty


class _FusedAttention(TorchFunctionMode):
    """Lets one kernel compute attention on the meta device too, which else writes the scores."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args[:3])[0]
        return function(*args, **(kwargs or {}))


class _PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that live at once, without those that were there before."""

    def __init__(self, before: Sequence[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self.alive = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if (key := storage._cdata) in self.alive:  # a view, or what was changed in place
            return
        self.alive.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def summary(config: Config) -> list[Row]:
    """Return a row for every layer with parameters, in the order of the model's names.

    A ViT has one row for the patch embedding and one for each attention, feed-forward network
    and norm, a hybrid more for the layers of its stage; a convolutional network has one for each
    convolution, norm and linear layer; a backbone one for each of its blocks.
    """
    with torch.device("meta"):
        model = build_model(config).eval()
        assert config.data.image_size and config.data.channels
        images = torch.zeros(1, config.data.channels, *config.data.image_size)

    found = dict(layers(model))
    shapes: dict[str, tuple[Tensor, Tensor]] = {}
    macs = Counter()

    def record(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        macs[name] += multiply_adds(module, output)
        if module is found[name]:
            shapes[name] = inputs[0] if inputs else torch.empty(1), output

    for name, layer in found.items():
        for module in layer.modules() if isinstance(layer, nn.Module) else ():
            module.register_forward_hook(partial(record, name))
    model(images)

    rows = []
    for name, layer in found.items():
        weights = list(layer.parameters()) if isinstance(layer, nn.Module) else [layer]
        if weights:
            # Tokens and positions are not called: nothing goes in, and a table comes out.
            entered, left = shapes.get(name, (torch.empty(1), weights[0]))
            parameters = sum(weight.numel() for weight in weights)
            rows.append(
                Row(
                    name=name,
                    type=type(layer).__name__,
                    parameters=parameters,
                    input=tuple(entered.shape[1:]),
                    output=tuple(left.shape[1:]),
                    megabytes=4 * parameters / 1e6,
                    macs=macs[name],
                )
            )
    return rows


def layers(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Yield what gets a row: learned tokens, and modules that are not mere containers."""
    for name, parameter in module.named_parameters(recurse=False):
        yield path + name, parameter
    containers = nn.Sequential | nn.ModuleList | Block | BasicBlock
    for name, child in module.named_children():
        if isinstance(child, containers) or has_stage(child) or is_chain(child, path + name):
            yield from layers(child, f"{path}{name}.")
        else:
            yield path + name, child


def has_stage(module: nn.Module) -> bool:
    """True for the patch embedding of a hybrid."""
    return isinstance(module, Patch) and any(isinstance(m, ConvStage) for m in module.modules())


def is_chain(module: nn.Module, path: str) -> bool:
    """True for a part of a backbone that holds a list of blocks."""
    return path.startswith("body") and any(isinstance(m, nn.ModuleList) for m in module.modules())


def multiply_adds(module: nn.Module, output: Tensor) -> int:
    """The multiply-adds of a module's own products, those of its children not included."""
    match module:
        case nn.Linear():
            return output.numel() * module.in_features
        case nn.Conv2d() | Whitening():
            return output.numel() * module.weight[0].numel()
        case Attention():
            # QK^T and AV: every number of the output is met by T keys, and by T values.
            return 2 * output.numel() * output.shape[1]
    return 0


def component(name: str) -> str:
    """The component that a layer belongs to: `blocks.3.norm1` -> `norms`."""
    path = name.split(".")
    if path[0] == "body":
        return "body"
    if "stage" in path:
        return "stage"
    part = path[{"blocks": 2, "stages": 1}.get(path[0], 0)]
    if part in ("norm", "norm1", "norm2"):
        return "norms"
    if part.endswith("_token"):
        return "tokens"
    return {"ls1": "layer_scale", "ls2": "layer_scale", "head_dist": "head"}.get(part, part)
