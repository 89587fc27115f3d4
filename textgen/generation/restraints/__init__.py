"""Restraints: forbid or favor tokens, depending on what a row has generated so far."""
