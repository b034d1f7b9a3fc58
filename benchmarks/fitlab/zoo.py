"""Graphs with the architecture of models that people run on small machines, and random weights.

What a graph costs depends on its operators and shapes and not on the values of its weights, so that these
stand for the trained ones: widths, depths and resolutions are those of the published architectures.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from .builder import Builder


def mobilenet_v2(side: int = 224, width: float = 1.0) -> onnx.ModelProto:
    """MobileNetV2 (Sandler et al., 2018): inverted residuals with depthwise convolutions."""
    b = Builder("mobilenet_v2")
    x = b.conv(b.input("image", (1, 3, side, side)), int(32 * width), 3, 2, act="relu6")
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, out, repeat, first in plan:
        channels = max(8, int(out * width) // 8 * 8)
        for index in range(repeat):
            x = _inverted(b, x, expand, channels, first if index == 0 else 1, "relu6")
    x = b.conv(x, 1280, 1, act="relu6")
    return b.model(b.gemm(b.flatten(b.mean(x)), 1000))


def _inverted(  # noqa: PLR0913, PLR0917 - what a block is made of
    b: Builder, x: str, expand: int, out: int, stride: int, act: str, *, squeeze: bool = False
) -> str:
    channels = b.shape[x][1]
    y = b.conv(x, channels * expand, 1, act=act) if expand > 1 else x
    wide = b.shape[y][1]
    y = b.conv(y, wide, 3, stride, groups=wide, act=act)
    if squeeze:
        gate = b.conv(b.conv(b.mean(y), max(8, channels // 4), 1, act="silu"), wide, 1)
        y = b.node("Mul", [y, b.node("Sigmoid", [gate], b.shape[gate])], b.shape[y])
    y = b.conv(y, out, 1)
    return b.add(x, y) if stride == 1 and channels == out else y


def efficientnet(side: int = 224) -> onnx.ModelProto:
    """EfficientNet-B0 (Tan and Le, 2019): inverted residuals with squeeze and excitation."""
    b = Builder("efficientnet_b0")
    x = b.conv(b.input("image", (1, 3, side, side)), 32, 3, 2, act="silu")
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 40, 2, 2), (6, 80, 3, 2), (6, 112, 3, 1), (6, 192, 4, 2), (6, 320, 1, 1)]
    for expand, out, repeat, first in plan:
        for index in range(repeat):
            x = _inverted(b, x, expand, out, first if index == 0 else 1, "silu", squeeze=True)
    return b.model(b.gemm(b.flatten(b.mean(b.conv(x, 1280, 1, act="silu"))), 1000))


def resnet(blocks: tuple[int, ...], *, bottleneck: bool, side: int = 224, batchnorm: bool = False) -> onnx.ModelProto:
    """ResNet (He et al., 2015)."""
    b = Builder("resnet")

    def unit(x: str, out: int, kernel: int, stride: int = 1, act: str = "relu") -> str:
        y = b.conv(x, out, kernel, stride, bias=not batchnorm)
        return b.act(b.batchnorm(y) if batchnorm else y, act)

    x = b.pool("Max", unit(b.input("image", (1, 3, side, side)), 64, 7, 2), 3, 2)
    for stage, repeat in enumerate(blocks):
        base = 64 * 2**stage
        out = base * 4 if bottleneck else base
        for index in range(repeat):
            stride = 2 if stage and not index else 1
            if bottleneck:
                y = unit(unit(unit(x, base, 1), base, 3, stride), out, 1, act="")
            else:
                y = unit(unit(x, base, 3, stride), base, 3, act="")
            side_way = x if b.shape[x] == b.shape[y] else unit(x, out, 1, stride, act="")
            x = b.act(b.add(y, side_way), "relu")
    return b.model(b.gemm(b.flatten(b.mean(x)), 1000))


def vgg(side: int = 96) -> onnx.ModelProto:
    """VGG-11 (Simonyan and Zisserman, 2014) on small images: almost all weights in dense layers."""
    b = Builder("vgg")
    x = b.input("image", (1, 3, side, side))
    for out in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0):
        x = b.conv(x, out, 3, act="relu") if out else b.pool("Max", x, 2, 2)
    return b.model(b.gemm(b.gemm(b.gemm(b.flatten(x), 1024, "relu"), 1024, "relu"), 100))


def densenet(side: int = 160) -> onnx.ModelProto:
    """A DenseNet (Huang et al., 2016): every layer sees all earlier ones."""
    b = Builder("densenet")
    x = b.pool("Max", b.conv(b.input("image", (1, 3, side, side)), 64, 7, 2, act="relu"), 3, 2)
    for stage, repeat in enumerate((6, 12, 16)):
        for _ in range(repeat):
            y = b.conv(b.conv(b.act(b.batchnorm(x), "relu"), 128, 1, act="relu"), 32, 3)
            x = b.concat([x, y])
        if stage < 2:
            x = b.pool("Average", b.conv(b.act(b.batchnorm(x), "relu"), b.shape[x][1] // 2, 1), 2, 2)
    return b.model(b.gemm(b.flatten(b.mean(x)), 1000))


def yolo(side: int = 416, width: int = 16) -> onnx.ModelProto:
    """A detector with the backbone, neck and three heads of YOLOv5/v8 (cross-stage blocks, SiLU, upsampling)."""
    b = Builder("yolo")

    def csp(x: str, out: int, repeat: int, *, shortcut: bool = True) -> str:
        left, right = b.conv(x, out // 2, 1, act="silu"), b.conv(x, out // 2, 1, act="silu")
        for _ in range(repeat):
            y = b.conv(b.conv(left, out // 2, 1, act="silu"), out // 2, 3, act="silu")
            left = b.add(left, y) if shortcut else y
        return b.conv(b.concat([left, right]), out, 1, act="silu")

    def up(x: str) -> str:
        n, channels, height, wide = b.shape[x]
        scales = b.constant(np.array([1, 1, 2, 2], np.float32))
        return b.node("Resize", [x, "", scales], (n, channels, height * 2, wide * 2), mode="nearest",
                      coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip

    x = b.conv(b.input("image", (1, 3, side, side)), width, 3, 2, act="silu")
    levels = []
    for stage, repeat in enumerate((1, 2, 3, 1)):
        x = csp(b.conv(x, width * 2 ** (stage + 1), 3, 2, act="silu"), width * 2 ** (stage + 1), repeat)
        levels.append(x)
    pooled = [b.conv(levels[3], width * 8, 1, act="silu")]
    for _ in range(3):
        pooled.append(b.pool("Max", pooled[-1], 5, 1))
    deep = b.conv(b.conv(b.concat(pooled), width * 16, 1, act="silu"), width * 8, 1, act="silu")
    middle = csp(b.concat([up(deep), levels[2]]), width * 8, 1, shortcut=False)
    middle = b.conv(middle, width * 4, 1, act="silu")
    fine = csp(b.concat([up(middle), levels[1]]), width * 4, 1, shortcut=False)
    wide = csp(b.concat([b.conv(fine, width * 4, 3, 2, act="silu"), middle]), width * 8, 1, shortcut=False)
    coarse = csp(b.concat([b.conv(wide, width * 8, 3, 2, act="silu"), deep]), width * 16, 1, shortcut=False)
    heads = []
    for level in (fine, wide, coarse):
        raw = b.conv(level, 255, 1)
        n, channels, height, across = b.shape[raw]
        flat = b.transpose(b.reshape(raw, (n, channels, height * across)), (0, 2, 1))
        heads.append(b.node("Sigmoid", [flat], b.shape[flat]))
    return b.model(b.concat(heads))


def unet(side: int = 128, width: int = 32) -> onnx.ModelProto:
    """A U-Net (Ronneberger et al., 2015): wide tensors that live long, and transposed convolutions."""
    b = Builder("unet")
    x = b.input("image", (1, 3, side, side))
    kept = []
    for stage in range(4):
        x = b.conv(b.conv(x, width * 2**stage, 3, act="relu"), width * 2**stage, 3, act="relu")
        if stage < 3:
            kept.append(x)
            x = b.pool("Max", x, 2, 2)
    for stage in reversed(range(3)):
        n, channels, height, across = b.shape[x]
        out = width * 2**stage
        x = b.node("ConvTranspose", [x, b.weight(channels, out, 2, 2)], (n, out, height * 2, across * 2),
                   kernel_shape=[2, 2], strides=[2, 2])  # fmt: skip
        x = b.conv(b.conv(b.concat([x, kept[stage]]), out, 3, act="relu"), out, 3, act="relu")
    return b.model(b.conv(x, 4, 1))


def bert(layers: int, width: int, heads: int, words: int, length: int = 128) -> onnx.ModelProto:
    """BERT (Devlin et al., 2018): a table of words, then layers of attention, in the steps that exporters write."""
    b = Builder("bert")
    ids = b.input("input_ids", (1, length), TensorProto.INT64)
    mask = b.input("attention_mask", (1, length), TensorProto.INT64)
    words_table, places = b.weight(words, width, gain=20.0), b.weight(1, length, width)
    x = b.node("Gather", [words_table, ids], (1, length, width))
    x = b.layernorm(b.node("Add", [x, places], b.shape[x]))
    for _ in range(layers):
        x = b.layernorm(b.add(x, b.attention(x, heads)))
        x = b.layernorm(b.add(x, b.dense(b.dense(x, 4 * width, "gelu"), width)))
    share = b.node("Cast", [mask], (1, length), to=TensorProto.FLOAT)
    share = b.node("Unsqueeze", [share, b.constant(np.array([2], np.int64))], (1, length, 1))
    summed = b.node("ReduceSum", [b.node("Mul", [x, share], b.shape[x]), b.constant(np.array([1], np.int64))],
                    (1, width), keepdims=0)  # fmt: skip
    return b.model(summed)


def vit(layers: int = 6, width: int = 192, heads: int = 3, side: int = 224) -> onnx.ModelProto:
    """A vision transformer (Dosovitskiy et al., 2020) with LayerNormalization as one operator."""
    b = Builder("vit")
    x = b.input("image", (1, 3, side, side))
    steps = side // 16
    x = b.node("Conv", [x, b.weight(width, 3, 16, 16)], (1, width, steps, steps), kernel_shape=[16, 16],
               strides=[16, 16])  # fmt: skip
    x = b.transpose(b.reshape(x, (1, width, steps * steps)), (0, 2, 1))
    for _ in range(layers):
        x = b.add(x, b.attention(b.layernorm(x, spelled_out=False), heads))
        x = b.add(x, b.dense(b.dense(b.layernorm(x, spelled_out=False), 4 * width, "gelu"), width))
    pooled = b.node("ReduceMean", [b.layernorm(x, spelled_out=False)], (1, width), axes=[1], keepdims=0)
    return b.model(b.gemm(pooled, 1000))


def recurrent(kind: str, length: int = 100, width: int = 256, layers: int = 2) -> onnx.ModelProto:
    """Speech-like: convolutions over time, then LSTM or GRU layers."""
    b = Builder(kind.lower())
    x = b.conv(b.input("sound", (1, 40, length)), 128, 5, act="relu")
    x = b.transpose(x, (2, 0, 1))
    gates = 4 if kind == "LSTM" else 3
    for _ in range(layers):
        depth = b.shape[x][2]
        shape = (length, 1, 1, width)
        inputs = [x, b.weight(1, gates * width, depth), b.weight(1, gates * width, width)]
        y = b.node(kind, inputs, shape, hidden_size=width)
        x = b.node("Squeeze", [y, b.constant(np.array([1], np.int64))], (length, 1, width))
    return b.model(b.node("Softmax", [b.dense(x, 32)], (length, 1, 32), axis=-1))


def audio(length: int = 16000, width: int = 256) -> onnx.ModelProto:
    """wav2vec-like (Baevski et al., 2020): one-dimensional convolutions over samples, then attention."""
    b = Builder("audio")
    x = b.input("sound", (1, 1, length))
    for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2)):
        x = b.conv(x, width, kernel, stride, act="gelu", bias=False)
    x = b.transpose(x, (0, 2, 1))
    for _ in range(3):
        x = b.layernorm(b.add(x, b.attention(x, 4)))
        x = b.layernorm(b.add(x, b.dense(b.dense(x, 4 * width, "gelu"), width)))
    return b.model(b.dense(x, 32))


def mlp(width: int = 1024, layers: int = 4) -> onnx.ModelProto:
    """Dense layers only."""
    b = Builder("mlp")
    x = b.input("values", (1, width))
    for _ in range(layers):
        x = b.gemm(x, width, "relu")
    return b.model(b.gemm(x, 10))


def upscale(side: int = 96) -> onnx.ModelProto:
    """A super-resolution net (Shi et al., 2016): few weights, large tensors."""
    b = Builder("upscale")
    x = b.conv(b.input("image", (1, 1, side, side)), 64, 5, act="relu")
    x = b.conv(b.conv(x, 64, 3, act="relu"), 32, 3, act="relu")
    x = b.conv(x, 9, 3)
    return b.model(b.node("DepthToSpace", [x], (1, 1, side * 3, side * 3), blocksize=3))


GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v2_small": lambda: mobilenet_v2(160, 0.5),
    "efficientnet_b0": efficientnet,
    "resnet18_bn": lambda: resnet((2, 2, 2, 2), bottleneck=False, batchnorm=True),
    "resnet50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
    "vgg11": vgg,
    "densenet": densenet,
    "yolo_n": yolo,
    "yolo_s": lambda: yolo(320, 32),
    "unet": unet,
    "bert_tiny": lambda: bert(2, 128, 2, 30522),
    "bert_mini": lambda: bert(4, 256, 4, 30522),
    "minilm_shape": lambda: bert(6, 384, 12, 30522),
    "bert_base_half": lambda: bert(6, 768, 12, 30522, 64),
    "vit_tiny": vit,
    "lstm": lambda: recurrent("LSTM"),
    "gru": lambda: recurrent("GRU", 50, 320, 3),
    "audio": audio,
    "mlp": mlp,
    "upscale": upscale,
}
