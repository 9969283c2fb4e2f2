"""The `spikebench` command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import logging
import sys

from spikebench.cli import (  # noqa: F401  each adds its verbs
    audit,
    backbones,
    data,
    doctor,
    evaluate,
    profile,
    reproduce,
    runs,
    speed,
)
from spikebench.cli.app import app
from spikebench.errors import UserError
from spikebench.process import settle_process

__all__ = ["app", "main"]


def main() -> None:
    """Run the command; a wrong request becomes one line and a non-zero exit."""
    settle_process()
    logger = logging.getLogger("spikebench")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        app()
    except (UserError, OSError) as error:  # the latter: a file or folder that cannot be written
        sys.exit(f"error: {' '.join(str(error).split())}")
