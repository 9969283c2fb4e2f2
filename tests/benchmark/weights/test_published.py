from __future__ import annotations

import pytest
import torch

from spikebench.weights.published import LAYOUTS, PublishedLayout, find_layout

CONV = "downsample1_1.encode_conv.weight"


def found(*keys: str) -> tuple[str, str] | None:
    layout = find_layout(keys)
    if layout is None:
        return None
    [name] = [name for name in LAYOUTS.names() if LAYOUTS.get(name) is layout[0]]
    return name, layout[1]


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.net."])
def test_a_layout_is_found_by_its_marker_behind_any_prefix(prefix: str):
    assert found(f"{prefix}{CONV}", "neck.weight") == ("meta_spikeformer", prefix)


def test_names_of_other_layouts_are_no_published_ones():
    assert found() is None
    assert found("backbone.stages.0.downsample.conv.weight", f"other_{CONV}") is None


def test_the_layout_with_the_most_markers_is_meant(monkeypatch: pytest.MonkeyPatch):
    successor = PublishedLayout(
        markers=("downsample1_1.encode_conv.", "block3.0.attn.v_proj."),
        rename=lambda name: f"backbone.{name}",
    )
    monkeypatch.setitem(LAYOUTS._entries, "successor", successor)
    assert found(CONV) == ("meta_spikeformer", "")
    assert found(CONV, "block3.0.attn.v_proj.weight") == ("successor", "")
    assert found(f"module.{CONV}", "block3.0.attn.v_proj.weight") == ("meta_spikeformer", "module.")
    state = {"net.a": torch.ones(1), "loss": torch.ones(2)}
    assert list(successor.translate(state, "net.")) == ["backbone.a"]
