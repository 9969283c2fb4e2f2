"""Detection with MMDetection."""
