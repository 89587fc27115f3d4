"""The operations of traced graphs, and a simulated GPU."""

import sys

CUDNN_OPS = {"CudnnRNNV3", "CudnnRNNBackpropV3"}


def simulate_gpu(monkeypatch):
    """Make Keras trace a graph as it would on a machine with a GPU."""
    keras_rnn = sys.modules["keras.src.backend.tensorflow.rnn"]
    monkeypatch.setattr(keras_rnn, "_is_gpu_available", lambda: True)


def nodes(graph):
    """All nodes of a graph and of the functions in it."""
    graph = graph.as_graph_def()
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def graph_ops(graph):
    """Types of the operations in a graph and in the functions in it."""
    return {node.op for node in nodes(graph)}


def traced_ops(function):
    """Types of the operations in the graph of a `tf.function` without arguments."""
    return graph_ops(function.get_concrete_function().graph)
