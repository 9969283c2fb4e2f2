from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from spikebench import build_classifier
from spikebench.backbones.zoo import FeatureInfo
from spikebench.cli import app
from spikebench.errors import UserError
from spikebench.neurons import LIF
from spikebench.registry import BACKBONES
from spikebench.report.audit import AuditRecord
from spikebench.results import read_as

NANO = ("meta_spikeformer_nano", "--image-size", "32", "--num-classes", "10")
STEM = "backbone.stages.0.downsample.conv"


def audit(*arguments: str) -> Result:
    """Run the command; what it prints on a wide terminal."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["audit", *arguments])


def audited(folder: Path, *arguments: str) -> AuditRecord:
    done = audit(*arguments, "--out", str(folder))
    assert done.exit_code == 0, done.output
    return read_as(AuditRecord, folder / "audit.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def output(folder: Path) -> str:
    done = audit(*NANO, "--time-steps", "2", "--out", str(folder))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def record(folder: Path, output: str) -> AuditRecord:
    return read_as(AuditRecord, folder / "audit.json")


def names(rows) -> set[str]:
    return {row.name for row in rows}


class TestMetaSpikeformer:
    def test_as_coded_and_dense_inner_convolutions_read_reals(self, record):
        """The inner ones of RepConv, and SepConv's second pointwise one; the stem encodes."""
        coded, dense, _ = record.audits
        assert [report.form for report in record.reports] == ["as-coded", "dense", "paper"]
        inner = {"as-coded": r"conv\.(dw|pw2)", "dense": r"conv\.[12]"}
        for found in (coded, dense):
            assert not found.addition_only
            assert names(found.encoding) == {STEM}
            form = found.report.form
            pattern = rf".*(sep_conv\.pw2\.conv|attn\.(q|k|v|proj)\.{inner[form]})"
            expected = {row.name for row in found.report.rows if re.fullmatch(pattern, row.name)}
            assert len(expected) == 3 + 3 * 4 * 2
            assert names(found.real) == expected

    def test_in_the_form_of_the_papers_the_encoding_alone_multiplies(self, record):
        *_, paper = record.audits
        assert paper.addition_only
        assert paper.real == ()
        assert names(paper.encoding) == {STEM}
        assert all(row.value_kind in ("binary", "scaled") for row in paper.report.rows[1:])

    def test_the_last_product_of_the_attention_reads_integers(self, record):
        """Q (K^T V) at 32x32 pixels: K^T V counts up to 4 tokens."""
        for found in record.audits:
            assert len(found.integer) == 3
            for row in found.integer:
                assert row.name.endswith(".attn.qkv")
                assert row.value_kind == "binary"
                assert row.other_value_kind == "integer"
                assert row.other_value_range is not None
                low, high = row.other_value_range
                assert low == 0
                assert high in (2, 3, 4)
                assert row.is_accumulate

    def test_norms_are_uncounted_as_coded_and_gone_when_folded(self, record):
        coded, dense, paper = record.audits
        norms = [part for part in coded.elementwise if "batch_norm" in part.operation]
        # a RepConv has two and one behind it, a SepConv, ChannelConv and MLP two, a downsample one
        assert len(norms) == 3 * 4 * 3 + 3 * 4 + 3 * 2 + 5
        for found in (dense, paper):
            assert not any("norm" in part.operation for part in found.elementwise)
        assert all(found.no_rule == () for found in record.audits)

    def test_the_constant_scale_of_the_attention_does_not_flip_the_verdict(self, record):
        *_, paper = record.audits
        assert {part.name.split(".")[-1] for part in paper.elementwise} == {"attn"}
        assert len(paper.elementwise) == 3
        assert paper.verdict.startswith("addition only but for elementwise arithmetic: aten::mul (")

    def test_every_layer_has_a_rate_at_every_time_step(self, record, folder: Path):
        with (folder / "firing_rates.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        model = build_classifier("meta_spikeformer_nano", 10, time_steps=2)
        layers = [name for name, module in model.named_modules() if isinstance(module, LIF)]
        assert len(layers) == 38
        assert sorted(row["name"] for row in rows) == sorted(layers * 3)
        for row in rows:
            mean = (float(row["rate_t1"]) + float(row["rate_t2"])) / 2
            assert float(row["rate"]) == pytest.approx(mean)
        assert any(row["rate_t1"] != row["rate_t2"] for row in rows)

    def test_the_terminal_shows_it(self, record, output: str, folder: Path):
        for found in record.audits:
            assert f"{found.report.form}: {found.verdict}\n" in output
        shown = [line.split() for line in output.splitlines()]
        inner = ["backbone.stages.*.blocks.*.sep_conv.pw2.conv", "3", "conv2d", "real"]
        assert sum(line[:4] == inner for line in shown) == 2
        assert output.count("binary x integer") == 3
        assert all(row.name in output for row in record.reports[0].neurons)
        assert f"silent (rate 0): {', '.join(record.audits[0].silent) or 'none'}\n" in output
        written = ("audit.json", "audit.md", "operations.csv", "firing_rates.csv")
        for name in (*written, "firing_rates.png"):
            assert f"written: {folder / name}\n" in output
            assert (folder / name).is_file()

    def test_settings_say_what_was_counted(self, record):
        settings = record.settings
        assert (settings.backbone_name, settings.time_steps, settings.image_size) == (
            "meta_spikeformer_nano",
            2,
            32,
        )
        assert (settings.num_classes, settings.options) == (10, {})
        assert settings.images == "squares cut out of two photographs"
        assert settings.weights.startswith("random, batch norms settled on ")
        assert all((report.images, report.time_steps) == (2, 2) for report in record.reports)


def test_random_weights_fire_and_are_the_same_again(tmp_path: Path):
    """Were the norms not settled, most layers would be silent: their bias is 0 here."""
    arguments = (*NANO, "--set", "norm_bias=0.0", "--time-steps", "4", "--count", "1")
    first, again = (audited(tmp_path / name, *arguments) for name in "ab")
    assert len(first.audits[0].silent) < 6
    assert first.reports == again.reports
    assert first.settings.options == {"norm_bias": 0.0}
    assert first.reports[0].images == 1


def test_sums_of_spikes_are_added_n_times(tmp_path: Path):
    options = ("--set", "shortcut=sew", "--time-steps", "2", "--count", "1")
    record = audited(tmp_path, *NANO, *options)
    *_, paper = record.audits
    assert paper.addition_only
    summed = [row for row in paper.integer if row.kind == "conv2d"]
    assert len(summed) > 3
    assert all(row.magnitude and row.magnitude > row.rate for row in summed)


def test_weights_and_images_are_those_given(tmp_path: Path):
    torch.manual_seed(3)
    model = build_classifier("meta_spikeformer_nano", 7)
    path = tmp_path / "mine.pth"
    torch.save(model.state_dict(), path)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 50), (40 * number, 90, 200)).save(photographs / f"{number}.png")
    arguments = ("--weights", str(path), "--images", str(photographs), "--count", "5")
    record = audited(tmp_path / "out", *NANO[:3], *arguments)
    assert record.reports[0].images == 3
    assert record.settings.num_classes == 7
    assert record.settings.images == f"images of {photographs}"
    assert record.settings.weights == "mine.pth"
    assert record.settings.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    head = next(row for row in record.reports[0].rows if row.name == "head")
    assert head.outputs == 7
    plain = audited(tmp_path / "photos", *NANO[:3], "--weights", str(path))
    assert plain.reports[0].firing_rates != record.reports[0].firing_rates


def test_files_lie_where_the_name_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert audit(*NANO, "--count", "1").exit_code == 0
    assert (tmp_path / "work_dirs/audit/meta_spikeformer_nano/audit.md").is_file()


class Chain(nn.Module):
    """A backbone of pixel-wise convolutions, behind the first of which there may be neurons."""

    time_steps = 1
    feature_info = [FeatureInfo(channels=4, stride=1)]

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 4, 1), *(nn.Conv2d(4, 4, 1, bias=False) for _ in range(2))]
        self.first, self.second, self.third = layers
        self.neuron = neuron

    def forward(self, x):
        return (self.third(self.second(self.neuron(self.first(x).unsqueeze(0))[0])).unsqueeze(0),)


def chain(monkeypatch: pytest.MonkeyPatch, neuron: nn.Module) -> str:
    monkeypatch.setitem(BACKBONES._entries, "chain", lambda time_steps=1: Chain(neuron))
    return "chain"


def test_what_reads_a_silent_layer_is_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever lies behind it looks binary: zeros are."""
    record = audited(tmp_path, chain(monkeypatch, LIF(threshold=1e9)), "--image-size", "8")
    for found in record.audits:
        assert found.silent == ("backbone.neuron", "lif")
        assert names(found.unseen) == {"backbone.second", "backbone.third", "head"}
        assert found.addition_only is None
        assert found.verdict.startswith("undecided: only zeros were read in 3 of 4 operations")


def test_a_network_without_neurons_of_its_own_encodes_with_all_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The head is spiking: what stands before it is its encoding, and is shown with its size."""
    record = audited(tmp_path, chain(monkeypatch, nn.Identity()), "--image-size", "8")
    assert "the encoding of the image multiplies in 3 of 4 operations" in record.audits[0].verdict


WRONG = {
    ("nope",): "unknown backbone 'nope'; known: ",
    (*NANO, "--image-size", "30"): "input of 30x30 pixels; both must be divisible by 16",
    (*NANO, "--weights", "none.pth"): "no such file: none.pth",
    (*NANO, "--weights", "other.pth"): "other.pth do not fit Classifier: ",
    (*NANO, "--set", "atention=sdsa1"): "unexpected keyword argument 'atention'",
    (*NANO, "--set", "attention=sdsa9"): "unknown attention 'sdsa9'; did you mean",
    (*NANO, "--images", "none"): "no image in none; expected .bmp",
    (*NANO, "--images", ".", "--set", "in_channels=2"): "images of . have 3 channels",
}


class TestAWrongRequest:
    @pytest.mark.parametrize(
        ("arguments", "message"), WRONG.items(), ids=[" ".join(each[-2:]) for each in WRONG]
    )
    def test_is_one_error_and_leaves_nothing(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: tuple[str, ...],
        message: str,
    ):
        monkeypatch.chdir(tmp_path)
        torch.save({"head.weight": torch.ones(10, 3)}, "other.pth")
        done = audit(*arguments)
        assert isinstance(done.exception, UserError)  # `main` makes one line of it
        assert message in str(done.exception)
        assert done.output == ""
        assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]

    @pytest.mark.parametrize(
        "arguments", [(), ("meta_spikeformer_nano", "--count", "0"), ("x", "--image", "1")]
    )
    def test_a_wrong_usage_exits_with_2(self, arguments: tuple[str, ...]):
        done = audit(*arguments)
        assert done.exit_code == 2
        assert "Usage: " in done.output
