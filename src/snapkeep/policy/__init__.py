"""Policies: which assets, when, what is done, and how long it is kept. Pure: no clock and no catalog is read here."""
