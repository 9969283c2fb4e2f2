"""The classifier and the images that `profile` and `audit` count, and their options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikebench.cli.app import built
from spikebench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

SETTLED_ON = 4  # images: of a single one, norms of maps of one pixel have no variance
RANDOM = f"random, batch norms settled on {SETTLED_ON} images: without, few neurons would fire"

TimeSteps = Annotated[int, typer.Option(min=1, help="T.")]
ImageSize = Annotated[int, typer.Option(min=1, help="Pixels each side.")]
Images = Annotated[
    Path | None, typer.Option(help="Folder of images; by default, crops of two photographs.")
]
Count = Annotated[int, typer.Option(min=1, help="How many images.")]
NumClasses = Annotated[
    int, typer.Option(min=1, help="Classes of the classifier, if there are no weights.")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights of the classifier; by default random, with batch norms settled on images."
    ),
]


@dataclass(frozen=True)
class Counted:
    """A classifier and where its images come from.

    Attributes:
        sample: `sample(n)` yields the same n batches of one image each time.
        num_classes: classes of the classifier.
        about_images: what the images are.
        about_weights: what the weights are.
    """

    model: nn.Module
    sample: Callable[[int], Iterator[Tensor]]
    num_classes: int
    about_images: str
    about_weights: str


def counted_classifier(
    name: str,
    options: dict[str, Any],
    weights: Path | None,
    time_steps: int,
    num_classes: int,
    image_size: int,
    folder: Path | None,
) -> Counted:
    """Build a classifier and what it is to be counted on.

    Raises:
        UserError: name, options, weights or images are wrong.
        ValueError: the backbone does not take images of that size.
    """
    import torch

    from spikebench.backbones import build_classifier
    from spikebench.backbones.layers import settling_norms
    from spikebench.backbones.options import input_channels
    from spikebench.images import about_images, sample_images
    from spikebench.seeding import seed_everything
    from spikebench.weights.loading import head_arguments

    seed_everything(0)
    head = {} if weights is None else head_arguments(weights)
    arguments = {"num_classes": num_classes, **head, **options}
    model = built(build_classifier, name, weights, time_steps=time_steps, **arguments)
    channels = options.get("in_channels") or input_channels(name)
    sample = partial(sample_images, size=image_size, channels=channels, folder=folder)
    if weights is None:
        with settling_norms(model), torch.no_grad():
            model.train()(torch.cat(list(sample(SETTLED_ON))))
    return Counted(
        model.eval(),
        sample,
        num_classes=arguments["num_classes"],
        about_images=about_images(channels, folder),
        about_weights=RANDOM if weights is None else weights.name,
    )


@contextmanager
def wrong_requests(name: str) -> Iterator[None]:
    """Turn a refusal of the backbone, such as of an image size, into the user's error."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
