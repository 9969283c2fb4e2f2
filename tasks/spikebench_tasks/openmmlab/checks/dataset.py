"""Checks of one data set: its files, and whether model and metrics fit it."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import ParseError

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, METRICS, Registry

from spikebench.datacheck import SplitCheck
from spikebench.errors import UserError
from spikebench.task import MissingDataError
from spikebench_tasks.openmmlab.checks.cache import Memory
from spikebench_tasks.openmmlab.checks.coco import Reading, check_coco
from spikebench_tasks.openmmlab.checks.images import LabelRange, Listed, check_images
from spikebench_tasks.openmmlab.checks.instances import check_instances
from spikebench_tasks.openmmlab.data import dataset_info, require, require_files


class DataSet(NamedTuple):
    """A data set of a configuration, with the parts of the configuration that have to fit it.

    Attributes:
        split: how it is called on screen.
        key: where it stands in the configuration.
        described: its configuration, located, less wrappers.
        trained: whether it is trained on; else it is scored.
        heads: how many classes each head has, by the place where the configuration says so.
        evaluators: what scores it, by place.
        data_root: the folder that holds one folder per data set.
    """

    split: str
    key: str
    described: Mapping[str, Any]
    trained: bool
    heads: Mapping[str, int]
    evaluators: Mapping[str, Mapping[str, Any]]
    data_root: Path


def check_dataset(given: DataSet, cached: bool) -> SplitCheck:
    """Check a data set; with `cached`, one that passed before passes without being read."""
    check = SplitCheck(given.split)
    typed = [(given.key, given.described, DATASETS)]
    typed += [(place, each, METRICS) for place, each in given.evaluators.items()]
    check.errors.extend(
        f"{place}.type is {each.get('type')!r}, which is not registered; import what registers it "
        "in custom_imports"
        for place, each, registry in typed
        if _registered(registry, each.get("type")) is None
    )
    if check.errors:
        return check
    kind = _registered(DATASETS, given.described["type"])
    if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
        check.skips[f"data set of {given.described['type']}, no data set of MMEngine's"] = 1
        return check
    try:
        require_files(given.described, given.key, given.data_root)
        for place, path in _scored_files(given):
            require(path, place, given.data_root)
        dataset = DATASETS.build({**given.described, "pipeline": [], "lazy_init": True})
    except UserError as error:
        check.missing = isinstance(error, MissingDataError)
        check.errors.append(str(error))
        return check
    except (TypeError, ValueError, AssertionError, OSError) as error:
        check.errors.append(f"{given.key} cannot be built: {_said(error)}")
        return check
    memory = Memory.of(_what_matters(given), dataset)
    passed = memory.recall() if cached else None
    if passed is not None:
        return passed
    check.dataset = dataset_info(dataset)[0]
    check.errors.extend(_mismatches(given, dataset, check))
    _look_through(given, dataset, check)
    if not check.errors:
        memory.keep(check)
    return check


def _registered(registry: Registry, name: Any) -> Any:
    """The entry of a registry in the scope of the configuration; None if there is none."""
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name) if isinstance(name, str) else name


def _look_through(given: DataSet, dataset: Any, check: SplitCheck) -> None:
    """Count what a data set lists, and check every file."""
    labels, skips = None, Counter[str]()
    if _reads_coco(dataset):
        if "img" not in dataset.data_prefix:
            check.errors.append(f"{given.key}.data_prefix names no img, the folder of images")
            return
        found = check_coco(Path(dataset.ann_file), _reading(given, dataset))
        listed, check.annotations, skips = found.images, found.annotations, found.skips
        check.errors.extend(found.errors)
    else:
        try:
            entries = _entries(dataset)
            classes = dataset.metainfo.get("classes") or ()
            wrong, ignored = check_instances(entries, classes, _names_classes(given))
        except (
            AssertionError,
            AttributeError,
            LookupError,
            OSError,
            ParseError,
            ValueError,
        ) as error:
            check.errors.append(f"{given.key} cannot be listed: {_said(error)}")
            return
        left_out = len(dataset.data_list) - len(entries)
        if left_out:
            skips["images that filter_cfg leaves out"] = left_out
        listed = [_listed(entry) for entry in entries]
        if hasattr(dataset, "reduce_zero_label"):
            labels = _label_range(dataset)
            check.annotations = sum(one.labels is not None for one in listed)
            check.errors.extend(_wrong_list(given, listed))
        else:
            check.annotations = sum(len(entry.get("instances", ())) for entry in entries)
            check.errors.extend(wrong)
            skips += ignored
    check.skips = dict(skips)
    listed = _chosen(listed, dataset._indices)
    if not listed and not check.errors:
        check.errors.append(
            f"{given.key} has no image left; {check.skipped or 'its list is empty'}"
        )
    check.images = len(listed)
    turn = not any("orientation" in (one.get("color_type") or "") for one in _loaders(given))
    images = check_images(listed, labels, f"{given.split} data", turn)
    check.errors.extend(images.errors)
    check.skips = dict(skips + images.skips)


def _mismatches(given: DataSet, dataset: Any, check: SplitCheck) -> Iterator[str]:
    """Yield disagreements: classes of data set and heads, files of data set and metrics."""
    classes = dataset.metainfo.get("classes") or ()
    check.classes = len(classes)
    if not classes:
        yield f"{given.key} names no classes; set its metainfo.classes"
    for place, count in given.heads.items():
        if classes and count != len(classes):
            yield f"{given.key} has {len(classes)} classes, but {place} is {count}; make them equal"
    for place, path in _scored_files(given):
        if dataset.ann_file and path.resolve() != Path(dataset.ann_file).resolve():
            yield f"{place} is {path}, but {given.key} lists {dataset.ann_file}; make them the same"
    listed = getattr(dataset, "reduce_zero_label", None)
    for step in _loaders(given):
        read = step.get("reduce_zero_label")
        if None not in (read, listed) and read != listed:
            yield (
                f"LoadAnnotations of {given.key} has reduce_zero_label={read}, but the data set "
                f"has {listed}; make them equal"
            )


def _scored_files(given: DataSet) -> Iterator[tuple[str, Path]]:
    for place, evaluator in given.evaluators.items():
        if isinstance(evaluator.get("ann_file"), str):
            yield f"{place}.ann_file", Path(evaluator["ann_file"])


def _reads_coco(dataset: Any) -> bool:
    """Whether a data set reads its file as CocoDataset does; subclasses may not."""
    read = {"load_data_list", "parse_data_info"}
    owners = {next((c for c in type(dataset).__mro__ if name in vars(c)), object) for name in read}
    return {owner.__name__ for owner in owners} == {"CocoDataset"}


def _names_classes(given: DataSet) -> bool:
    return "classes" in (given.described.get("metainfo") or {})


def _reading(given: DataSet, dataset: Any) -> Reading:
    filters = {} if dataset.test_mode else dataset.filter_cfg or {}
    steps = _loaders(given)
    reads = (
        "LoadAnnotations with with_mask=True" if any(s.get("with_mask") for s in steps) else None
    )
    scores = "scoring masks" if any(map(_scores_masks, given.evaluators.values())) else None
    return Reading(
        classes=dataset.metainfo.get("classes") or (),
        named=_names_classes(given),
        images=Path(dataset.data_prefix["img"]),
        masks=reads or scores,
        polygons_only=bool(reads) and not all(step.get("poly2mask", True) for step in steps),
        without_empty=bool(filters.get("filter_empty_gt")),
        without_crowds=type(dataset).__name__ == "CityscapesDataset" and not dataset.test_mode,
        smallest=filters.get("min_size", 0),
        scored=not given.trained,
    )


def _scores_masks(evaluator: Mapping[str, Any]) -> bool:
    metric = evaluator.get("metric")
    if metric is None:
        default = inspect.signature(_registered(METRICS, evaluator["type"])).parameters.get(
            "metric"
        )
        metric = default.default if default else ()
    return "segm" in ([metric] if isinstance(metric, str) else metric)


def _loaders(given: DataSet) -> list[Mapping[str, Any]]:
    """The steps of a pipeline, at any depth, that load images and annotations."""

    def steps(node: Any) -> Iterator[Mapping[str, Any]]:
        if isinstance(node, Mapping):
            if str(node.get("type")).rpartition(".")[2].startswith("Load"):
                yield node
            node = list(node.values())
        for each in node if isinstance(node, list | tuple) else ():
            yield from steps(each)

    return list(steps(given.described.get("pipeline")))


def _entries(dataset: Any) -> list[dict[str, Any]]:
    dataset.data_list = dataset.load_data_list()
    return dataset.filter_data()


def _listed(entry: Mapping[str, Any]) -> Listed:
    known = entry.get("width") and entry.get("height")
    return Listed(
        path=entry["img_path"],
        size=(int(entry["width"]), int(entry["height"])) if known else None,
        labels=entry.get("seg_map_path"),
    )


def _wrong_list(given: DataSet, listed: Sequence[Listed]) -> Iterator[str]:
    """Yield what is wrong with a list of images with label maps, before any is read."""
    if any(one.labels is None for one in listed):
        yield f"{given.key} has no label maps; set its data_prefix.seg_map_path"
    for path, count in Counter(one.path for one in listed).items():
        if count > 1:
            yield f"{given.described.get('ann_file')} lists {path} {count} times"


def _label_range(dataset: Any) -> LabelRange | None:
    """The labels that maps may hold, which are those before classes are chosen among them."""
    chosen = dataset.label_map is not None
    classes = type(dataset).METAINFO["classes"] if chosen else dataset.metainfo.get("classes")
    if not classes:
        return None
    return LabelRange(len(classes), dataset.reduce_zero_label, dataset.ignore_index)


def _chosen(listed: list[Listed], indices: int | Sequence[int] | None) -> list[Listed]:
    """The images that a data set with `indices` keeps."""
    if indices is None:
        return listed
    if isinstance(indices, int):
        return listed[:indices] if indices >= 0 else listed[indices:]
    return [listed[index] for index in indices]


def _what_matters(given: DataSet) -> dict[str, Any]:
    """The part of the configuration that decides the result."""
    described = {key: value for key, value in given.described.items() if key != "pipeline"}
    kept = {key: value for key, value in given._asdict().items() if key != "data_root"}
    return {**kept, "described": described, "steps": _loaders(given)}


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
