from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from spikebench.errors import UserError
from spikebench_tasks.datasets import digit_scenes
from spikebench_tasks.datasets.digit_scenes import (
    COUNTS,
    DIGIT_SIZE,
    DIGITS_PER_SCENE,
    SIZE,
    DatasetError,
    compose_scene,
    ensure_digit_scenes,
)
from spikebench_tasks.datasets.digits import Glyphs, load_glyphs
from tests import forkserver

SPLITS = ("train", "test")


# of NumPy 2 in pycocotools' mask module
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture(scope="module")
def coco(scenes: Path) -> dict[str, COCO]:
    with contextlib.redirect_stdout(io.StringIO()):
        return {s: COCO(str(scenes / "annotations" / f"instances_{s}.json")) for s in SPLITS}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make few scenes, so that making them takes no time."""
    monkeypatch.setattr(digit_scenes, "COUNTS", {"train": 3, "test": 2})


@pytest.fixture
def copy(few, tmp_path: Path) -> Path:
    """A data root that a test may break."""
    ensure_digit_scenes(tmp_path / "data")
    return tmp_path / "data"


class TestWhatIsMade:
    def test_all_files_are_there(self, scenes: Path):
        for split, count in COUNTS.items():
            names = [f"{index:04d}.png" for index in range(count)]
            assert sorted(path.name for path in (scenes / "images" / split).iterdir()) == names
            assert sorted(path.name for path in (scenes / "labels" / split).iterdir()) == names
        listed = json.loads((scenes / "manifest.json").read_text())["files"]
        on_disk = {p.relative_to(scenes).as_posix() for p in scenes.rglob("*") if p.is_file()}
        assert set(listed) | {"manifest.json"} == on_disk
        assert sorted(path.name for path in scenes.parent.iterdir()) == ["digit_scenes"]
        assert scenes.stat().st_mode & 0o777 == 0o755

    def test_making_it_twice_gives_the_same_bytes(self, scenes: Path, tmp_path: Path):
        """In another process, whose hashes and libraries start afresh."""
        code = (
            "import sys; from pathlib import Path;"
            "from spikebench_tasks.datasets.digit_scenes import ensure_digit_scenes as make;"
            "make(Path(sys.argv[1]))"
        )
        env = {**os.environ, "PYTHONHASHSEED": "1"}
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=env)
        manifest = (tmp_path / "digit_scenes" / "manifest.json").read_text()
        assert manifest == (scenes / "manifest.json").read_text()

    def test_it_is_made_once(self, copy: Path):
        folder = copy / "digit_scenes"
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert ensure_digit_scenes(copy) == folder
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    @pytest.mark.parametrize("split", SPLITS)
    def test_a_scene_holds_glyphs_of_its_split_only(
        self, monkeypatch: pytest.MonkeyPatch, split: str
    ):
        """The glyphs of the other split are taken away: composing does not miss them."""
        allowed = load_glyphs(split)
        before = [compose_scene(split, index) for index in range(3)]

        def only(asked: str) -> Glyphs:
            assert asked == split
            return allowed

        monkeypatch.setattr(digit_scenes, "load_glyphs", only)
        for index, (image, _) in enumerate(before):
            np.testing.assert_array_equal(compose_scene(split, index)[0], image)

    def test_the_splits_have_no_scene_in_common(self, scenes: Path):
        train, test = (
            {path.read_bytes() for path in (scenes / "images" / split).iterdir()}
            for split in SPLITS
        )
        assert len(train) == COUNTS["train"]
        assert len(test) == COUNTS["test"]
        assert not train & test


@pytest.mark.parametrize("split", SPLITS)
class TestAnnotations:
    def test_images_and_categories_are_named(self, coco, scenes: Path, split: str):
        api = coco[split]
        assert len(api.imgs) == COUNTS[split]
        for image in api.imgs.values():
            with Image.open(scenes / "images" / split / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"]) == (SIZE, SIZE)
                assert picture.mode == "L"
        assert {one["id"]: one["name"] for one in api.dataset["categories"]} == {
            digit + 1: str(digit) for digit in range(10)
        }
        identities = [one["id"] for one in api.dataset["annotations"]]
        assert identities == list(range(1, len(identities) + 1))  # 0 would be no match in COCO

    def test_boxes_are_tight_and_areas_are_those_of_masks(self, coco, split: str):
        for one in coco[split].dataset["annotations"]:
            mask = coco[split].annToMask(one).astype(bool)
            assert mask.shape == (SIZE, SIZE)
            assert one["area"] == mask.sum()
            assert one["iscrowd"] == 0
            x, y, width, height = one["bbox"]
            inside = mask[y : y + height, x : x + width]
            assert inside.sum() == mask.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()

    def test_masks_do_not_overlap_and_agree_with_the_label_map(
        self, coco, scenes: Path, split: str
    ):
        api = coco[split]
        for image in api.imgs.values():
            annotations = api.imgToAnns[image["id"]]
            masks = [coco_mask.decode(one["segmentation"]) for one in annotations]
            assert np.sum(masks, axis=0).max() == 1
            expected = sum(
                one["category_id"] * mask for one, mask in zip(annotations, masks, strict=True)
            )
            with Image.open(scenes / "labels" / split / image["file_name"]) as label_map:
                np.testing.assert_array_equal(np.asarray(label_map), expected)

    def test_every_class_and_number_of_digits_occurs(self, coco, split: str):
        api = coco[split]
        classes = Counter(one["category_id"] for one in api.dataset["annotations"])
        assert set(classes) == set(range(1, 11))
        assert max(classes.values()) < 2.5 * min(classes.values())
        numbers = Counter(len(api.imgToAnns[image]) for image in api.imgs)
        assert set(numbers) == set(range(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1))

    def test_digits_vary_in_size_and_some_overlap(self, coco, split: str):
        heights = [one["bbox"][3] for one in coco[split].dataset["annotations"]]
        assert min(heights) < DIGIT_SIZE[0] + 4
        assert DIGIT_SIZE[1] - 4 < max(heights) <= DIGIT_SIZE[1]
        covered = sum(share < 1 for share in visible_shares(split, 40))
        assert covered >= 8


def visible_shares(split: str, scenes: int) -> list[float]:
    """The visible share of each digit, from the masks as they were before others covered them."""
    shares = []
    place = digit_scenes._place
    for index in range(scenes):
        drawn: list[np.ndarray] = []

        def keep(*arguments, drawn=drawn):
            drawn.append(place(*arguments))
            return drawn[-1]

        digit_scenes._place = keep
        try:
            _, instances = compose_scene(split, index)
        finally:
            digit_scenes._place = place
        whole = [alpha > digit_scenes._INK for alpha in drawn]
        for _, mask in instances:
            own = [one for one in whole if (one & mask).sum() == mask.sum()]
            shares.append(max(mask.sum() / one.sum() for one in own))
    return shares


def test_most_of_every_digit_is_visible():
    shares = visible_shares("train", 40)
    assert min(shares) >= 0.6
    assert np.mean(shares) > 0.9


def test_digits_stand_out_from_the_background(scenes: Path):
    inside, outside = [], []
    for path in sorted((scenes / "images" / "test").iterdir()):
        image = np.asarray(Image.open(path))
        labels = np.asarray(Image.open(scenes / "labels" / "test" / path.name))
        inside.append(image[labels > 0].mean())
        outside.append(image[labels == 0].mean())
    assert np.mean(inside) - np.mean(outside) > 50
    assert 60 < np.mean(outside) < 110  # what the configurations normalise with is 90


class TestWhatIsBroken:
    def error(self, root: Path) -> str:
        with pytest.raises(DatasetError) as caught:
            ensure_digit_scenes(root)
        assert isinstance(caught.value, UserError)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def remedy(self, root: Path) -> str:
        return f"delete {root / 'digit_scenes'} to have it made again"

    @pytest.mark.parametrize(
        "name", ["images/test/0001.png", "labels/train/0002.png", "annotations/instances_test.json"]
    )
    def test_a_missing_truncated_or_changed_file_is_named(self, copy: Path, name: str):
        path = copy / "digit_scenes" / name
        content = path.read_bytes()
        path.unlink()
        assert self.error(copy) == f"{path} is missing; {self.remedy(copy)}"
        for wrong in (b"", content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
            path.write_bytes(wrong)
            assert self.error(copy) == (
                f"{path} is corrupt (its SHA-256 differs); {self.remedy(copy)}"
            )
        path.write_bytes(content)
        ensure_digit_scenes(copy)

    @pytest.mark.parametrize(
        "text",
        ["", '{"version": 1', "[]", "null", '{"version": 1}', '{"files": 3, "version": 1}', "\xff"],
    )
    def test_a_manifest_that_is_none_is_named(self, copy: Path, text: str):
        path = copy / "digit_scenes" / "manifest.json"
        path.write_text(text, encoding="latin-1")
        assert self.error(copy) == f"{path} cannot be read; {self.remedy(copy)}"

    def test_a_missing_manifest_is_named(self, copy: Path):
        path = copy / "digit_scenes" / "manifest.json"
        path.unlink()
        assert self.error(copy) == f"{path} cannot be read; {self.remedy(copy)}"

    def test_another_version_is_said(self, copy: Path):
        path = copy / "digit_scenes" / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))
        assert self.error(copy) == (
            f"{copy / 'digit_scenes'} holds version 0, expected 1; {self.remedy(copy)}"
        )

    def test_what_the_remedy_says_helps(self, copy: Path):
        (copy / "digit_scenes" / "images" / "test" / "0000.png").write_bytes(b"")
        self.error(copy)
        shutil.rmtree(copy / "digit_scenes")
        ensure_digit_scenes(copy)

    def test_a_root_that_cannot_be_written_is_named(self, few, tmp_path: Path):
        (tmp_path / "file").write_text("")
        root = tmp_path / "file" / "data"
        message = self.error(root)
        assert message.startswith(f"{root / 'digit_scenes'} cannot be written (Not a directory")
        assert message.endswith("choose another --data-root")

    def test_a_full_disk_is_said_and_leaves_nothing(
        self, few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        assert "cannot be written (No space left on device)" in self.error(tmp_path / "data")
        assert list((tmp_path / "data").iterdir()) == []

    def test_an_interruption_leaves_nothing(
        self, few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ensure_digit_scenes(tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestTwoAtOnce:
    def test_both_end_with_one_whole_copy(self, tmp_path: Path):
        code = (
            "import sys; from pathlib import Path;"
            "from spikebench_tasks.datasets import digit_scenes as d;"
            "d.COUNTS = {'train': 20, 'test': 5}; d.load_glyphs('train'); d.load_glyphs('test');"
            "print('ready', flush=True); sys.stdin.readline();"
            "print(d.ensure_digit_scenes(Path(sys.argv[1])))"
        )
        both = [
            forkserver.Popen(
                [sys.executable, "-c", code, str(tmp_path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for one in both:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in both:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        for one in both:
            out, _ = one.communicate(timeout=60)
            assert one.returncode == 0
            assert out.strip() == str(tmp_path / "digit_scenes")
        assert [path.name for path in tmp_path.iterdir()] == ["digit_scenes"]

    def test_the_second_takes_what_the_first_made(
        self, few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The other process finishes at the worst moment: just before this one renames."""
        rename = os.rename

        def other_first(source, target):
            shutil.copytree(source, target)
            rename(source, target)

        monkeypatch.setattr(os, "rename", other_first)
        ensure_digit_scenes(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["digit_scenes"]
