"""An image with its geometry: read, orient, resample, normalise, invert, modality, labels."""
