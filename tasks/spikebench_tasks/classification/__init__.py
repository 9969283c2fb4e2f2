"""Classification with Lightning."""
