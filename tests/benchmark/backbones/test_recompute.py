"""Gradient checkpointing gives what a plain run gives, to the last bit, and keeps less."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spikebench import build_backbone, build_classifier
from spikebench.backbones.layers import ResidualBlock
from spikebench.backbones.recompute import fire, recomputed
from spikebench.neurons import LIF

TINY = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 2, 1), "mlp_ratio": 2}


def images(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)


def train(model: nn.Module, backward: Callable = lambda loss: loss.backward()) -> dict:
    """Two steps; all that training leaves behind, and what comes next from the generator."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(1)
    losses = []
    for step in range(2):
        optimizer.zero_grad()
        loss = sum(maps.square().mean() for maps in model(images(step)))
        backward(loss)
        losses.append(loss.detach())
        optimizer.step()
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    return {"losses": torch.stack(losses), "chance": torch.rand(3), **gradients, **state(model)}


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def twin(**options) -> tuple[nn.Module, nn.Module]:
    """The same network, without and with gradient checkpointing."""
    models = []
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        model = build_backbone(
            "meta_spikeformer_nano",
            time_steps=2,
            grad_checkpointing=grad_checkpointing,
            **{**TINY, **options},
        )
        models.append(model.double())
    return models[0], models[1]


def assert_equal(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop_path": 0.5},
        {"shortcut": "sew", "drop_path": 0.5},
        {"shortcut": "vanilla", "neuron": "plif"},
        {"attention": "sdsa4", "attention_conv": "conv3x3", "neuron": "psn"},
    ],
    ids=str,
)
def test_training_is_the_same(options: dict):
    plain, checkpointed = twin(**options)
    trained = train(plain)
    assert_equal(trained, train(checkpointed))
    counts = [value for name, value in trained.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 2 for count in counts)
    assert trained["stages.4.blocks.0.mlp.fc2.norm.running_mean"].any()


def test_two_backward_passes_leave_no_trace_either():
    def twice(loss: Tensor) -> None:
        loss.backward(retain_graph=True)
        loss.backward()

    plain, checkpointed = twin(drop_path=0.5)
    assert_equal(train(plain, twice), train(checkpointed, twice))


def test_frozen_norms_stay_frozen():
    plain, checkpointed = twin()
    before = state(checkpointed)
    results = []
    for model in (plain, checkpointed):
        model.eval()
        results.append(train(model))
    assert_equal(*results)
    running = [name for name in before if "running" in name]
    assert_equal({n: before[n] for n in running}, {n: results[1][n] for n in running})


def test_a_gradient_reaches_the_image():
    gradients = []
    for model in twin():
        x = images().requires_grad_()
        model(x)[-1].square().sum().backward()
        gradients.append(x.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)


def kept_bytes(model: nn.Module) -> int:
    kept = 0

    def pack(x: Tensor) -> Tensor:
        nonlocal kept
        kept += x.nbytes
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model(images())
    return kept


def test_less_is_kept_for_the_backward_pass():
    plain, checkpointed = map(kept_bytes, twin())
    # a block keeps what its branches read, which is not counted here, and nothing else
    block_inputs = 2 * sum(maps.nbytes for maps in twin()[0](images()))
    assert checkpointed + block_inputs < 0.4 * plain


def calls_of_attention(model: nn.Module, run: Callable[[nn.Module], None]) -> int:
    calls = 0

    def count(*_) -> None:
        nonlocal calls
        calls += 1

    model.stages[3].blocks[0].attn.q.register_forward_hook(count)
    run(model)
    return calls


def test_branches_run_a_second_time_in_training_only():
    def forward(model: nn.Module) -> None:
        with torch.no_grad():
            model(images())

    plain, checkpointed = twin()
    assert calls_of_attention(plain, lambda m: m(images())[-1].sum().backward()) == 1
    assert calls_of_attention(checkpointed, lambda m: m(images())[-1].sum().backward()) == 2
    assert calls_of_attention(twin()[1], forward) == 1


def test_it_is_switched_as_in_timm():
    model = build_classifier("meta_spikeformer_nano", 5, **TINY)
    blocks = [module for module in model.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 6
    assert not any(block.grad_checkpointing for block in blocks)
    model.backbone.set_grad_checkpointing()
    assert all(block.grad_checkpointing for block in blocks)
    model.backbone.set_grad_checkpointing(enable=False)
    assert not any(block.grad_checkpointing for block in blocks)


def test_an_error_in_the_second_run_leaves_the_buffers_in_place():
    class FailsAtTheSecondCall(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            x = self.norm(x)
            if self.calls == 2:
                raise RuntimeError("second call")
            return x.exp()

    model = FailsAtTheSecondCall()
    mean = model.norm.running_mean
    y = recomputed(model, torch.randn(4, 3, requires_grad=True), model)
    after = mean.clone()
    with pytest.raises(RuntimeError, match="second call"):
        y.square().sum().backward()
    assert model.norm.running_mean is mean
    assert torch.equal(mean, after)


class Keeper(nn.Module):
    """A neuron that keeps its currents, as the fused forms do."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return (x >= 1).to(x.dtype)

        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grad * x.cos()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.permute(0, 1, 3, 4, 2).reshape(len(x), -1)
        return self.Function.apply(flat).view(*x.shape[:2], *x.shape[3:], -1).movedim(-1, 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("neuron", [Keeper(), LIF()], ids=lambda neuron: type(neuron).__name__)
def test_a_neuron_behind_a_norm_has_the_same_gradients(neuron, affine: bool, layout):
    generator = torch.Generator().manual_seed(0)
    found = []
    for together in (False, True):
        generator.manual_seed(0)
        norm = nn.BatchNorm2d(5, affine=affine)
        frames = torch.randn(6, 5, 4, 3, generator=generator).to(memory_format=layout)
        frames.requires_grad_()
        weight = torch.randn(3, 2, 5, 4, 3, generator=generator)
        if together:
            spikes = fire(neuron, norm, frames, 3)
        else:
            spikes = neuron(norm(frames).unflatten(0, (3, 2)))
        wanted = [frames, *norm.parameters()]
        found.append([spikes, *torch.autograd.grad((spikes * weight).sum(), wanted)])
        found[-1] += norm.buffers()
    assert found[0][0].any()
    assert all(map(torch.equal, *found))


def test_a_neuron_behind_a_norm_keeps_no_currents():
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    frames = torch.randn(6, 32, 20, 20, requires_grad=True)
    norm = nn.BatchNorm2d(32)
    kept = {}
    for name, run in (
        ("apart", lambda: Keeper()(norm(frames).unflatten(0, (3, 2)))),
        ("together", lambda: fire(Keeper(), norm, frames, 3)),
    ):
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run()
        kept[name] = sum(size for size in sizes if size > 1000)
    size = frames.untyped_storage().nbytes()
    assert kept["apart"] > 1.9 * size  # frames, for the norm; currents, or a copy, for the neuron
    assert kept["together"] == size


def test_inside_a_checkpoint_nothing_more_is_kept():
    norm, frames = nn.BatchNorm2d(4), torch.randn(6, 4, 5, 5, requires_grad=True)
    found = []
    for again in (False, True):

        def run(x: Tensor) -> Tensor:
            return fire(Keeper(), norm, x, 3)

        spikes = recomputed(run, frames, norm) if again else run(frames)
        found.append(torch.autograd.grad(spikes.square().sum(), frames)[0])
    assert torch.equal(*found)
