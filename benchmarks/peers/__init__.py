"""What we compare with, written as the peer's own documentation has it."""
