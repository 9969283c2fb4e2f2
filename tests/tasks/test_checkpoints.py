from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spikebench.weights.loading import WeightsError
from spikebench_tasks.checkpoints import latest_checkpoint, resumable_checkpoint


@pytest.mark.parametrize("name", ["epoch={}.ckpt", "epoch_{}.pth", "iter_{}.pth"])
def test_the_latest_is_the_one_of_the_highest_number(tmp_path: Path, name: str):
    for number in (2, 10, 9):
        (tmp_path / name.format(number)).touch()
    assert latest_checkpoint(tmp_path) == tmp_path / name.format(10)


def test_what_is_no_checkpoint_is_passed_over(tmp_path: Path):
    for name in (
        ".epoch_3.pth.part",
        ".epoch=3.ckpt.part",
        "best_epoch_4.pth",
        "epoch_5.pth.bak",
        "last.pth",
        "last.ckpt",
    ):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path) is None
    assert resumable_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "none") is None


def test_a_whole_one_is_resumed_from(tmp_path: Path):
    torch.save({"state_dict": {"a": torch.zeros(9)}}, tmp_path / "epoch_1.pth")
    assert resumable_checkpoint(tmp_path) == tmp_path / "epoch_1.pth"


def test_a_truncated_one_is_named_with_what_to_do(tmp_path: Path):
    path = tmp_path / "epoch_2.pth"
    torch.save({"state_dict": {"a": torch.zeros(999)}}, tmp_path / "epoch_1.pth")
    path.write_bytes((tmp_path / "epoch_1.pth").read_bytes()[:-99])
    with pytest.raises(WeightsError) as caught:
        resumable_checkpoint(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read as weights")
    assert message.endswith("delete it to go on from what was before it")
    assert "\n" not in message
    path.unlink()
    assert resumable_checkpoint(tmp_path) == tmp_path / "epoch_1.pth"
