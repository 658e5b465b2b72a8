"""The same network in PyTorch: as eager code in channels_last, which its users write."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import isolated, machine, table
from benchmarks.settings import Settings
from benchmarks.timing import in_turn

TITLE = "Against PyTorch"
COLUMNS = ("side", "batch", "Keras s", "PyTorch s", "PyTorch ÷ Keras", "largest difference")
BATCH = 4
TEXT = """\
A forward and backward pass of the encoder of rotation, a U-Net with {filters}…{widest} filters, in float32 against
the same layers with the same weights in PyTorch, eager, in channels_last. Two processes take turns, pass by pass.
*PyTorch ÷ Keras*: above 1 the library is faster; the aim is at least 1. *largest difference*: of the outputs, over
their largest value."""


def section(settings: Settings) -> str:
    """Return the text and the table."""

    def fill(row: dict[str, Any]) -> None:
        if machine.installed("torch"):
            row.update(compare(row["side"], settings.filters, settings.steps))
        else:
            row["PyTorch s"] = "not installed"

    sides = (settings.side // 2, settings.side)
    parts = ((f"{side}³", {"side": side, "batch": BATCH}, fill) for side in sides)
    text = TEXT.format(filters=settings.filters, widest=8 * settings.filters)
    return table.section(text, COLUMNS, *table.measured(settings, COLUMNS, parts))


def compare(side: int, filters: int, steps: int) -> dict[str, float]:
    """Return the numbers of one row."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"folder": folder, "side": side, "filters": filters}
        with (
            isolated.remote(keras_pass, options, {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}) as keras,
            isolated.remote(torch_pass, {"folder": folder}) as torch,
        ):
            in_turn([keras, torch], 1)
            keras_seconds, torch_seconds = in_turn([keras, torch], steps)
        ours, theirs = (np.load(Path(folder) / f"{name}.npy", allow_pickle=False) for name in ("keras", "torch"))
    return {
        "Keras s": keras_seconds,
        "PyTorch s": torch_seconds,
        "PyTorch ÷ Keras": torch_seconds / keras_seconds,
        "largest difference": float(np.abs(ours - theirs).max() / np.abs(ours).max()),
    }


def keras_pass(folder: str, side: int, filters: int) -> Callable[[], object]:
    """Return a pass of the encoder, of which layers, weights, batch and output are written into a folder."""
    import tensorflow as tf

    from benchmarks import networks
    from self_supervised_3d_tasks.experiment import registry

    encoder = registry.encoder("unet")((side, side, side, 1), enc_filters=filters, num_layers=3, seed=0)
    batch = np.random.default_rng(0).random((BATCH, side, side, side, 1), dtype=np.float32)
    layers = [{"kind": type(layer).__name__} | layer.get_config() for layer in encoder.layers]
    kept = ("kind", "activation", "groups", "epsilon", "pool_size")
    layers = [{key: layer[key] for key in kept if key in layer} for layer in layers]
    weights = {
        f"{number}_{index}": weight
        for number, layer in enumerate(encoder.layers)
        for index, weight in enumerate(layer.get_weights())
    }
    path = Path(folder)
    np.savez(path / "network.npz", batch=batch, layers=json.dumps(layers), **weights)
    np.save(path / "keras.npy", encoder(batch, training=True).numpy())
    return networks.forward_and_backward([(encoder, tf.constant(batch))], encoder)[0]


def torch_pass(folder: str) -> Callable[[], object]:
    """Return a pass of the network that `keras_pass` wrote, and write its output."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kept = np.load(Path(folder) / "network.npz", allow_pickle=False)
    made = [
        part
        for number, layer in enumerate(json.loads(str(kept["layers"])))
        for part in _torch_layers(layer, [kept[name] for name in kept.files if name.startswith(f"{number}_")])
    ]
    network = torch.nn.Sequential(*made).to(device, memory_format=torch.channels_last_3d)
    batch = torch.from_numpy(np.moveaxis(kept["batch"], -1, 1)).to(device, memory_format=torch.channels_last_3d)
    np.save(Path(folder) / "torch.npy", np.moveaxis(network(batch).detach().cpu().numpy(), 1, -1))

    def run() -> float:
        network.zero_grad()
        network(batch).square().mean().backward()
        return sum(float(weight.grad.sum()) for weight in network.parameters())

    return run


def _torch_layers(layer: dict[str, Any], weights: list[np.ndarray]) -> list[Any]:
    """Return the modules of PyTorch for one layer of Keras."""
    from torch import from_numpy, nn

    weights = [from_numpy(weight) for weight in weights]
    if layer["kind"] in ("InputLayer", "Identity"):
        return []
    if layer["kind"] == "MaxPooling3D":
        return [nn.MaxPool3d(tuple(layer["pool_size"]))]
    if layer["kind"] == "GroupNormalization":
        module = nn.GroupNorm(layer["groups"], len(weights[0]), eps=layer["epsilon"])
    elif layer["kind"] == "Conv3D":
        weights[0] = weights[0].permute(4, 3, 0, 1, 2).contiguous()
        module = nn.Conv3d(*weights[0].shape[1::-1], tuple(weights[0].shape[2:]), padding="same")
    else:
        raise ValueError(f"a layer of PyTorch is to be written for {layer['kind']}")
    module.weight.data, module.bias.data = weights
    return [module, nn.ReLU()] if layer.get("activation") == "relu" else [module]
