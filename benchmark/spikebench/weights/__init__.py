"""Loading published and our own weights, and converting them."""
