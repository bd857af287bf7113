"""How weights move: parameter groups by rule, Muon, and the learning rate as a function of step."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vitlab.config import OptimConfig


class Muon(torch.optim.Optimizer):
    """Momentum whose update is brought to the nearest semi-orthogonal matrix (Jordan et al., 2024).

    Convolutions are taken as (out, in x rows x columns) matrices, and a fused query-key-value
    matrix as the three it holds. Matrices of equal shape are orthogonalised as one batch. The
    update is scaled by sqrt(max(1, rows / columns)), so one rate serves every shape.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[matrices(parameter, group["thirds"]).shape].append(parameter)
            for parameters in shapes.values():
                self._move(parameters, group)

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        ahead = [self._ahead(parameter, group["momentum"]) for parameter in parameters]
        stack = torch.stack([matrices(update, group["thirds"]) for update in ahead])  # (P, M, R, C)
        rows, columns = stack.shape[-2:]
        updates = orthogonalize(stack) * math.sqrt(max(1, rows / columns))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.view_as(parameter), alpha=-group["lr"])

    def _ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum: the running mean of gradients, one gradient further."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def matrices(tensor: Tensor, thirds: bool) -> Tensor:
    """See a weight as a stack of matrices (M, R, C): three for a fused query-key-value weight."""
    flat = tensor.flatten(1)
    return flat.view(3, -1, flat.shape[1]) if thirds else flat[None]


def orthogonalize(stack: Tensor, iterations: int = 5) -> Tensor:
    """Push the singular values of matrices (..., R, C) towards 1 by Newton-Schulz iteration.

    The quintic's coefficients (Jordan et al., 2024) trade exactness for speed: values end
    between about 0.7 and 1.2, which training does not notice.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def is_hidden(name: str, module: nn.Module, parameter: Tensor) -> bool:
    """True for the matrices Muon moves: those between the layer that reads pixels and the head."""
    reads_pixels = isinstance(module, nn.Conv2d) and module.in_channels <= 3
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


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """Sort a model's parameters into groups and give each kind its optimiser.

    Every group carries `peak`, the rate that the schedule multiplies.
    """
    groups: dict[tuple[str, bool], list[Tensor]] = defaultdict(list)
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            name = f"{prefix}.{leaf}"
            if config.optimizer == "muon" and is_hidden(name, module, parameter):
                groups["muon", name.endswith("qkv.weight")].append(parameter)
            else:
                decay = config.decay == "all" or decays(name, module, parameter)
                groups["rest", decay].append(parameter)
    rest = [
        {
            "params": parameters,
            "peak": config.lr,
            "weight_decay": config.weight_decay if decay else 0.0,
        }
        for (kind, decay), parameters in groups.items()
        if kind == "rest"
    ]
    hidden = [
        {"params": parameters, "peak": config.muon_lr, "thirds": thirds}
        for (kind, thirds), parameters in groups.items()
        if kind == "muon"
    ]
    if config.optimizer == "sgd":
        return [
            torch.optim.SGD(rest, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
        ]
    adam = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    optimizers: list[torch.optim.Optimizer] = [adam(rest, lr=config.lr, betas=config.betas)]
    if hidden:
        optimizers.append(
            Muon(
                hidden,
                lr=config.muon_lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
        )
    return optimizers


def rate(
    config: OptimConfig, step: int, steps_per_epoch: int, steps: int, reductions: int = 0
) -> float:
    """The share of its peak that every learning rate has at a step.

    Args:
        step: 0-based.
        reductions: how often the plateau rule has struck so far.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    floor = config.final_lr / config.lr
    progress = (step - warmup) / max(1, steps - warmup)
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
