"""A spiking detector learns one batch of real images by heart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spikebench.task import Run
from tests.tasks.small import CONFIGS, NANO, resolved

IMAGES = [0, 2, 3, 4]  # their objects are still to be seen at this size
STEPS = 600
WIDTH = 64
SPLIT = "annotations/instances_train2017.json"
SCHEDULE = [
    {"type": "LinearLR", "start_factor": 0.05, "by_epoch": False, "begin": 0, "end": 100},
    {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 0, "end": STEPS, "eta_min": 1e-5},
]
ONE_BATCH = (
    f"train_dataloader.batch_size={len(IMAGES)}",
    "train_dataloader.batch_sampler=None",  # it would part tall images from wide ones
    f"test_dataloader.dataset.ann_file={SPLIT}",
    "test_dataloader.dataset.data_prefix.img=train2017/",
    f"test_evaluator.ann_file=data/coco/{SPLIT}",
    *(f"+{split}_dataloader.dataset.indices={IMAGES}" for split in ("train", "test")),
    *(f"{split}_dataloader.num_workers=0" for split in ("train", "test")),
    *(f"{split}_dataloader.persistent_workers=False" for split in ("train", "test")),
    *(
        f"{where}.scale=(256, 256)"
        for where in ("train_dataloader.dataset.pipeline.2", "test_dataloader.dataset.pipeline.1")
    ),
    "train_dataloader.dataset.pipeline.3.prob=0.0",
)
FROM_SCRATCH = (
    f"train_cfg.max_epochs={STEPS}",
    f"default_hooks.checkpoint.interval={STEPS}",
    f"param_scheduler={json.dumps(SCHEDULE)}",
    "optim_wrapper.optimizer.lr=1e-3",
    '+model.neck.norm_cfg={"type": "BN"}',
    *(
        f"+model.{part}.initial_current=2.0"
        for part in ("neck", "rpn_head", "roi_head.bbox_head", "roi_head.mask_head")
    ),
)
NARROW = (
    "model.roi_head.bbox_head.fc_out_channels=256",
    "model.train_cfg.rpn.sampler.num=64",
    "model.train_cfg.rpn_proposal.max_per_img=200",
    "model.train_cfg.rcnn.sampler.num=64",
    *(
        f"model.{key}={WIDTH}"
        for key in (
            "neck.out_channels",
            "rpn_head.in_channels",
            "rpn_head.feat_channels",
            "roi_head.bbox_roi_extractor.out_channels",
            "roi_head.bbox_head.in_channels",
            "roi_head.mask_roi_extractor.out_channels",
            "roi_head.mask_head.in_channels",
            "roi_head.mask_head.conv_out_channels",
        )
    ),
)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
def test_one_batch_of_coco(samples: Path, make_run: Callable[..., Run]):
    """Mask R-CNN with spiking neck and heads, stock data set, loss and schedule of steps alone."""
    path = CONFIGS / "detection" / "mask_rcnn_15m_t1_coco.py"
    task, config = resolved(path, *ONE_BATCH, *FROM_SCRATCH, *NARROW, backbone=NANO)
    run = make_run("detection", config, limit=None)
    checkpoint = task.train(run)
    metrics, dataset, *_ = task.evaluate(run, checkpoint)
    print("OVERFIT", metrics, flush=True)
    assert dataset.test_samples == dataset.train_samples == len(IMAGES)
    assert metrics["box_map50"] > 0.9, metrics
