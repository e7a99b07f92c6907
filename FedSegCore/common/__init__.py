"""Errors with a code and a remedy, progress with cancellation, and files that are never half written."""
