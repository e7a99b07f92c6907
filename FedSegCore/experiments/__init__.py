"""Experiments on real images: settings, splits, resumable runs, results."""
