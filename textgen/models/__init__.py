"""The network and its weights: Embedding, recurrent layers, Dense, with explicit state.

`weights` holds the weights as NumPy arrays, `weights_file` their file; both import no
TensorFlow. `language_model`, `block` and `recurrent` are the Keras side. Nothing here knows of
text, of corpora or of how training goes.
"""

from textgen.models.weights import LayerWeights, ModelWeights
from textgen.models.weights_file import load_weights, serialize_weights

__all__ = ["LayerWeights", "ModelWeights", "load_weights", "serialize_weights"]
