"""Clauses on what the maps depend on, in evaluation, and on gradients."""

from __future__ import annotations

import torch

from spikebench.backbones.contract.builder import (
    Builder,
    Violation,
    expect_same,
    named,
    run,
    seeded,
)


def responsive(builder: Builder) -> None:
    """Every map depends on the image; a silent network would pass most other clauses."""
    for index, features in enumerate(run(builder.settled(), builder.images(2))):
        if torch.equal(features[:, 0], features[:, 1]):
            raise Violation("it is the same for two different images", f"map {index}")


def fresh_state(builder: Builder) -> None:
    """No state survives a call: no batch, the same or another, changes the maps of the next."""
    model = builder.settled()
    images = builder.images(2)
    first = run(model, images)
    expect_same(first, run(model, images), "the second call with the same batch gives other maps")
    run(model, builder.images(2, seed=1))
    expect_same(first, run(model, images), "another batch in between changes the maps of a batch")


def independent_images(builder: Builder) -> None:
    """In evaluation, the maps of an image do not depend on the rest of its batch."""
    images = builder.images(3)
    together = run(builder.settled(), images)
    for index, image in enumerate(images.split(1)):
        expect_same(
            run(builder.settled(), image),
            [features[:, index : index + 1] for features in together],
            f"image {index} of a batch of {len(images)} has other maps than on its own",
        )


def deterministic(builder: Builder) -> None:
    """Evaluation draws no random numbers, and recording gradients changes nothing."""
    images = builder.images(2)
    with seeded(1), torch.enable_grad():
        recorded = [features.detach() for features in builder.settled()(images)]
    with torch.inference_mode():
        repeated = run(builder.settled(), images, seed=2)
    expect_same(recorded, repeated, "a repeated run, without gradients, gives other maps")


def state_dict(builder: Builder) -> None:
    """A state dict loads into a second instance, which then gives the same maps."""
    first, second = builder.settled(seed=0), builder.settled(seed=1)
    second.load_state_dict(first.state_dict())
    images = builder.images(3)
    what = "a second instance with the same state dict gives other maps"
    expect_same(run(first, images), run(second, images), what)


def gradients(builder: Builder) -> None:
    """In training, gradients flow from each map to the image and reach every parameter."""
    model = builder.settled().train()
    images = builder.images(2).requires_grad_()
    with seeded(0), torch.enable_grad():
        for index, features in enumerate(model(images)):
            images.grad = None
            (features * torch.randn_like(features)).mean().backward(retain_graph=True)
            if images.grad is None or not images.grad.any():
                raise Violation("no gradient flows from it to the image", f"map {index}")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    reached = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    for what, wrong in (
        ("no gradient reaches", [name for name in parameters if name not in reached]),
        ("no finite gradient in", [name for name, g in reached.items() if not g.isfinite().all()]),
    ):
        if wrong:
            raise Violation(f"{what} {len(wrong)} of {len(parameters)} parameters", named(wrong))
