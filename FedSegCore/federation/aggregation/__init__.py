"""Aggregation rules: pure objects that fold site updates into a group model."""
