"""Types of the NumPy arrays that pass between modules; docstrings state the shapes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
FloatArray = NDArray[np.floating[Any]]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
# Token ids, `[time]` or `[batch, time]`.
TokenIds = NDArray[np.int32]
# Recurrent state `[num_layers, batch, state_size]`: float32, or float64 in the reference engine.
State = NDArray[np.floating[Any]]
