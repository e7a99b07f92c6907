"""GIN (2-D and 3-D, replayable), IPA and spatial augmentation."""
