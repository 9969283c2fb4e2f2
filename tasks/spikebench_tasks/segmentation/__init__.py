"""Segmentation with MMSegmentation."""
