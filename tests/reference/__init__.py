"""Independent implementations that the tests hold voxfast against."""
