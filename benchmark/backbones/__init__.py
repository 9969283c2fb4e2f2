"""The zoo of backbones. Importing this package registers the ones that belong to spikebench."""

from benchmark.backbones import meta_spikeformer
from benchmark.backbones.classifier import Classifier, build_classifier
from benchmark.backbones.zoo import (
    FeatureInfo,
    build_backbone,
    list_backbones,
    register_backbone,
    to_time_first,
)

__all__ = [
    "Classifier",
    "FeatureInfo",
    "build_backbone",
    "build_classifier",
    "list_backbones",
    "meta_spikeformer",
    "register_backbone",
    "to_time_first",
]
