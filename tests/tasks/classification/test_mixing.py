"""EventMix: two recordings in one, and labels by what is left of each."""

import pytest
import torch

from spikebench.task import ConfigError
from spikebench_tasks.classification.mixing import EventMix
from spikebench_tasks.classification.module import ClassificationModule

CLASSES = 5


def frames_of(batch: int = 4) -> torch.Tensor:
    """Recording i has the value i + 1 everywhere."""
    values = torch.arange(1.0, batch + 1).view(-1, 1, 1, 1, 1)
    return values.expand(batch, 3, 2, 8, 10).clone()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_every_place_is_of_one_of_two_recordings():
    mix = EventMix(CLASSES, prob=1.0)
    mixed, targets = mix(frames_of(), torch.tensor([0, 1, 2, 3]))
    for index, frames in enumerate(mixed):
        own, other = index + 1, 4 - index
        assert set(frames.unique().tolist()) <= {own, other}
        taken = frames == other
        assert taken[:, 0].equal(taken[:, 1])  # of both polarities
        share = (own * (~taken).sum() / frames.sum()).item()
        assert targets[index, index].item() == pytest.approx(share, abs=1e-6)
        assert targets[index].sum().item() == pytest.approx(1, abs=1e-6)


def test_shares_follow_the_beta_distribution():
    mix = EventMix(2, alpha=1.0, prob=1.0)
    shares = torch.stack(
        [mix(torch.ones(2, 2, 2, 8, 8), torch.tensor([0, 1]))[1][0, 0] for _ in range(300)]
    )
    assert 0.4 < shares.mean() < 0.6
    assert shares.min() < 0.1 < 0.9 < shares.max()


def test_smoothed_labels_and_no_mixing():
    frames, labels = frames_of(2), torch.tensor([1, 4])
    mixed, targets = EventMix(CLASSES, prob=0.0, label_smoothing=0.1)(frames, labels)
    assert mixed.equal(frames)
    assert targets[0].tolist() == pytest.approx([0.02, 0.92, 0.02, 0.02, 0.02])


def test_frames_without_an_event_keep_their_label():
    _, targets = EventMix(CLASSES, prob=1.0)(torch.zeros(2, 1, 2, 4, 4), torch.tensor([1, 4]))
    assert targets.argmax(1).tolist() == [1, 4]
    assert targets.isfinite().all()


class TestInTheModule:
    def module(self, **options) -> ClassificationModule:
        return ClassificationModule(
            "meta_spikeformer_nano", CLASSES, 2, {"in_channels": 2}, **options
        )

    def test_it_learns_from_mixed_frames(self):
        module = self.module(eventmix={"prob": 1.0})
        module.log = lambda *args, **kwargs: None
        loss = module.training_step((torch.rand(2, 2, 2, 32, 32), torch.tensor([0, 1])), 0)
        loss.backward()
        assert loss.isfinite()

    @pytest.mark.parametrize(
        "mixing", [{"eventmix": {"prob": 1.0}}, {"mixup": {"mixup_alpha": 1.0}}]
    )
    def test_odd_batches_are_mixed_too(self, mixing):
        module = self.module(**mixing)
        module.log = lambda *args, **kwargs: None
        read = []
        module._loss = lambda images, labels: read.append(labels)
        module.training_step((torch.rand(3, 2, 2, 32, 32), torch.tensor([0, 1, 2])), 0)
        assert read[0].shape == (3 if "eventmix" in mixing else 2, CLASSES)

    @pytest.mark.parametrize(
        ("options", "shape", "wrong"),
        [
            ({"eventmix": {"prob": 1.0}}, (2, 2, 32, 32), "model.eventmix and images"),
            ({"mixup": {"cutmix_alpha": 1.0}}, (2, 2, 2, 32, 32), "cutmix_alpha and event frames"),
        ],
    )
    def test_what_is_of_the_other_kind_is_refused(self, options, shape, wrong):
        with pytest.raises(ConfigError, match=wrong):
            self.module(**options).training_step((torch.rand(*shape), torch.tensor([0, 1])), 0)

    def test_both_at_once_are_refused(self):
        with pytest.raises(ConfigError, match="model.mixup and model.eventmix"):
            self.module(mixup={"mixup_alpha": 0.2}, eventmix={"prob": 1.0})
