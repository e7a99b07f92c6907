"""Local training: sampling, losses, metrics, one round."""
