"""On a real GPU: cuDNN against the reference kernel, and the kernel's name in the profile."""

import numpy as np
import pytest
import tensorflow as tf

from textgen.models.recurrent import RecurrentLayer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not tf.config.list_physical_devices("GPU"), reason="no GPU is visible to TensorFlow"
    ),
]


def _outputs_and_gradients(layer, inputs, state):
    variables = layer.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch([inputs, state])
        outputs, last = layer(inputs, state)
        loss = tf.reduce_sum(outputs * tf.sin(outputs + 1.0)) + tf.reduce_sum(last**2)
    return [outputs, last, *tape.gradient(loss, [inputs, state, *variables])]


@pytest.mark.parametrize("cell, parts", [("gru", 1), ("lstm", 2), ("rnn", 1)])
@pytest.mark.parametrize("time", [1, 50])
@pytest.mark.parametrize("matmul_dtype, limit", [("float32", 1e-3), ("float16", 2e-2)])
def test_cudnn_equals_the_reference_in_outputs_state_and_gradients(
    cell, parts, time, matmul_dtype, limit
):
    rng = np.random.default_rng(time)
    inputs = tf.constant(rng.normal(size=(4, time, 32)), tf.float32)
    state = tf.constant(rng.normal(size=(4, 64 * parts)), tf.float32)
    cudnn = RecurrentLayer(64, cell=cell, kernel="cudnn", matmul_dtype=matmul_dtype, seed=1)
    reference = RecurrentLayer(64, cell=cell, kernel="reference", seed=1)
    for layer in (cudnn, reference):
        layer.build((4, time, 32))
    reference.set_arrays(**cudnn.arrays())
    got = _outputs_and_gradients(cudnn, inputs, state)
    want = _outputs_and_gradients(reference, inputs, state)
    for value, truth in zip(got, want, strict=True):
        error = np.float64(value) - np.float64(truth)
        assert np.linalg.norm(error) < limit * np.linalg.norm(np.float64(truth))


@pytest.mark.parametrize("cell, parts", [("gru", 1), ("lstm", 2)])
def test_the_profile_names_a_cudnn_kernel(tmp_path, cell, parts):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    layer = RecurrentLayer(64, cell=cell, kernel="cudnn", seed=1)
    layer.build((4, 20, 32))
    run = tf.function(lambda: layer(tf.ones([4, 20, 32]), tf.zeros([4, 64 * parts])))
    run()
    with tf.profiler.experimental.Profile(str(tmp_path)):
        run()[1].numpy()
    (path,) = tmp_path.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    names = {m.name for plane in space.planes for m in plane.event_metadata.values()}
    assert any("CudnnRNN" in name for name in names)
    events = (
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        for event in line.events
    )
    assert any("RNN" in name or cell.upper() in name for name in events)
