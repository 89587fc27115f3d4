"""Lists and stacks of one tensor per time step, for the loops of the fused kernel."""

from collections.abc import Sequence

import tensorflow as tf

# Static sizes; None for those that are unknown when the graph is traced.
Shape = Sequence[int | None]


def step_list(length: tf.Tensor, shape: Shape, dtype: tf.DType) -> tf.TensorArray:
    """Return a list of `length` tensors, each written and read by its step.

    Args:
        length: Scalar int32.
        shape: Shape of each tensor.
        dtype: Dtype of each tensor.

    Returns:
        The list; `.stack()` gives `[length, *shape]`.
    """
    return tf.TensorArray(dtype, size=length, element_shape=shape, clear_after_read=False)


def empty_stack(shape: Shape, dtype: tf.DType) -> tf.Tensor:
    """Return an empty stack, a scalar variant tensor, of tensors of `shape` and `dtype`."""
    return tf.raw_ops.EmptyTensorList(
        element_shape=_static(shape), max_num_elements=-1, element_dtype=dtype
    )


def push(stack: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return `stack` with `value`, of the stack's shape and dtype, on top."""
    return tf.raw_ops.TensorListPushBack(input_handle=stack, tensor=value)


def pop(stack: tf.Tensor, shape: Shape, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the tensor on top, of `shape` and `dtype`, and the stack without it."""
    stack, value = tf.raw_ops.TensorListPopBack(
        input_handle=stack, element_shape=_static(shape), element_dtype=dtype
    )
    return tf.ensure_shape(value, shape), stack


def flat(steps: tf.Tensor) -> tf.Tensor:
    """Return `[time, rows, batch]` as `[rows, time * batch]`."""
    return tf.reshape(tf.transpose(steps, [1, 0, 2]), [steps.shape[1], -1])


def unflat(columns: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """Return `[rows, time * batch]` as `[time, rows, batch]`, the inverse of `flat`."""
    steps = tf.reshape(columns, [columns.shape[0], -1, batch])
    return tf.transpose(steps, [1, 0, 2])


def _static(shape: Shape) -> tf.Tensor:
    """Return `shape` as the list operations take it, with -1 for an unknown size."""
    return tf.constant([-1 if size is None else size for size in shape])
