"""Lists and stacks of steps: order, shapes, and sizes that are unknown when traced."""

import numpy as np
import pytest
import tensorflow as tf

from textgen.models.recurrence.step_lists import empty_stack, flat, pop, push, step_list, unflat


def test_a_stack_pops_the_last_tensor_first_and_is_not_changed_by_it():
    empty = empty_stack([2], tf.float32)
    one = push(empty, tf.constant([1.0, 2.0]))
    two = push(one, tf.constant([3.0, 4.0]))
    top, rest = pop(two, [2], tf.float32)
    np.testing.assert_array_equal(top, [3.0, 4.0])
    bottom, rest = pop(rest, [2], tf.float32)
    np.testing.assert_array_equal(bottom, [1.0, 2.0])
    with pytest.raises(tf.errors.InvalidArgumentError):
        pop(rest, [2], tf.float32)
    np.testing.assert_array_equal(pop(two, [2], tf.float32)[0], [3.0, 4.0])


def test_a_popped_tensor_has_the_static_sizes_that_are_known():
    @tf.function(input_signature=[tf.TensorSpec([3, None])])
    def traced(value):
        top, _ = pop(push(empty_stack([3, None], tf.float32), value), [3, None], tf.float32)
        assert top.shape.as_list() == [3, None]
        return top

    for batch in (1, 4):
        np.testing.assert_array_equal(traced(tf.ones([3, batch])), np.ones([3, batch]))


def test_a_list_is_stacked_in_the_order_of_its_steps_and_can_be_read_twice():
    steps = step_list(3, [2], tf.float32)
    for step in (2, 0, 1):
        steps = steps.write(step, tf.fill([2], float(step)))
    np.testing.assert_array_equal(steps.read(1), steps.read(1))
    np.testing.assert_array_equal(steps.stack(), [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])


def test_flat_concatenates_the_steps_of_each_row_and_unflat_is_its_inverse():
    steps = tf.constant([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]])  # 2 steps
    columns = flat(steps)
    np.testing.assert_array_equal(columns, [[1, 2, 7, 8], [3, 4, 9, 10], [5, 6, 11, 12]])
    np.testing.assert_array_equal(unflat(columns, 2), steps)
