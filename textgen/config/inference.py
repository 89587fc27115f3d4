"""Choices of engine and weights format, and limits on the arguments of one call."""

from typing import Annotated, Literal

from textgen.config.limits import Limits

EngineName = Literal["auto", "numpy", "onnx", "reference", "tensorflow"]
QuantizedFormat = Literal["int8", "int4"]
WeightsFormat = Literal["float32", QuantizedFormat]

# Texts generated from one prompt in one call.
NumSamples = Annotated[int, Limits(minimum=1, maximum=100_000)]
# Alternatives reported for each token.
NumAlternatives = Annotated[int, Limits(minimum=0, maximum=1_000)]
NumBeams = Annotated[int, Limits(minimum=1, maximum=512)]
LengthPenalty = Annotated[float, Limits(minimum=0)]
