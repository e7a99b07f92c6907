"""Generated patients for demos and tests: a torso in CT, MR and ultrasound."""
