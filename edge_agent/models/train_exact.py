"""A small convolutional network, trained so that every machine gets the very same weights.

Floating-point sums depend on their order, and BLAS libraries differ in it: ordinary training drifts apart
between machines within a few steps. Here every operand of a matrix product lies on a fixed grid (a multiple
of a power of two) and is bounded, so that every product and partial sum fits into the 53 bits of a double
exactly. An exact sum has no order: any BLAS, vector width or fused multiply-add gives the same bits. What
is left are element-wise sums, products and quotients, which IEEE 754 rounds correctly everywhere. The loss
is the squared hinge (Y. Tang, "Deep Learning using Linear Support Vector Machines", 2013), whose gradient
needs no exponential; random numbers come from `random.Random.random`, whose sequence Python promises to
keep.

Train-time only: imports numpy.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SIDE = 8
CLASSES = 10
KERNEL = 3
EXACT_BITS = 53  # significand of a double

ACTIVATION_BITS = 10  # activations are multiples of 2**-10
WEIGHT_BITS = 12
GRADIENT_BITS = 20
ACTIVATION_LIMIT = 64.0
WEIGHT_LIMIT = 4.0
GRADIENT_LIMIT = 16.0


@dataclass(frozen=True)
class Plan:
    """How the network looks and is trained; all that, with the data, decides the weights."""

    seed: int = 1
    filters: tuple[int, int] = (8, 24)
    epochs: int = 60
    batch: int = 32
    rate: float = 0.01
    momentum: float = 0.875
    decay: float = 2.0**-12
    shift: bool = True


@dataclass(frozen=True)
class Weights:
    """Two convolutions of 3 by 3 (the second with stride 2), one dense layer; all multiples of 2**-12."""

    conv1: Array  # [filters, 1, 3, 3]
    bias1: Array
    conv2: Array  # [filters, filters, 3, 3]
    bias2: Array
    dense: Array  # [10, filters * 16]
    bias3: Array


def on_grid(values: Array, bits: int, limit: float) -> Array:
    """Return `values` rounded to multiples of 2**-bits and clipped to ±limit."""
    return np.asarray(np.clip(np.rint(values * 2.0**bits) * 2.0**-bits, -limit, limit))


def exact_product(left: Array, right: Array, left_bits: int, right_bits: int) -> Array:
    """Return left @ right, of operands on the grids 2**-left_bits and 2**-right_bits, without any rounding.

    Raises:
        ArithmeticError: the operands are too large for their sums to be exact, so the result could depend
        on the
            machine.
    """
    largest = float(np.abs(left).max(initial=0.0)) * float(np.abs(right).max(initial=0.0)) * left.shape[-1]
    if largest * 2.0 ** (left_bits + right_bits) >= 2.0**EXACT_BITS:
        raise ArithmeticError("a sum would not be exact; lower the limits or the number of bits")
    return np.asarray(left @ right)


def patches(images: Array, stride: int) -> Array:
    """Return every neighbourhood of 3 by 3 (zero border) of [n, c, h, w] as [n, h/stride, w/stride, c·9]."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    count, channels, high, wide = windows.shape[:4]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(count, high, wide, channels * KERNEL * KERNEL)


def scatter(gradient: Array, channels: int, side: int, stride: int) -> Array:
    """Return the transpose of `patches`: add every neighbourhood's gradient back onto the image."""
    count, high, wide = gradient.shape[:3]
    parts = gradient.reshape(count, high, wide, channels, KERNEL, KERNEL)
    padded = np.zeros((count, channels, side + 2, side + 2))
    for row in range(KERNEL):
        for column in range(KERNEL):
            part = parts[:, :, :, :, row, column].transpose(0, 3, 1, 2)
            padded[:, :, row : row + side : stride, column : column + side : stride] += part
    return padded[:, :, 1:-1, 1:-1]


@dataclass(frozen=True)
class Pass:
    """What one forward pass computed, kept for the way back and for calibration."""

    patches1: Array
    hidden1: Array  # [n, filters, 8, 8], after ReLU
    patches2: Array
    hidden2: Array  # [n, filters, 4, 4], after ReLU
    flat: Array
    logits: Array


def forward(weights: Weights, images: Array) -> Pass:
    """Return all layers' values for images [n, 1, 8, 8] scaled to 0..1."""
    first = patches(images, 1)
    hidden1 = _convolved(first, weights.conv1, weights.bias1)
    second = patches(hidden1, 2)
    hidden2 = _convolved(second, weights.conv2, weights.bias2)
    flat = hidden2.reshape(len(images), -1)
    logits = exact_product(flat, weights.dense.T, ACTIVATION_BITS, WEIGHT_BITS) + weights.bias3
    return Pass(first, hidden1, second, hidden2, flat, logits)


def _convolved(columns: Array, kernel: Array, bias: Array) -> Array:
    rows = columns.reshape(-1, columns.shape[-1])
    summed = exact_product(rows, kernel.reshape(len(kernel), -1).T, ACTIVATION_BITS, WEIGHT_BITS) + bias
    active = on_grid(np.maximum(summed, 0.0), ACTIVATION_BITS, ACTIVATION_LIMIT)
    return active.reshape(*columns.shape[:3], len(kernel)).transpose(0, 3, 1, 2)


def _gradients(weights: Weights, images: Array, labels: npt.NDArray[np.int64]) -> tuple[Array, ...]:
    """Return the gradient of the mean squared hinge loss for each array of `weights`, in their order."""
    step = forward(weights, images)
    signs = np.where(np.arange(CLASSES) == labels[:, None], 1.0, -1.0)
    slack = np.maximum(0.0, 1.0 - signs * step.logits)
    error = _small(-2.0 * signs * slack)
    dense = _summed(error, step.flat)
    back2 = exact_product(error, weights.dense, GRADIENT_BITS, WEIGHT_BITS).reshape(step.hidden2.shape)
    back2 = _small(back2 * (step.hidden2 > 0.0))
    rows2 = back2.transpose(0, 2, 3, 1).reshape(-1, len(weights.conv2))
    conv2 = _summed(rows2, step.patches2.reshape(len(rows2), -1))
    flat_kernel = weights.conv2.reshape(len(weights.conv2), -1)
    columns = exact_product(rows2, flat_kernel, GRADIENT_BITS, WEIGHT_BITS)
    channels = weights.conv2.shape[1]
    back1 = scatter(columns.reshape(step.patches2.shape), channels, SIDE, 2)
    back1 = _small(back1 * (step.hidden1 > 0.0))
    rows1 = back1.transpose(0, 2, 3, 1).reshape(-1, channels)
    conv1 = _summed(rows1, step.patches1.reshape(len(rows1), -1))
    parts = (
        conv1.reshape(weights.conv1.shape),
        _summed(rows1, np.ones((len(rows1), 1)))[:, 0],
        conv2.reshape(weights.conv2.shape),
        _summed(rows2, np.ones((len(rows2), 1)))[:, 0],
        dense,
        _summed(error, np.ones((len(error), 1)))[:, 0],
    )
    return tuple(part / len(images) for part in parts)


def _small(gradient: Array) -> Array:
    return on_grid(gradient, GRADIENT_BITS, GRADIENT_LIMIT)


def _summed(gradient: Array, values: Array) -> Array:
    return exact_product(gradient.T, values, GRADIENT_BITS, ACTIVATION_BITS)


def _drawn(source: random.Random, shape: tuple[int, ...], fan_in: int) -> Array:
    """Return uniform numbers of the variance 2 / fan_in (He et al., 2015)."""
    bound = math.sqrt(6.0 / fan_in)  # correctly rounded everywhere, which ** is not
    size = int(np.prod(shape))
    return np.array([(2.0 * source.random() - 1.0) * bound for _ in range(size)]).reshape(shape)


def _first_weights(plan: Plan, source: random.Random) -> list[Array]:
    one, two = plan.filters
    flat = two * (SIDE // 2) ** 2
    return [
        _drawn(source, (one, 1, KERNEL, KERNEL), KERNEL * KERNEL),
        np.zeros(one),
        _drawn(source, (two, one, KERNEL, KERNEL), one * KERNEL * KERNEL),
        np.zeros(two),
        _drawn(source, (CLASSES, flat), flat),
        np.zeros(CLASSES),
    ]


def _shifted(images: Array, source: random.Random) -> Array:
    """Return the images, each moved by -1, 0 or 1 pixel sideways and up or down, zeros moving in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = np.empty_like(images)
    for index in range(len(images)):
        # Half of the scans stay where they are: that is how they come when they are served.
        stay = source.random() < 0.5
        row, column = (1, 1) if stay else (int(source.random() * 3), int(source.random() * 3))
        moved[index] = padded[index, :, row : row + SIDE, column : column + SIDE]
    return moved


def train(images: Array, labels: npt.NDArray[np.int64], plan: Plan) -> Weights:
    """Return the weights after `plan.epochs` passes over images [n, 1, 8, 8] scaled to 0..1.

    Raises:
        ArithmeticError: an operand left the range in which sums are exact.
    """
    source = random.Random(plan.seed)  # noqa: S311 - a repeatable sequence is the point
    masters = _first_weights(plan, source)
    speeds = [np.zeros_like(master) for master in masters]
    batches = -(-len(images) // plan.batch)
    total = plan.epochs * batches
    done = 0
    for _ in range(plan.epochs):
        keys = [source.random() for _ in range(len(images))]
        order = sorted(range(len(images)), key=keys.__getitem__)
        for start in range(0, len(order), plan.batch):
            picked = order[start : start + plan.batch]
            batch = _shifted(images[picked], source) if plan.shift else images[picked]
            rate = plan.rate * (1.0 - done / total)
            gradients = _gradients(_on_weight_grid(masters), batch, labels[picked])
            for index, gradient in enumerate(gradients):
                pull = gradient + plan.decay * masters[index]
                speeds[index] = plan.momentum * speeds[index] + pull
                masters[index] = masters[index] - rate * speeds[index]
            done += 1
    return _on_weight_grid(masters)


def _on_weight_grid(masters: list[Array]) -> Weights:
    return Weights(*(on_grid(master, WEIGHT_BITS, WEIGHT_LIMIT) for master in masters))
