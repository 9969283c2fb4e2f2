"""Checks of data before training starts: `spikebench check-data`."""
