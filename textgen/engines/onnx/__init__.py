"""The engine on ONNX Runtime: the whole generation loop as one graph."""
