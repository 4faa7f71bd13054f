"""Stores: one contract, one dispatcher in front, one package per engine."""
