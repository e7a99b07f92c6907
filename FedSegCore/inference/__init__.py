"""From a volume and a release to a segmentation on the volume's own grid."""
