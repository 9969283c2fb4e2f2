"""ONNX files of the deploy form: fixed T and image size, any batch.

A file is checked with onnxruntime before it gets its name. Comparing logits would say little:
rounding lets some membrane of a deep network cross its threshold in one runtime and not in the
other, and the spike that flips changes all that follows. So the check is in two parts. The weights
in the file are the model's, bit for bit; and with other weights, small powers of two whose sums are
exact in float32 in any order, both runtimes give the same output.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikebench.backbones.classifier import Classifier
from spikebench.errors import UserError
from spikebench.files import replacing
from spikebench.forms import DEPLOY_FORMS, known_form
from spikebench.inference.deploy import in_form
from spikebench.neurons import use_backend

_TOLERANCE = 1e-5
_TRIALS = 4


class ExportError(UserError, RuntimeError):
    """A model cannot be exported, or onnxruntime disagrees with PyTorch; the message says where."""


def export_onnx(
    model: nn.Module,
    path: str | Path,
    input_shape: Sequence[int] = (3, 224, 224),
    form: str = "dense",
) -> Path:
    """Write the deploy form of a model as an ONNX file that onnxruntime agrees with.

    The input is named `images`, float32 of shape `(B, *input_shape)` with any B; the outputs are
    `logits` `(B, num_classes)` of a classifier, or `map0`, `map1`, ... `(T, B, C_i, H_i, W_i)` of a
    backbone. Metadata name the form and T.

    Args:
        model: a backbone or a classifier, on any device, with its weights loaded; it is left as it
            is.
        path: where to write; a file of that name is replaced when the new one is whole.
        input_shape: `(C, H, W)` of an image, or `(T, C, H, W)` of event frames.
        form: a name in `spikebench.forms.DEPLOY_FORMS`.

    Returns:
        The path.

    Raises:
        ExportError: a package is missing, the input does not fit, or onnxruntime does not compute
            what PyTorch does; nothing is written then.
        UnknownNameError: there is no such form.

    Example:
        >>> export_onnx(model, "model.onnx", (3, 224, 224), form="paper")  # doctest: +SKIP
    """
    onnx, *_ = map(_require, ("onnx", "onnxruntime", "onnxscript"))
    form = known_form(form, DEPLOY_FORMS)
    path = Path(path)
    deployed = in_form(model, form).cpu().float()
    if isinstance(deployed, Classifier):
        _show_maps(deployed)
    proto = _trace(deployed, input_shape)
    for key, value in (("time_steps", getattr(model, "time_steps", 1)), ("form", form)):
        proto.metadata_props.add(key=key, value=str(value))
    onnx.checker.check_model(proto, full_check=True)
    _check(proto, deployed, input_shape)
    if isinstance(deployed, Classifier):
        del proto.graph.output[1:]
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    return path


def _require(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"{name} is not installed, which exporting needs: "
            "pip install onnx onnxruntime onnxscript"
        ) from error


def _show_maps(model: Classifier) -> None:
    """Let a classifier give its logits and maps while it is checked: logits alone hide much."""
    maps: list[Tensor] = []
    model.backbone.register_forward_hook(lambda module, args, found: maps.extend(found))
    model.register_forward_pre_hook(lambda module, args: maps.clear())
    model.register_forward_hook(lambda module, args, logits: (logits, *maps))


def _trace(model: nn.Module, input_shape: Sequence[int]) -> Any:
    images = torch.zeros(2, *input_shape)  # at a batch of 1, the exporter takes B for a constant
    with torch.no_grad(), use_backend("reference"):
        try:
            maps = model(images)
        except ValueError as error:
            shape = "x".join(map(str, input_shape))
            raise ExportError(f"an input of {shape} does not fit the model: {error}") from error
        logits = ["logits"] if isinstance(maps, Tensor) or isinstance(model, Classifier) else []
        maps = maps[len(logits) :] if isinstance(maps, tuple) else ()
        try:
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=[*logits, *(f"map{i}" for i in range(len(maps)))],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = str(cause).strip().split("\n")[0]
            raise ExportError(f"{type(model).__name__} cannot be exported: {reason}") from error
    assert program is not None
    return program.model_proto


def _check(proto: Any, model: nn.Module, input_shape: Sequence[int]) -> None:
    from onnx import numpy_helper

    proto, twin = copy.deepcopy(proto), copy.deepcopy(model)
    own, exact = model.state_dict(), _exact_weights(model)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.name in own}
    for name, tensor in stored.items():
        if not np.array_equal(numpy_helper.to_array(tensor), own[name].numpy()):
            raise ExportError(f"the exported {name} is not the model's")
        if name in exact:
            tensor.CopyFrom(numpy_helper.from_array(exact[name].numpy(), name))
    for name, value in twin.state_dict().items():
        # equal tensors are stored once; weights that were folded with constants keep their values
        same = name if name in stored else next((n for n in stored if own[n].equal(value)), None)
        if same in exact:
            value.copy_(exact[same])
    difference = math.inf
    for seed in range(_TRIALS):  # a mean still rounds, and may flip a spike now and then
        difference = min(difference, _difference(proto, twin, input_shape, seed))
        if difference <= _TOLERANCE:
            return
    raise ExportError(
        f"onnxruntime and PyTorch differ by at least {difference:.1e} of the outputs' scale on "
        f"each of {_TRIALS} inputs; expected at most {_TOLERANCE:.0e}"
    )


def _exact_weights(model: nn.Module) -> dict[str, Tensor]:
    """For a model's linear maps, weights 0 and +-2^-k that keep spikes alive, biases in halves."""
    generator = torch.Generator().manual_seed(0)
    exact = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            signs = torch.randint(-1, 2, module.weight.shape, generator=generator)
            scale = 2.0 ** -round(math.log2(module.weight[0].numel()) / 2)
            exact[f"{name}.weight"] = signs * scale
            if module.bias is not None:
                exact[f"{name}.bias"] = (
                    torch.randint(0, 5, module.bias.shape, generator=generator) / 2
                )
    return exact


def _difference(proto: Any, model: nn.Module, input_shape: Sequence[int], seed: int) -> float:
    """The largest difference of any output between the two runtimes, relative to its scale."""
    runtime = _require("onnxruntime")
    session = runtime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-8, 9, (3, *input_shape), generator=generator) / 4
    with torch.no_grad(), use_backend("reference"):
        expected = model(images)
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    found = session.run(None, {"images": images.numpy()})
    differences = []
    for ours, theirs in zip(expected, map(torch.from_numpy, found), strict=True):
        if ours.shape != theirs.shape:
            raise ExportError(
                f"onnxruntime gives a map of shape {tuple(theirs.shape)} for {tuple(ours.shape)}"
            )
        scale = ours.abs().max().clamp_min(torch.finfo(ours.dtype).tiny)
        differences.append(float((ours - theirs).abs().max() / scale))
    return max(differences)
