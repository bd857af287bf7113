"""How weights move: parameter groups by rule, Muon, and the learning rate as a function of step."""

# pyright: reportPrivateImportUsage=false
# torch offers its operations on lists of tensors under names with an underscore.

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vitlab.config import OptimConfig


class Muon(torch.optim.Optimizer):
    """Momentum whose update is brought to the nearest semi-orthogonal matrix (Jordan et al., 2024).

    Convolutions are taken as (out, in x rows x columns) matrices, and a fused query-key-value
    matrix as the three it holds. Matrices of equal shape are moved as one batch. The update is
    scaled by sqrt(max(1, rows / columns)), so one learning rate serves every shape.

    The learning rate of a group, `lr`, is a tensor without dimensions, so that a captured step
    sees it change.
    """

    def __init__(self, params: Iterable[Any], momentum: float, weight_decay: float):
        super().__init__(params, {"momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[matrices(parameter, group["fused_qkv"]).shape].append(parameter)
            for parameters in shapes.values():
                self._move(parameters, group)

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        # Nesterov: the running mean of gradients, one gradient further.
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        stack = torch.stack([matrices(update, group["fused_qkv"]) for update in ahead])
        rows, columns = stack.shape[-2:]
        updates = orthogonalize(stack) * (math.sqrt(max(1, rows / columns)) * group["lr"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(
            parameters,
            [update.view_as(p) for update, p in zip(updates, parameters, strict=True)],
        )


def matrices(tensor: Tensor, fused_qkv: bool) -> Tensor:
    """See a weight as a stack of matrices (M, R, C): three for a fused query-key-value weight."""
    flat = tensor.flatten(1)
    return flat.view(3, -1, flat.shape[1]) if fused_qkv else flat[None]


def orthogonalize(stack: Tensor, iterations: int = 5) -> Tensor:
    """Push the singular values of matrices (..., R, C) towards 1 by Newton-Schulz iteration.

    The quintic's coefficients (Jordan et al., 2024) trade exactness for speed: values end
    between about 0.7 and 1.2, which training does not notice. Nor does it notice bf16, in which
    a GPU does this several times faster.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(stack.dtype)


def is_hidden(name: str, module: nn.Module, parameter: Tensor) -> bool:
    """True for the matrices Muon moves: those between the layer that reads pixels and the head."""
    reads_pixels = (
        module.in_channels <= 3
        if isinstance(module, nn.Conv2d)
        else name == "patch_embed.proj.linear.weight"  # of shifted patches without a stage before
    )
    return (
        isinstance(module, nn.Linear | nn.Conv2d)
        and not reads_pixels
        and parameter.ndim >= 2
        and min(parameter.shape[:2]) > 1
        and not name.startswith("head")
    )


def decays(name: str, module: nn.Module, parameter: Tensor) -> bool:
    """True for matrices and convolutions; vectors, tokens and position tables do not decay."""
    return isinstance(module, nn.Linear | nn.Conv2d) and parameter.ndim >= 2


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """How deep each parameter lies: 0 before the blocks, i + 1 in block i, one more after them."""
    path, behind = f"{getattr(model, 'blocks_path', 'blocks')}.", blocks_of(model) + 1
    numbers, here = {}, 0
    for name, _ in model.named_parameters():
        inside = name.startswith(path)
        here = int(name.removeprefix(path).partition(".")[0]) + 1 if inside else here and behind
        numbers[name] = here
    return numbers


def blocks_of(model: nn.Module) -> int:
    """Number of a model's blocks; 0 if it has none."""
    return len(getattr(model, "blocks", ()))


def is_frozen(name: str, prefixes: Iterable[str]) -> bool:
    """True for a parameter, or all below a module, that `optim.freeze` names."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def freeze(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Take out of the training what `optim.freeze` names."""
    for name, parameter in model.named_parameters():
        if is_frozen(name, prefixes):
            parameter.requires_grad_(False)


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """Sort a model's parameters into groups and give each kind its optimiser.

    Every group carries `peak`, the learning rate that the schedule multiplies. With `layer_decay`
    the peak shrinks from the head towards the first layer (Bao et al., 2022).
    """
    numbers, behind = layer_numbers(model), blocks_of(model) + 1
    groups: dict[tuple[str, bool, float], list[Tensor]] = defaultdict(list)
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            name = f"{prefix}.{leaf}" if prefix else leaf
            factor = config.layer_decay ** (behind - numbers[name])
            if config.optimizer == "muon" and is_hidden(name, module, parameter):
                groups["muon", name.endswith("qkv.weight"), factor].append(parameter)
            else:
                decay = config.decay == "all" or decays(name, module, parameter)
                groups["rest", decay, factor].append(parameter)
    rest = [
        {
            "params": parameters,
            "peak": config.lr * factor,
            "weight_decay": config.weight_decay if decay else 0.0,
        }
        for (kind, decay, factor), parameters in groups.items()
        if kind == "rest"
    ]
    hidden = [
        {"params": parameters, "peak": config.muon_lr * factor, "fused_qkv": fused_qkv}
        for (kind, fused_qkv, factor), parameters in groups.items()
        if kind == "muon"
    ]
    device = next(model.parameters()).device
    # Rates are tensors and Adam counts its steps on the device, so that a CUDA graph of the step
    # needs nothing from the host.
    if device.type == "cuda":
        # Warm-ups and the last batch of an epoch are steps outside a graph: no reason to warn.
        warnings.filterwarnings("ignore", message="This instance was constructed with capturable")
    common = {"lr": 0.0, "fused": True}
    adam = {**common, "betas": config.betas, "capturable": device.type == "cuda"}
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "lbfgs":  # fits the head at once, see head.py
        return optimizers
    if rest and config.optimizer == "sgd":
        sgd = torch.optim.SGD(rest, momentum=config.momentum, nesterov=config.nesterov, **common)
        optimizers.append(sgd)
    elif rest:
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        optimizers.append(kind(rest, **adam))
    if hidden:
        optimizers.append(Muon(hidden, momentum=config.momentum, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = torch.zeros((), device=device)
    return optimizers


def lr_schedule(
    config: OptimConfig, step: int, steps_per_epoch: int, steps: int, reductions: int = 0
) -> float:
    """The factor of its peak that every learning rate has at a step.

    Args:
        step: 0-based.
        reductions: how often the plateau rule has struck so far.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    floor = config.final_lr / config.lr
    start = warmup + round(config.hold_epochs * steps_per_epoch)
    progress = max(0, step - start) / max(1, steps - start)
    if config.schedule == "cosine":
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
    if config.schedule == "linear":
        return floor + (1 - floor) * (1 - progress)
    if config.schedule == "steps":
        epoch = step / steps_per_epoch
        pairs = zip(config.step_epochs, config.step_factors, strict=True)
        return next((f for e, f in reversed(list(pairs)) if epoch >= e), 1.0)
    if config.schedule == "plateau":
        return config.plateau_factor**reductions
    return 1.0
