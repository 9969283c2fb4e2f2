"""What configs/README.md says can be set leads to a place that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spikebench.registry import TASKS, UnknownNameError
from spikebench.task import Task
from tests.tasks.small import CONFIGS, NANO

PAGE = (CONFIGS / "README.md").read_text()
OVERRIDES = re.findall(r"`(\+?)(classification|detection|segmentation)\.(\S+?=.*?)`", PAGE)
EXAMPLES = {
    "classification": ("classification/imagenet_t4.py", "classification/nmnist.py"),
    "detection": ("detection/mask_rcnn_15m_t1_coco.py",),
    "segmentation": ("segmentation/semantic_fpn_15m_t4_ade20k.py",),
}

pytestmark = pytest.mark.filterwarnings("ignore")


def takes(task: Task, config: Path, override: str) -> bool:
    try:
        task.resolve(config, NANO, {}, [override])
    except UnknownNameError:
        return False
    return True


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda parts: ".".join(parts[1:])[:50])
def test_an_override_finds_its_place(override: tuple[str, str, str]):
    new, name, assigned = override
    task: Task = TASKS.get(name)()
    examples = [CONFIGS / path for path in EXAMPLES[name]]
    assert any(takes(task, config, new + assigned) for config in examples)


def test_all_are_found():
    assert {task for _, task, _ in OVERRIDES} == EXAMPLES.keys()
    assert len(OVERRIDES) >= 15
