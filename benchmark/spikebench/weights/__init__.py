"""Loading published and our own weights, and converting them; a file of names per family.

Importing this package registers the published layouts that belong to spikebench.
"""

from spikebench.weights import meta_spikeformer

__all__ = ["meta_spikeformer"]
