"""What detection and segmentation share: the adapter, operators and MMEngine's run loop."""
