from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spikebench import build_backbone, build_classifier, load_weights
from spikebench.weights.loading import WeightsError, head_arguments

CLASSES = 5


def classifier(seed: int = 0, distillation: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    model = build_classifier("meta_spikeformer_nano", CLASSES, distillation=distillation)
    with torch.no_grad():  # so that no two tensors of one shape are alike
        for buffer in model.buffers():
            buffer.copy_(torch.rand(buffer.shape) * 10)
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape))
    return model


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_equal_state(model: nn.Module, expected: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def published(key: str) -> str:
    """Our name of a classifier's tensor as the published code spells it, written out by hand."""
    blocks = {"0.blocks": "ConvBlock1_1", "1.blocks": "ConvBlock1_2"}
    blocks |= {"3.blocks": "block3", "4.blocks": "block4"}
    downsamples = ("downsample1_1", "downsample1_2", "downsample2", "downsample3", "downsample4")
    rep = {"pw1": "body.0", "norm1": "body.1.bn", "dw": "body.2.0", "pw2": "body.2.1"}
    rep |= {"norm2": "body.2.2"}
    if key.startswith("distillation_head."):
        return key.replace("distillation_head", "head_kd")
    if key.startswith("head."):
        return key
    _, _, stage, part, *rest = key.split(".")
    if part == "downsample":
        layer = {"conv": "encode_conv", "norm": "encode_bn"}[rest[0]]
        return ".".join([downsamples[int(stage)], layer, *rest[1:]])
    index, branch, *rest = rest
    block = (
        f"{blocks[f'{stage}.blocks']}.{index}" if stage != "2" else f"ConvBlock2_{int(index) + 1}.0"
    )
    if branch == "sep_conv":
        if rest[0] == "dw":
            return f"{block}.Conv.dwconv.{rest[1]}"
        layer = {"conv": "pwconv", "norm": "bn"}[rest[1]] + rest[0][-1]
        return f"{block}.Conv.{layer}.{rest[2]}"
    if branch == "channel_conv":
        return f"{block}.{ {'conv': 'conv', 'norm': 'bn'}[rest[1]] }{rest[0][-1]}.{rest[2]}"
    if branch == "mlp":
        return f"{block}.mlp.{rest[0]}_{ {'conv': 'conv', 'norm': 'bn'}[rest[1]] }.{rest[2]}"
    if rest[1] == "norm":
        return f"{block}.attn.{rest[0]}_conv.1.{rest[2]}"
    return f"{block}.attn.{rest[0]}_conv.0.{rep[rest[2]]}.{rest[3]}"


def as_published(model: nn.Module) -> dict[str, Tensor]:
    state = {published(key): value for key, value in snapshot(model).items()}
    return {  # 1x1 convolutions of the MLP are one-dimensional there
        key: value.squeeze(-1) if ".mlp." in key and value.dim() == 4 else value
        for key, value in state.items()
    }


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("distillation", [False, True])
def test_the_published_layout(distillation: bool):
    source = classifier(0, distillation)
    state = as_published(source)
    assert ("head_kd.weight" in state) is distillation
    target = classifier(1, distillation)
    assert load_weights(target, state) is target
    assert_equal_state(target, source.state_dict())


WRAPPINGS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "optimizer": {"lr": 1.0}},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "module.": lambda state: prefixed(state, "module."),
    "model and module.": lambda state: {"model": prefixed(state, "module.")},
    "lightning": lambda state: {
        "state_dict": {**prefixed(state, "model."), "criterion.weight": torch.ones(2)}
    },
}


@pytest.mark.parametrize("layout", ["ours", "published"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_and_prefixed(wrapping: str, layout: str):
    source, target = classifier(0), classifier(1)
    state = snapshot(source) if layout == "ours" else as_published(source)
    load_weights(target, WRAPPINGS[wrapping](state))
    assert_equal_state(target, source.state_dict())


@pytest.mark.parametrize("layout", ["ours", "published", "backbone"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_classifier_loads_into_its_backbone(layout: str, prefix: str):
    source = classifier(0)
    state = {
        "ours": snapshot(source),
        "published": as_published(source),
        "backbone": snapshot(source.backbone),
    }[layout]
    backbone = build_backbone("meta_spikeformer_nano")
    load_weights(backbone, prefixed(state, prefix))
    assert_equal_state(backbone, source.backbone.state_dict())


def test_a_published_detector_loads_into_a_backbone():
    source = classifier(0)
    state = {key: value for key, value in as_published(source).items() if "head" not in key}
    state = {**prefixed(state, "backbone."), "neck.lateral_convs.0.conv.weight": torch.ones(1)}
    backbone = build_backbone("meta_spikeformer_nano")
    load_weights(backbone, {"state_dict": state, "meta": {"epoch": 12}})
    assert_equal_state(backbone, source.backbone.state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files(tmp_path: Path, suffix: str):
    source, target = classifier(0), classifier(1)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(as_published(source), path)
    else:
        torch.save({"model": as_published(source)}, path)
    load_weights(target, path)
    assert_equal_state(target, source.state_dict())
    load_weights(classifier(2), str(path))


def test_a_published_checkpoint_holds_its_arguments_too(tmp_path: Path):
    source, target = classifier(0), classifier(1)
    arguments = argparse.Namespace(lr=6e-4, model="metaspikformer_8_384", nested=[1, {"a": None}])
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": as_published(source), "epoch": 199, "args": arguments}, path)
    load_weights(target, path)
    assert_equal_state(target, source.state_dict())
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(snapshot(classifier()), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    target = classifier(1)
    before = snapshot(target)
    with pytest.raises(WeightsError, match=rf"weights\{suffix}"):
        load_weights(target, path)
    assert_equal_state(target, before)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        load_weights(classifier(), tmp_path / "nowhere.pth")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o, protocol=2))]
)
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, save):
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    save({"model": {"a": torch.ones(1)}, "args": Trap(sprung)}, path)
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        load_weights(classifier(), path)
    assert not sprung.exists()


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth"):
        load_weights(classifier(), tmp_path / "list.pth")


def without(key: str):
    return lambda state: state.pop(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("head.bias"), "missing: head.bias"),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), "unexpected: extra.weight"),
        (
            lambda s: s.update({"head.weight": torch.ones(9, 160)}),
            r"head.weight \(9, 160\)",
        ),
        (
            lambda s: s.update({"head.weight": s["head.weight"].reshape(160, CLASSES)}),
            r"head.weight \(160, 5\)",
        ),
        (dict.clear, "missing: backbone.*, ..."),
    ],
)
def test_a_misfit_names_its_keys_and_changes_nothing(damage, message: str):
    state = snapshot(classifier(0))
    damage(state)
    target = classifier(1)
    before = snapshot(target)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(target, state)
    assert "Classifier" in str(caught.value)
    assert_equal_state(target, before)


def test_a_misfit_of_a_file_names_the_file(tmp_path: Path):
    torch.save(snapshot(classifier(0, distillation=True)), tmp_path / "kd.pth")
    with pytest.raises(WeightsError, match=r"kd\.pth.*distillation_head"):
        load_weights(classifier(1), tmp_path / "kd.pth")


def test_a_checkpoint_of_the_published_training_code(tmp_path: Path):
    source, target = classifier(0, distillation=True), classifier(1, distillation=True)
    optimizer = torch.optim.AdamW(source.parameters(), lr=6e-4)
    source(torch.randn(2, 3, 16, 16))[0].sum().backward()
    optimizer.step()
    checkpoint = {
        "model": as_published(source),
        "optimizer": optimizer.state_dict(),
        "epoch": 199,
        "scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "args": argparse.Namespace(output_dir="out", device="cuda", betas=(0.9, 0.95), kd=True),
    }
    torch.save(checkpoint, tmp_path / "checkpoint-199.pth")
    load_weights(target, tmp_path / "checkpoint-199.pth")
    assert_equal_state(target, source.state_dict())


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_a_distillation_head_is_never_left_out_silently(layout: str):
    def state(model: nn.Module) -> dict[str, Tensor]:
        return {"ours": snapshot, "published": as_published}[layout](model)

    distilled, plain = classifier(0, distillation=True), classifier(1)
    with pytest.raises(WeightsError) as caught:
        load_weights(plain, state(distilled))
    assert str(caught.value) == (
        "the given weights do not fit Classifier: 2 unexpected: distillation_head.bias, "
        "distillation_head.weight; they are distilled: build the classifier with distillation=True"
    )
    with pytest.raises(WeightsError, match="distillation=False$"):
        load_weights(distilled, state(plain))
    load_weights(plain.backbone, state(distilled))
    assert_equal_state(plain.backbone, distilled.backbone.state_dict())


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("distillation", [False, True])
def test_weights_say_which_classifier_they_are_of(wrapping: str, distillation: bool):
    model = classifier(0, distillation)
    expected = {"num_classes": CLASSES, "distillation": distillation}
    for state in (snapshot(model), as_published(model)):
        assert head_arguments(WRAPPINGS[wrapping](state)) == expected
    assert head_arguments(WRAPPINGS[wrapping](snapshot(model.backbone))) == {}


class TestOtherTimeSteps:
    def model(self, time_steps: int, **options) -> nn.Module:
        torch.manual_seed(time_steps)
        return build_classifier("meta_spikeformer_nano", CLASSES, time_steps, **options)

    @pytest.mark.parametrize("neuron", ["lif", "plif", "ilif"])
    def test_a_recurrent_neuron_takes_any(self, neuron: str):
        source, target = self.model(1, neuron=neuron), self.model(4, neuron=neuron)
        load_weights(target, source.state_dict())
        assert_equal_state(target, source.state_dict())
        assert target.time_steps == 4

    @pytest.mark.parametrize(("before", "now"), [(1, 4), (4, 2)])
    def test_a_matrix_over_time_fits_its_own_only(self, before: int, now: int):
        source, target = self.model(before, neuron="psn"), self.model(now, neuron="psn")
        state = snapshot(target)
        hint = f"time_steps={before}.* time_steps={now}$"
        with pytest.raises(WeightsError, match=hint) as caught:
            load_weights(target, source.state_dict())
        assert f".weight ({before}, {before}) for ({now}, {now})" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert_equal_state(target, state)

    def test_other_misfits_get_no_such_hint(self):
        wider = build_classifier("meta_spikeformer_nano", 1, 4)
        with pytest.raises(WeightsError, match=r"\(5, 160\)$"):
            load_weights(self.model(4), wider.state_dict())
