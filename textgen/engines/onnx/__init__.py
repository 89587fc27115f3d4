"""The engine on ONNX Runtime: the whole generation loop as one graph.

Importing this package does NOT import onnxruntime.
"""

# Settings that the loop applies; the order is that of `textgen.sampling.pipeline`.
LOOP_SETTINGS = frozenset({"temperature", "top_k", "top_p", "min_p"})
