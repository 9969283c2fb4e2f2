"""How a backbone is trained and scored: one plug-in of the core a task."""
