"""Restraints: what forbids tokens by what a row has written so far."""
