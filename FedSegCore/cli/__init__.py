"""The fedseg command."""
