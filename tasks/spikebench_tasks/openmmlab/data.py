"""Where the data of an MMEngine configuration are, and what its data sets are called.

Configurations name files below `data/`, as those of MMDetection and MMSegmentation do. A run looks
for them below its data root instead; its record keeps the names as written.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from mmengine.registry import DATASETS, DefaultScope, Registry
from mmengine.utils import import_modules_from_strings

from spikebench.task import ConfigError, MissingDataError
from spikebench_tasks.datasets.published import missing, published_at

SPLITS = ("train", "val", "test")
_BELOW = "data"
_RELATIVE_TO_ROOT = {"ann_file", "data_prefix", "proposal_file"}


def located(config: Mapping[str, Any], data_root: Path) -> dict[str, Any]:
    """A copy in which what data loaders and evaluators name below `data/` is below `data_root`.

    Any text there whose first component is `data` is such a name: `data_root`, an evaluator's
    `ann_file`, in wrapped data sets and in lists too. What MMEngine joins to a `data_root` stays.
    A data set whose constructor takes a `root`, as those that make their own files, gets
    `data_root` as it. Import what registers data sets first (`import_custom`).
    """
    root = data_root.absolute()
    named = {f"{split}_{part}" for split in SPLITS for part in ("dataloader", "evaluator")}
    named.add("tta_pipeline")
    moved = {
        key: _moved(value, root) if key in named else value for key, value in dict(config).items()
    }
    scope = config.get("default_scope")
    with DefaultScope.overwrite_default_scope(scope) if scope else nullcontext():
        for split in SPLITS:
            loader = moved.get(f"{split}_dataloader") or {}
            for _, described in leaves(loader.get("dataset") or ()):
                if "root" in constructor_arguments(DATASETS, described.get("type")):
                    described.setdefault("root", str(root))
    return moved


def _moved(node: Any, root: Path) -> Any:
    if isinstance(node, Mapping):
        kept = _RELATIVE_TO_ROOT if node.get("data_root") else ()
        moved = {key: each if key in kept else _moved(each, root) for key, each in node.items()}
        if node.get("data_root") == _BELOW:
            moved["data_root"] = str(root)
        return moved
    if isinstance(node, list | tuple):
        return type(node)(_moved(each, root) for each in node)
    if isinstance(node, str) and "/" in node:
        first, *rest = PurePosixPath(node).parts
        return str(root.joinpath(*rest)) if first == _BELOW else node
    return node


def import_custom(config: Mapping[str, Any]) -> None:
    """Import the modules that `custom_imports` of a configuration names.

    Raises:
        ConfigError: one cannot be imported.
    """
    named = config.get("custom_imports")
    if not named:
        return
    try:
        import_modules_from_strings(**named)
    except ImportError as error:
        raise ConfigError(f"custom_imports={dict(named)}: {error}") from error


def constructor_arguments(registry: Registry, kind: Any) -> Collection[str]:
    """Names that the constructor of a registered class takes; none if there is no such class."""
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(None) as scoped:
            kind = scoped.get(kind)
    return () if kind is None else inspect.signature(kind).parameters.keys()


def leaves(described: Any, key: str = "dataset") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the innermost data sets of a configuration, each with its key.

    Example:
        >>> repeated = dict(type="RepeatDataset", dataset=dict(type="CocoDataset"), times=2)
        >>> list(leaves(repeated))
        [('dataset.dataset', {'type': 'CocoDataset'})]
    """
    if isinstance(described, list | tuple):
        for index, each in enumerate(described):
            yield from leaves(each, f"{key}.{index}")
        return
    for wrapped in ("dataset", "datasets"):
        if wrapped in described:
            yield from leaves(described[wrapped], f"{key}.{wrapped}")
            return
    yield key, described


def count_views(pipeline: Sequence[Mapping[str, Any]]) -> int:
    """How many views of an image a pipeline makes: 0 unless it ends in TestTimeAug.

    Example:
        >>> flips = [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)]
        >>> count_views([dict(type="TestTimeAug", transforms=[flips, [dict(type="Pack")]])])
        2
    """
    if not pipeline or pipeline[-1].get("type") != "TestTimeAug":
        return 0
    return math.prod(len(choices) for choices in pipeline[-1]["transforms"])


def require_files(described: Mapping[str, Any], key: str, data_root: Path) -> None:
    """Check that the files and folders that a located data set names exist.

    Args:
        described: the data set, less wrappers.
        key: where it stands in the configuration.
        data_root: the folder that holds one folder per data set.

    Raises:
        MissingDataError: one is not, or a folder is empty; it says where the data set comes from.
    """
    root = str(described.get("data_root") or "")
    named = {"ann_file": described.get("ann_file")}
    prefixes = described.get("data_prefix") or {}
    named |= {f"data_prefix.{name}": prefix for name, prefix in prefixes.items()}
    given = {name: path for name, path in named.items() if path}
    if root and not given:
        given = {"data_root": ""}
    for name, path in given.items():
        require(Path(root) / str(path), f"{key}.{name}", data_root)


def require(path: Path, key: str, data_root: Path) -> None:
    """Check that a file, or a folder with something in it, is there.

    Raises:
        MissingDataError: it is not.
    """
    found = missing(path)
    if found is None:
        return
    source = published_at(path, data_root)
    if source is not None:
        source.require(path)
    raise MissingDataError(
        f"{path.absolute()} is {found}, which {key} names; put it there, or say where the data "
        "are (--data-root or $SPIKEBENCH_DATA)"
    )


def dataset_info(dataset: Any) -> tuple[str, str]:
    """The name of a built data set and of its split, as in records; of several, the first.

    The name is the one in its metainfo, else its folder. The split is read off the name of its
    annotation file, else of its image folder.
    """
    leaf = dataset
    while inner := getattr(leaf, "dataset", None) or next(
        iter(getattr(leaf, "datasets", ())), None
    ):
        leaf = inner
    name = leaf.metainfo.get("name")
    if not name:
        name = Path(leaf.data_root).name.lower() if leaf.data_root else type(leaf).__name__
    return name, getattr(leaf, "split", None) or _split(leaf)


def _split(leaf: Any) -> str:
    if leaf.ann_file:
        return Path(leaf.ann_file).stem.rpartition("_")[2]
    prefix = leaf.data_prefix
    return Path(prefix.get("img_path") or prefix.get("img") or "").name or "test"
