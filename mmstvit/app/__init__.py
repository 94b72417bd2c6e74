"""Page on which a model is tried: predictions, super tokens and attention of images."""
