"""Lists of tensors, one a time step, that the loops of the fused kernel write and read."""

import tensorflow as tf


def step_list(length, shape, dtype) -> tf.TensorArray:
    """Return a list of `length` tensors of one shape, written and read by their step."""
    return tf.TensorArray(dtype, size=length, element_shape=shape, clear_after_read=False)


def empty_stack(shape, dtype) -> tf.Tensor:
    """Return a stack for tensors of one shape and dtype."""
    return tf.raw_ops.EmptyTensorList(
        element_shape=_static(shape), max_num_elements=-1, element_dtype=dtype
    )


def push(stack, value) -> tf.Tensor:
    """Return the stack with `value` on top."""
    return tf.raw_ops.TensorListPushBack(input_handle=stack, tensor=value)


def pop(stack, shape, dtype) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the tensor on top, and the stack without it."""
    stack, value = tf.raw_ops.TensorListPopBack(
        input_handle=stack, element_shape=_static(shape), element_dtype=dtype
    )
    return tf.ensure_shape(value, shape), stack


def flat(steps) -> tf.Tensor:
    """Return `[time, rows, batch]` as `[rows, time * batch]`."""
    return tf.reshape(tf.transpose(steps, [1, 0, 2]), [steps.shape[1], -1])


def unflat(rows, batch) -> tf.Tensor:
    """Return `[rows, time * batch]` as `[time, rows, batch]`, the inverse of `flat`."""
    steps = tf.reshape(rows, [rows.shape[0], -1, batch])
    return tf.transpose(steps, [1, 0, 2])


def _static(shape):
    """Return a shape as the list ops want it, -1 for what is unknown when traced."""
    return tf.constant([-1 if size is None else size for size in shape])
