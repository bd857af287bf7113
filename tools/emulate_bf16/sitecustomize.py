"""bf16 as hardware computes it, on a CPU that has none: for accuracy, not for speed.

`PYTHONPATH=tools/emulate_bf16 vitlab study cpu-precision` lets every Python process that starts
round the operands of matrix products and convolutions to bf16, multiply and sum them in fp32, and
round what comes out: the arithmetic of avx512_bf16, AMX and a GPU's tensor cores, but for the
order of the sum. torch's own bf16 products on such a CPU do the same many times as slowly.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

aten = torch.ops.aten
PRODUCTS = (
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.convolution.default,
    aten.convolution_backward.default,
    # Inference mode hands these over whole.
    aten.linear.default,
    aten.matmul.default,
    aten.conv2d.default,
)


class EmulatedBf16(TorchDispatchMode):
    """Computes products of bf16 tensors in fp32, forward and backward."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if op not in PRODUCTS or args[0].dtype != torch.bfloat16:
            return op(*args, **kwargs)
        found = op(*tree_map(_to(torch.float32), args), **kwargs)
        return tree_map(_to(torch.bfloat16), found)


def _to(dtype: torch.dtype):
    return lambda each: each.to(dtype) if isinstance(each, Tensor) else each


EmulatedBf16().__enter__()
