"""What every spiking neck and head must show, written once; a test class inherits it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.tasks.openmmlab.by_hand import Maps, Reads, enliven, every_step, membranes

BATCH = 2


def of_images(maps: Maps, chosen: list[int], time_steps: int) -> Maps:
    """Of maps `(T * B, ...)` those of some images."""
    return tuple(x.unflatten(0, (time_steps, -1))[:, chosen].flatten(0, 1) for x in maps)


class SpikingContract:
    """Inherit, give `shapes`, `build`, `call` and `step`, and pytest collects the tests.

    Attributes:
        shapes: of the maps that go in, without time and batch.
        reads_real_values: names of the layers that do not read spikes.
        keeps_time: whether time leaves the part as it came, as it does a neck.
    """

    shapes: tuple[tuple[int, ...], ...]
    reads_real_values: frozenset[str] = frozenset()
    keeps_time = False

    def build(self, time_steps: int) -> nn.Module:
        """The part for T time steps."""
        raise NotImplementedError

    def call(self, part: nn.Module, maps: Maps) -> Maps:
        """What the part makes of maps `(T * B, ...)`."""
        raise NotImplementedError

    def step(self, hand, *maps: Tensor) -> Maps:
        """One time step, written out with the methods of `ByHand`."""
        raise NotImplementedError

    def maps(self, time_steps: int, batch: int = BATCH, seed: int = 0) -> Maps:
        """Maps `(T * B, ...)`."""
        shapes = enumerate(self.shapes)
        return tuple(membranes(time_steps * batch, *one, seed=seed + i) for i, one in shapes)

    def over_time(self, steps: list[Maps]) -> Maps:
        """What leaves the part, from what leaves each time step."""
        join = torch.cat if self.keeps_time else lambda x: torch.stack(x).mean(0)
        return tuple(join(outputs) for outputs in zip(*steps, strict=True))

    @pytest.mark.parametrize("time_steps", [1, 3])
    def test_it_is_its_layers_one_time_step_after_the_other(self, time_steps: int):
        part, maps = enliven(self.build(time_steps)), self.maps(time_steps)
        with torch.no_grad():
            steps, hand = every_step(part, self.step, maps, time_steps)
            assert_close(self.call(part, maps), self.over_time(steps))
        for name, spikes in hand.spikes.items():
            rate = torch.stack(spikes).mean().item()
            assert 0.02 < rate < 0.98, f"{name} fires at {rate}: the test shows little"

    def test_what_does_not_change_over_time_first_gives_what_the_mean_over_time_gives(self):
        part, once = enliven(self.build(3)), enliven(self.build(1))
        maps = self.maps(1)
        constant = tuple(torch.cat([x] * 3) for x in maps)
        with torch.no_grad():
            steps, _ = every_step(part, self.step, constant, 3)
            assert_close(self.call(once, maps), steps[0])
            assert_close(self.call(part, constant), self.over_time(steps))
        assert any(not torch.equal(a, b) for a, b in zip(steps[0], steps[1], strict=True))

    @pytest.mark.parametrize("time_steps", [1, 3])
    @pytest.mark.parametrize("training", [False, True])
    def test_weights_read_spikes(self, time_steps: int, training: bool):
        part = enliven(self.build(time_steps)).train(training)
        for dropout in part.modules():
            if isinstance(dropout, nn.Dropout2d):
                dropout.p = 0.0
        with Reads(part) as reads:
            self.call(part, self.maps(time_steps))
        assert reads.silent == set()
        assert reads.not_binary() == self.reads_real_values

    @pytest.mark.parametrize("training", [False, True])
    def test_state_is_fresh_in_every_forward(self, training: bool):
        part, maps = enliven(self.build(3)).train(training), self.maps(3)

        def again() -> Maps:
            torch.manual_seed(0)  # of dropout
            return self.call(part, maps)

        first = again()
        assert_close(again(), first, rtol=0, atol=0)
        self.call(part, self.maps(3, batch=BATCH + 1, seed=7))
        assert_close(again(), first, rtol=0, atol=0)
        with torch.no_grad():
            assert_close(again(), first, rtol=0, atol=0)

    def test_elements_of_a_batch_do_not_see_each_other(self):
        part, maps = enliven(self.build(3)), self.maps(3, batch=3)
        steps_out = 3 if self.keeps_time else 1
        with torch.no_grad():
            together = self.call(part, maps)
            for chosen in ([0], [2], [2, 0]):
                some = self.call(part, of_images(maps, chosen, 3))
                assert_close(some, of_images(together, chosen, steps_out))

    @pytest.mark.parametrize("time_steps", [1, 3])
    def test_gradients_reach_every_weight_and_map(self, time_steps: int):
        part = enliven(self.build(time_steps)).train()
        maps = tuple(x.requires_grad_() for x in self.maps(time_steps))
        sum((out * torch.randn_like(out)).sum() for out in self.call(part, maps)).backward()
        for name, weight in part.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name
        for x in maps:
            assert all(one.abs().sum() > 0 for one in x.grad)
