"""The optimizer, against AdamW written with NumPy."""

import keras
import numpy as np
import pytest

from textgen.config import TrainingConfig
from textgen.training.optimizer import AveragingAdamW, make_optimizer

CONFIG = TrainingConfig(learning_rate=0.1, weight_decay=0.05, clip_norm=1.0, ema_decay=0.15)


class NumpyAdamW:
    """AdamW with a clipped global norm and an average of the weights, in float64."""

    def __init__(self, values, config, decayed):
        self.values = {name: value.astype(np.float64) for name, value in values.items()}
        self.config, self.decayed, self.steps = config, decayed, 0
        self.first = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.average = dict(self.values)

    def apply(self, gradients):
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, self.config.clip_norm / norm)
        ema = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        rate = self.config.learning_rate
        for name, gradient in gradients.items():
            value, g = self.values[name], gradient * scale
            if name in self.decayed:
                value = value * (1 - rate * self.config.weight_decay)
            self.first[name] = 0.9 * self.first[name] + 0.1 * g
            self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
            # The order of section 2 of Kingma and Ba 2015: epsilon is added before correction.
            corrected = rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
            step = corrected * self.first[name] / (np.sqrt(self.second[name]) + 1e-7)
            self.values[name] = value - step
            self.average[name] = ema * self.average[name] + (1 - ema) * self.values[name]


def test_steps_are_those_of_adamw_with_clipping_decay_and_average():
    draw = np.random.default_rng(1).normal
    shapes = {
        "kernel": (3, 2),
        "recurrent_kernel": (2, 2),
        "bias": (2,),
        "embeddings": (4, 3),
        "gamma": (3,),
        "beta": (3,),
        "learned_initial_state": (1, 2),
    }
    values = {name: draw(size=shape) for name, shape in shapes.items()}
    variables = [keras.Variable(v, dtype="float32", name=name) for name, v in values.items()]
    oracle = NumpyAdamW(values, CONFIG, decayed={"kernel", "recurrent_kernel"})
    optimizer = make_optimizer(CONFIG, "float32")
    optimizer.build(variables)
    # The norm is about 6 * scale: the gradients of the second and fourth step are not clipped.
    for scale in (1.0, 0.05, 2.0, 0.02, 1.0):
        gradients = {name: scale * draw(size=shape) for name, shape in shapes.items()}
        oracle.apply(gradients)
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients.values()])
    for variable, expected in zip(variables, oracle.values.values(), strict=True):
        # In float32 the first 1 - 0.999**n has a relative error of 6e-5, the step half of it.
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5, err_msg=variable.name)
    optimizer.finalize_variable_values(variables)
    for variable, expected in zip(variables, oracle.average.values(), strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5, err_msg=variable.name)


@pytest.mark.parametrize(
    "steps, decay", [(0, 1 / 10), (1, 2 / 11), (8, 9 / 18), (90, 91 / 100), (10_000, 0.99)]
)
def test_the_decay_of_the_average_rises_to_the_requested_one(steps, decay):
    optimizer = AveragingAdamW(use_ema=True, ema_momentum=0.99)
    optimizer.build([keras.Variable(np.zeros(2))])
    optimizer.iterations.assign(steps)
    assert float(optimizer.ema_momentum) == pytest.approx(decay, rel=1e-6)


@pytest.mark.parametrize("matmul_dtype, scaled", [("float32", False), ("float16", True)])
def test_only_float16_scales_the_loss(matmul_dtype, scaled):
    optimizer = make_optimizer(TrainingConfig(ema_decay=None), matmul_dtype)
    variable = keras.Variable(np.ones(2))
    optimizer.build([variable])
    assert (float(optimizer.scale_loss(1.0)) > 1) == scaled
