import pytest
import torch
from torch import nn

from spikebench.energy.batches import count_images, until_counted
from spikebench.energy.profile import profile_operations


@pytest.mark.parametrize(
    ("batch", "find", "images"),
    [
        (torch.ones(3, 2), None, 3),
        ((torch.ones(4, 1), "labels"), None, 4),
        ([torch.ones(4, 3, 2, 2), torch.ones(4)], None, 4),
        ((torch.ones(3, 4, 4), torch.ones(3, 4, 4)), None, 3),
        ({"inputs": torch.ones(5)}, lambda batch: batch["inputs"], 5),
        ([torch.ones(3, 4, 4), torch.ones(3, 8, 6)], lambda batch: batch, 2),
        (torch.ones(2, 7), lambda batch: batch.shape[1], 7),
    ],
)
def test_images_of_a_batch(batch, find, images):
    assert count_images(batch, find) == images


@pytest.mark.parametrize(
    "batch", ["abc", {"image": 1}, (), torch.tensor(1.0), None, [torch.ones(3, 4, 4)] * 2]
)
def test_a_batch_of_unknown_images_is_refused(batch):
    with pytest.raises(TypeError, match=type(batch).__name__):
        profile_operations(nn.Identity(), [batch])


def test_whole_batches_are_given_until_there_are_enough_images():
    batches = [torch.ones(2, number) for number in (1, 2, 3, 4)]
    assert [len(x[0]) for x in until_counted(batches, 3)] == [1, 2]
    assert [len(x[0]) for x in until_counted(batches, 4, lambda x: x.shape[1])] == [1, 2, 3]
