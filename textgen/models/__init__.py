"""The network and its weights: Embedding, recurrent layers, Dense, with explicit state.

`weights` has the weights as NumPy arrays, `quantized` those in 8 and 4 bits, `weights_file` and
`quantized_file` their files; none of these imports TensorFlow. `language_model`, `block` and
`recurrent` are the Keras model, `kernels` and `layout` how it is computed. Nothing here knows
text, corpora or how training works.
"""

from textgen.models.weights import LayerWeights, ModelWeights
from textgen.models.weights_file import load_weights, serialize_weights

__all__ = ["LayerWeights", "ModelWeights", "load_weights", "serialize_weights"]
