"""The network and its weights: Embedding, GRU layers, Dense, with explicit state.

`weights` holds the weights as NumPy arrays and their file format and imports no
TensorFlow; `language_model` and `gru` are the Keras side. Nothing here knows of
text, of corpora or of how training goes.
"""

from textgen.models.weights import GruWeights, ModelWeights, load_weights, serialize_weights

__all__ = ["GruWeights", "ModelWeights", "load_weights", "serialize_weights"]
