from __future__ import annotations

import pytest

from spikebench.errors import UserError
from spikebench.speed import plan
from spikebench.speed.plan import plan_contenders


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with two backends that work, one that does not, and one peer."""
    reasons = {"reference": None, "compiled": None, "triton": "no GPU"}
    monkeypatch.setattr(plan, "available_backends", lambda device: reasons)
    monkeypatch.setattr(plan.spikingjelly, "peers", lambda device: ["spikingjelly-torch"])


def labels(contenders, work: str) -> list[str]:
    return [one.label for one in contenders if one.work == work]


def test_by_default_all_that_works_is_measured_in_both_modes():
    found = plan_contenders("cpu")
    assert [(one.work, one.label) for one in found] == [
        ("inference", "reference, float32"),
        ("inference", "compiled, float32"),
        ("matmul inference", "float32"),
        ("training", "reference, float32"),
        ("training", "compiled, float32"),
    ]


def test_the_floor_is_measured_in_the_precisions_asked_for():
    found = plan_contenders("cpu", precisions=["bfloat16", "float32"])
    assert labels(found, "matmul inference") == ["bfloat16", "float32"]


def test_the_peer_comes_first_and_stays_as_coded():
    found = plan_contenders(
        "cpu", "spikingjelly", backends=["compiled"], forms=["dense", "paper"], layer=True
    )
    assert labels(found, "inference") == [
        "spikingjelly-torch, float32",
        "compiled, float32, dense",
        "compiled, float32, paper",
    ]
    others = ["spikingjelly-torch, float32", "compiled, float32"]
    assert labels(found, "training") == others
    assert labels(found, "LIF inference") == others
    assert labels(found, "LIF training") == others


def test_the_event_driven_form_has_one_layout_and_precision():
    found = plan_contenders(
        "cpu",
        modes=["inference"],
        backends=["compiled"],
        precisions=["float32", "bfloat16"],
        forms=["event"],
        channels_last=[False, True],
    )
    assert labels(found, "inference") == ["compiled, float32, event, channels last"]
    with pytest.raises(UserError, match="'event'.*cuda"):
        plan_contenders("cuda", forms=["event"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ["inference"], "grad_checkpointing": True}, "--grad-checkpointing"),
        ({"modes": ["train"], "forms": ["dense"]}, "--form, which is for inference"),
        ({"precisions": ["bfloat16"], "forms": ["event"]}, "--form event, which is in float32"),
    ],
)
def test_an_option_that_nothing_uses_is_refused(options: dict, message: str):
    with pytest.raises(UserError, match=message):
        plan_contenders("cpu", **options)


def test_precisions_and_layouts_multiply_and_checkpointing_adds():
    found = plan_contenders(
        "cpu",
        modes=["train"],
        backends=["compiled"],
        precisions=["bfloat16", "float32"],
        channels_last=[True, False],
        grad_checkpointing=True,
    )
    plain = [
        "compiled, bfloat16, channels last",
        "compiled, bfloat16",
        "compiled, float32, channels last",
        "compiled, float32",
    ]
    assert labels(found, "training") == plain + [f"{one}, gradient checkpointing" for one in plain]
    assert len(found) == 8


def test_what_is_named_twice_is_measured_once():
    named = {"modes": ["train"] * 2, "backends": ["compiled"] * 2, "channels_last": [True, True]}
    assert len(plan_contenders("cpu", **named)) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"backends": ["compild"]}, "'compiled'"),
        ({"backends": ["triton"]}, "'triton'"),
        ({"precisions": ["float16"]}, "'float16'"),
        ({"forms": ["papers"]}, "'paper'"),
        ({"modes": ["test"]}, "inference, train"),
        ({"against": "norse"}, "'norse'"),
        ({"against": "compiled", "backends": ["reference"]}, "'compiled'"),
    ],
)
def test_what_is_unknown_or_does_not_work_is_one_line(asked: dict, message: str):
    with pytest.raises(UserError) as caught:
        plan_contenders("cpu", **asked)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
