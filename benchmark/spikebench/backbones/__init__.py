"""The zoo of backbones. Importing this package registers the ones that belong to spikebench."""

from spikebench.backbones import meta_spikeformer
from spikebench.backbones.classifier import Classifier, build_classifier
from spikebench.backbones.zoo import (
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
