"""The weights of a model in the form that its ONNX graphs contain.

The matrices that a layer's state `h` is multiplied with are concatenated, so that a plain model
needs one product per layer and token:

    h @ [U | K] + [c | b]    U, c: the layer's own recurrent kernel and bias
                             K, b: the input kernel and bias of the next layer, or of Dense

The first layer's input product is a row of the table `embedding @ kernel + bias`, or is computed
where the table would be too large. This module does NOT know nodes or sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from textgen.arrays import Float32Array
from textgen.engines.common import fits_table, normalize
from textgen.engines.onnx.cells import input_matrix, part_widths, recurrent_matrix
from textgen.engines.quantization import Matrix
from textgen.errors import RunError
from textgen.models.quantized import QuantizedWeights
from textgen.models.weights import ModelWeights, NormWeights


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphWeights:
    """The arrays of a model's graphs.

    Attributes:
        model: The trained weights.
        embedding: float32 `[vocab_size, embedding_dim]`, normalized if the first layer has a
            norm.
        table: float32 `[vocab_size, width]`, the first layer's input product of each token id;
            None: it is computed for the tokens that are read.
        products: `[U | K]` of each layer, `[hidden_size, columns]`, output gates included.
        biases: `[c | b]` of each layer, float32 `[columns]`.
    """

    model: ModelWeights
    embedding: Float32Array
    table: Float32Array | None
    products: Sequence[Matrix]
    biases: Sequence[Float32Array]

    def widths(self, index: int) -> list[int]:
        """Return the widths of the parts of a layer's products; after the last layer: Dense."""
        if index == self.model.num_layers:
            return [self.model.vocab_size]
        return part_widths(self.model.layers[index])

    def own_columns(self, index: int) -> slice:
        """Return the columns of a layer's product that belong to the layer itself."""
        return slice(0, sum(self.widths(index)))

    def next_columns(self, index: int) -> slice:
        """Return the columns of a layer's product that belong to the next layer, or to Dense."""
        return slice(sum(self.widths(index)), None)

    def next_norm(self, index: int) -> NormWeights | None:
        """Return the norm of the next layer's input; None if there is no norm or no next layer."""
        following = self.model.layers[index + 1 : index + 2]
        return following[0].norm if following else None


def prepare_weights(model: ModelWeights, quantized: QuantizedWeights | None = None) -> GraphWeights:
    """Return a model's arrays in the form that the graphs contain.

    Args:
        model: The weights.
        quantized: The products in 8 or 4 bits; None: float32. The first layer's table is always
            float32: a token reads one row of it.

    Returns:
        The arrays.

    Raises:
        RunError: `quantized` has other shapes than the products of `model`.
    """
    if quantized is not None:
        _require_fitting(model, quantized)
    first, *others = model.layers
    embedding = model.embedding if first.norm is None else normalize(first.norm, model.embedding)
    kernel, bias = input_matrix(first)
    next_biases = [*(input_matrix(layer)[1] for layer in others), model.dense_bias]
    own_biases = [recurrent_matrix(layer)[1] for layer in model.layers]
    return GraphWeights(
        model=model,
        embedding=embedding,
        table=embedding @ kernel + bias if fits_table(embedding, len(bias)) else None,
        products=layer_products(model) if quantized is None else quantized.products,
        biases=[np.concatenate(pair) for pair in zip(own_biases, next_biases, strict=True)],
    )


def layer_products(model: ModelWeights) -> list[Float32Array]:
    """Return `[U | K]` of each layer, float32 `[hidden_size, columns]`."""
    next_kernels = [*(input_matrix(layer)[0] for layer in model.layers[1:]), model.dense_kernel]
    own_kernels = [recurrent_matrix(layer)[0] for layer in model.layers]
    return [np.hstack(pair) for pair in zip(own_kernels, next_kernels, strict=True)]


def _require_fitting(model: ModelWeights, quantized: QuantizedWeights) -> None:
    widths = [*(sum(part_widths(layer)) for layer in model.layers), model.vocab_size]
    expected = [(model.hidden_size, own + following) for own, following in pairwise(widths)]
    received = [matrix.shape for matrix in quantized.products]
    if received != expected:
        raise RunError(
            f"The {quantized.weights_format} weights must have the shapes of the model's products, "
            f"{expected}. Received: {received}. Quantize the weights of this model."
        )
