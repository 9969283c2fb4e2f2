"""What is looked at in data before training starts: `spikebench check-data`."""
