"""Counting operations and turning counts into energy."""
