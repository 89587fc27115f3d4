"""How the writing graph draws a token: `sampling` and `processors` as nodes.

This module knows logits and a uniform. It does NOT know where they come from.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, numpy_helper

from textgen.engines.onnx.blocks import DOUBLE, INT64, Block


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What stands between the logits and a token: which inputs the writing graph has.

    Attributes:
        greedy: The most probable token is taken; there are no uniforms and no temperature.
        top_k: There is an input `top_k`.
        top_p: There is an input `top_p`, and without `top_k` an input `least_share`.
        min_p: There is an input `log_min_p`.
    """

    greedy: bool = False
    top_k: bool = False
    top_p: bool = False
    min_p: bool = False


def draw_token(block: Block, logits: str, uniform: str, draw: Draw) -> str:
    """Draw as `sampling.pick` does, after the processors in their order.

    Args:
        block: That the nodes are appended to.
        logits: Name of `[batch, vocab_size]`.
        uniform: Name of `[batch, 1]`.
        draw: How.

    Returns:
        Name of the tokens, int64 `[batch]`.
    """
    if draw.greedy:
        return block.op("ArgMax", logits, axis=1, keepdims=0)
    add = block.constants.add
    logits = block.op("Div", logits, "temperature")
    peak = block.op("ReduceMax", logits, add([1]), keepdims=1)
    shifted = block.op("Cast", block.op("Sub", logits, peak), to=DOUBLE)
    weights = block.op("Exp", shifted)
    if draw.top_k or draw.top_p:
        kept = _keep_sorted(block, logits, peak, weights, draw)
        weights = block.op("Where", kept, weights, add(0.0))
    if draw.min_p:
        kept = block.op("GreaterOrEqual", shifted, "log_min_p")
        weights = block.op("Where", kept, weights, add(0.0))
    cumulative, total = _cumulate(block, weights)
    passed = block.op("Greater", cumulative, block.op("Mul", uniform, total))
    passed = block.op("Cast", passed, to=TensorProto.UINT8)
    return block.op("ArgMax", passed, axis=1, keepdims=0)


def _keep_sorted(block: Block, logits: str, peak: str, weights: str, draw: Draw) -> str:
    """Return which tokens top-k and top-p keep; of equals `TopK` puts the lower id first."""
    add = block.constants.add
    total = "" if draw.top_k else block.op("ReduceSum", weights, add([1]), keepdims=1)
    k = "top_k" if draw.top_k else _count_candidates(block, weights, total)
    values, ids = block.constants.names(2)
    # Unsorted it takes 21 µs instead of 73 for 40 of 66 in 64 rows.
    block.op("TopK", logits, k, names=[values, ids], axis=1, sorted=int(draw.top_p))
    if draw.top_p:
        kept = _keep_mass(block, block.op("Sub", values, peak), total)
    else:
        kept = block.op("GreaterOrEqual", ids, add(0))
    false = numpy_helper.from_array(np.array([False]))
    none = block.op("ConstantOfShape", block.op("Shape", logits), value=false)
    return block.op("ScatterElements", none, ids, kept, axis=1)


def _count_candidates(block: Block, weights: str, total: str) -> str:
    """Return how many tokens of a row top-p keeps at most, for sorting all takes far longer.

    All tokens of less than `least_share` = (1 - top_p) / (2 vocab_size) have together less than
    1 - top_p, so before each of them the mass has reached top_p.
    """
    add = block.constants.add
    candidates = block.op("GreaterOrEqual", weights, block.op("Mul", "least_share", total))
    counts = block.op("ReduceSum", block.op("Cast", candidates, to=INT64), add([1]))
    return block.op("ReduceMax", counts, add([0]), keepdims=0)


def _keep_mass(block: Block, shifted: str, total: str) -> str:
    """Return which of the sorted tokens have less than `top_p` of the mass before them.

    `total` is the mass, where it is not that of the sorted tokens alone.
    """
    probs = block.op("Cast", block.op("Exp", shifted), to=DOUBLE)
    mass, sorted_total = _cumulate(block, probs)
    before = block.op("Sub", mass, probs)
    return block.op("Less", before, block.op("Mul", "top_p", total or sorted_total))


def _cumulate(block: Block, values: str) -> tuple[str, str]:
    """Return the sums of a row from its beginning, and the last of them."""
    cumulative = block.op("CumSum", values, block.constants.add(1))
    return cumulative, block.op("Gather", cumulative, block.constants.add([-1]), axis=1)
