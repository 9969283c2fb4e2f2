from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from spikebench_tasks.openmmlab.checks.images import (
    NOTHING_LABELLED,
    LabelRange,
    Listed,
    check_images,
)

RANGE = LabelRange(3)


def encoded(kind: str, size: tuple[int, int] = (40, 24), **options) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


CONTENT = {
    "jpg": encoded("JPEG"),
    "progressive.jpg": encoded("JPEG", progressive=True),
    "png": encoded("PNG"),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    path.write_bytes(CONTENT["jpg"])
    return path


def errors(*listed: Listed, labels: LabelRange | None = RANGE, turn: bool = True) -> list[str]:
    return check_images(listed, labels, "images", turn).errors


def mapped(path: Path, values, mode: str | None = None) -> str:
    Image.fromarray(np.asarray(values), mode).save(path)
    return str(path)


class TestImages:
    def test_whole_ones_pass(self, tmp_path: Path):
        listed = []
        for name, content in CONTENT.items():
            path = tmp_path / f"x.{name}"
            path.write_bytes(content)
            listed.append(Listed(str(path), size=(40, 24)))
        assert errors(*listed) == []

    def test_a_missing_one(self, tmp_path: Path):
        assert errors(Listed(f"{tmp_path}/a.jpg", " (image 7)")) == [
            f"{tmp_path}/a.jpg (image 7) is missing"
        ]

    def test_one_of_no_bytes(self, image: Path):
        image.write_bytes(b"")
        assert errors(Listed(str(image))) == [f"{image} is empty (0 bytes); get it again"]

    def test_one_that_is_none(self, image: Path):
        image.write_text("<html>not found</html>")
        assert errors(Listed(str(image), " (image 7)")) == [
            f"{image} (image 7) is no image, or its header is corrupt; get it again"
        ]

    @pytest.mark.parametrize("kind", CONTENT)
    def test_a_truncated_one(self, image: Path, kind: str):
        image.write_bytes(CONTENT[kind][: len(CONTENT[kind]) * 2 // 3])
        (line,) = errors(Listed(str(image)))
        assert line.startswith(str(image))
        assert "truncated" in line

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(kind=st.sampled_from(sorted(CONTENT)), data=st.data())
    def test_garbage_is_an_error_or_still_an_image(self, tmp_path: Path, kind: str, data):
        content = bytearray(CONTENT[kind])
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path / "garbled"
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        for listed in (Listed(str(path)), Listed(str(path), labels=str(path))):
            found = errors(listed)
            assert len(found) <= 1
            assert all(line.startswith(str(path)) and "\n" not in line for line in found)

    @pytest.mark.parametrize("kind", CONTENT)
    def test_no_byte_may_be_lost_before_the_last_pixels(self, tmp_path: Path, kind: str):
        path = tmp_path / "cut"
        whole = CONTENT[kind]
        for kept in range(0, len(whole) - 40, 11):
            path.write_bytes(whole[:kept])
            assert len(errors(Listed(str(path)))) == 1, kept

    def test_one_of_another_size(self, image: Path):
        assert errors(Listed(str(image), " (image 7)", (24, 40))) == [
            f"{image} (image 7) is 40x24 pixels, but its annotations are for 24x40 pixels; mend "
            "its width and height there, or get the image again"
        ]

    def test_one_that_is_turned_when_it_is_loaded(self, image: Path):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        image.write_bytes(encoded("JPEG", exif=exif))
        turned, lying = Listed(str(image), size=(24, 40)), Listed(str(image), size=(40, 24))
        assert errors(turned) == []
        assert errors(lying, turn=False) == []
        assert len(errors(lying)) == len(errors(turned, turn=False)) == 1

    def test_corrupt_exif_data_turn_nothing(self, image: Path):
        image.write_bytes(encoded("JPEG", exif=b"Exif\0\0garbage"))
        assert errors(Listed(str(image), size=(40, 24))) == []

    def test_order_is_that_of_the_list_however_many_there_are(self, tmp_path: Path, image: Path):
        names = [f"{tmp_path}/{index}.jpg" for index in range(300)]
        listed = [Listed(name if index % 3 else str(image)) for index, name in enumerate(names)]
        expected = [f"{name} is missing" for index, name in enumerate(names) if index % 3]
        assert errors(*listed) == expected

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_one_that_may_not_be_read(self, image: Path):
        image.chmod(0)
        assert errors(Listed(str(image))) == [
            f"{image} cannot be decoded (Permission denied); get it again"
        ]


class TestLabelMaps:
    def error(self, image: Path, path: str, labels: LabelRange | None = RANGE) -> str:
        (line,) = errors(Listed(str(image), labels=path), labels=labels)
        return line

    def zeros(self) -> np.ndarray:
        return np.zeros((24, 40), dtype=np.uint8)

    @pytest.mark.parametrize(
        ("labels", "values"),
        [
            (RANGE, [0, 2, 255]),
            (LabelRange(3, zero_is_none=True), [0, 1, 3, 255]),
            (LabelRange(3, ignored=9), [0, 2, 9]),
            (None, [0, 77]),
        ],
    )
    def test_labels_in_range_pass(self, image: Path, tmp_path: Path, labels, values):
        array = self.zeros()
        array[: len(values), 0] = values
        assert (
            errors(Listed(str(image), labels=mapped(tmp_path / "m.png", array)), labels=labels)
            == []
        )

    @pytest.mark.parametrize(
        ("labels", "wrong", "expected"),
        [
            (RANGE, [3], "label 3; expected 0 to 2 (3 classes), or 255 where"),
            (RANGE, [254, 7], "label 7 and 1 more that are out of range; expected 0 to 2"),
            (
                LabelRange(3, zero_is_none=True),
                [4],
                "label 4; expected 0 to 3 (3 classes; 0 is no class), or 255 where",
            ),
            (LabelRange(3, ignored=9), [255], "label 255; expected 0 to 2 (3 classes), or 9 where"),
        ],
    )
    def test_one_pixel_out_of_range(self, image: Path, tmp_path: Path, labels, wrong, expected):
        array = self.zeros()
        array[-1, -len(wrong) :] = wrong
        path = mapped(tmp_path / "m.png", array)
        assert self.error(image, path, labels).startswith(f"{path} holds {expected}")

    def test_a_wide_label_is_not_taken_for_its_low_byte(self, image: Path, tmp_path: Path):
        array = self.zeros().astype(np.uint16)
        array[0, 0] = 256
        path = mapped(tmp_path / "m.png", array)
        assert self.error(image, path).startswith(f"{path} holds label 256")

    def test_a_palette_is_of_labels_and_colours_are_not(self, image: Path, tmp_path: Path):
        path = tmp_path / "m.png"
        labels = Image.fromarray(self.zeros() + 1)
        labels.putpalette([200] * 768)
        assert labels.mode == "P"
        labels.save(path)
        assert errors(Listed(str(image), labels=str(path))) == []
        labels.convert("RGB").save(path)
        assert self.error(image, str(path)) == (
            f"{path} is a picture of colours (mode RGB); expected one channel of class numbers"
        )

    def test_a_missing_one(self, image: Path, tmp_path: Path):
        path = f"{tmp_path}/m.png"
        assert self.error(image, path) == f"{path} is missing, the label map of {image}"

    def test_one_of_another_size(self, image: Path, tmp_path: Path):
        path = mapped(tmp_path / "m.png", self.zeros().T)
        assert self.error(image, path) == (
            f"{path} is 24x40 pixels, but its image image.jpg is 40x24 pixels"
        )

    def test_a_truncated_one(self, image: Path, tmp_path: Path):
        path = tmp_path / "m.png"
        path.write_bytes(CONTENT["png"][:-100])
        assert self.error(image, str(path)).startswith(str(path))

    @pytest.mark.parametrize(
        ("labels", "value", "counted"),
        [
            (RANGE, 255, 1),
            (RANGE, 0, 0),
            (LabelRange(3, zero_is_none=True), 0, 1),
            (LabelRange(3, zero_is_none=True), 1, 0),
        ],
    )
    def test_one_with_nothing_to_learn_is_counted(
        self, image: Path, tmp_path: Path, labels, value: int, counted: int
    ):
        path = mapped(tmp_path / "m.png", self.zeros() + np.uint8(value))
        found = check_images([Listed(str(image), labels=path)], labels, "images")
        assert found.errors == []
        assert found.skips[NOTHING_LABELLED] == counted
