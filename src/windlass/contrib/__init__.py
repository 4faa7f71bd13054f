"""Windlass beside other libraries; each needs an extra of its name."""
