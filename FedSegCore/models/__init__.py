"""Releases on disk: safetensors, model card, signature; publishing, listing, verification."""
