"""The core of spikebench."""
