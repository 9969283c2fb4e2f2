"""A task of its own: how far stripes are turned, by a linear readout of the last map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikebench.results import BackboneInfo, DatasetInfo
from spikebench.task import Evaluation, MetricSpec, Probe, Run, Task
from spikebench_tasks.config import load_config


class TurnTask(Task):
    """0 or 90 degrees, as a number; its configuration is a JSON file with `steps` and `lr`."""

    title = "Turn"
    metrics = {"error": MetricSpec("error", unit="degrees", higher_is_better=False)}

    def resolve(
        self,
        config: Path,
        backbone: str | None,
        arguments: Mapping[str, Any],
        overrides: Sequence[str],
    ) -> dict[str, Any]:
        """Read the file."""
        found = load_config(config, overrides)
        return {**found, "backbone": backbone, "arguments": dict(arguments)}

    def checkpoints(self, folder: Path) -> list[Path]:
        """The one that training ends with."""
        return sorted(folder.glob("last.pth"))

    def train(self, run: Run) -> Path:
        """A few steps on all images."""
        import torch

        from spikebench_tiny.stripes import draw

        torch.manual_seed(run.seed)
        model = self._model(run)
        images, labels = draw("train", limit=run.limit)
        optimizer = torch.optim.Adam(model.parameters(), run.config["lr"])
        for _ in range(run.config["steps"]):
            optimizer.zero_grad()
            (model(images).squeeze(1) - labels.float()).square().mean().backward()
            optimizer.step()
        torch.save(model.state_dict(), run.folder / "last.pth")
        return run.folder / "last.pth"

    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        """The mean error in degrees."""
        import torch

        from spikebench_tiny.stripes import draw

        images, labels = draw("test", limit=run.limit)
        with torch.no_grad():
            turns = self._trained(run, checkpoint)(images).squeeze(1)
        error = 90 * float((turns - labels).abs().mean())
        train, test = len(draw("train", limit=run.limit)[0]), len(images)
        dataset = DatasetInfo(name="stripes", split="test", train_samples=train, test_samples=test)
        return Evaluation({"error": error}, dataset)

    def probe(self, run: Run, checkpoint: Path) -> Probe:
        """The trained model on test images."""
        from spikebench_tiny.stripes import draw

        model = self._trained(run, checkpoint)
        backbone = BackboneInfo(
            name=run.backbone,
            arguments=run.config["arguments"],
            time_steps=model.backbone.time_steps,
            parameters=sum(weight.numel() for weight in model.backbone.parameters()),
        )
        batches = draw("test", limit=run.limit)[0].split(8)
        return Probe(model, batches, lambda model, batch: model(batch), backbone)

    def _model(self, run: Run) -> Any:
        from spikebench import build_classifier

        return build_classifier(run.backbone, 1, **run.config["arguments"])

    def _trained(self, run: Run, checkpoint: Path) -> Any:
        import torch

        model = self._model(run)
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
        return model.eval()
