"""Multiplications and additions of the matrix products of a compiled program."""

import functools
import math
import re

from spct_jax.planning.hlo_text import Instruction, Shape


def dot_flops(instruction: Instruction, lhs: Shape, rhs: Shape) -> float:
    """Of a product that is written as one."""
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.text)
    inner = math.prod(lhs.dims[int(d)] for d in contracted[1].split(",") if d) if contracted else 1
    return 2.0 * math.prod(instruction.shapes[0].dims) * inner


def convolution_flops(instruction: Instruction, lhs: Shape, rhs: Shape) -> float:
    """Of products with real inputs only: TPUs write batches of matrix products as convolutions over padded, dilated axes."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text)
    out = instruction.shapes[0]
    window = re.search(r"window=\{([^}]*)\}", instruction.text)
    fields = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
    axes = sorted(label for label in labels[2] if label.isdigit())
    sizes = [int(x) for x in fields["size"].split("x")] if "size" in fields else [1] * len(axes)

    def field(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * len(axes)

    pairs = 1
    for i, axis in enumerate(axes):
        stride, dilate, spread = (int(field(n, "1")[i]) for n in ("stride", "lhs_dilate", "rhs_dilate"))
        low = int(field("pad", "0_0")[i].split("_")[0])
        length, count = lhs.dims[labels[1].index(axis)], out.dims[labels[3].index(axis)]
        pairs *= _real_pairs(count, sizes[i], stride, low, dilate, spread, length)
    features = out.dims[labels[3].index("f")] * out.dims[labels[3].index("b")]
    return 2.0 * pairs * features * rhs.dims[labels[2].index("i")]


@functools.lru_cache(maxsize=4096)
def _real_pairs(count: int, size: int, stride: int, low: int, dilate: int, spread: int, length: int) -> int:
    """How many (output, kernel) positions of one axis meet an element of the input, not padding or a hole of the dilation."""
    pairs = 0
    for kernel in range(size):
        first = kernel * spread - low
        # first + stride * o must be a multiple of `dilate` within [0, (length - 1) * dilate].
        if dilate == 1:
            begin, end = max(0, -(first // stride)), (length - 1 - first) // stride
            pairs += max(0, min(count - 1, end) - begin + 1)
        else:
            positions = (first + stride * o for o in range(count))
            pairs += sum(0 <= p <= (length - 1) * dilate and p % dilate == 0 for p in positions)
    return pairs
