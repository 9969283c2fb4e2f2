"""LightningCLI of classification (`pip install 'spikebench[cli]'`).

    python -m spikebench_tasks.classification fit --data DigitsDataModule \
        --model.backbone meta_spikeformer_nano --trainer.max_epochs 1

`num_classes` follows from the data, and event frames have the model's `time_steps`.
`--print_config` writes all arguments as the YAML that `--config` reads.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spikebench.registry import DATASETS, PluginError

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

log = logging.getLogger("spikebench")


def main(arguments: Sequence[str] | None = None, run: bool = True) -> LightningCLI:
    """Build module, data and Trainer from arguments, and run what these ask for.

    Args:
        arguments: None takes the command line's.
        run: False builds only; the arguments then lack the subcommand, such as `fit`.
    """
    if importlib.util.find_spec("jsonargparse") is None:
        raise SystemExit("LightningCLI needs jsonargparse; pip install 'spikebench[cli]'")
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    from spikebench_tasks.classification.datamodule import DataModule
    from spikebench_tasks.classification.module import ClassificationModule

    class ClassificationCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
            parser.link_arguments("model.time_steps", "data.init_args.time_steps")

    for name in DATASETS.names():  # --data finds the classes that are imported
        try:
            DATASETS.get(name)
        except PluginError as error:
            log.warning("%s", error)
    return ClassificationCLI(
        ClassificationModule,
        DataModule,
        subclass_mode_data=True,
        run=run,
        args=None if arguments is None else list(arguments),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
