"""Speed and memory, as commands of their own: noise has no place in tests."""
