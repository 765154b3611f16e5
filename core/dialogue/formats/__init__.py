"""The dialogue formats: turns to the string that a model was trained to read."""
