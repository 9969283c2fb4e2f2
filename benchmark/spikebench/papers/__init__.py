"""The papers' tables: what was reported, and what can be measured of it here."""
