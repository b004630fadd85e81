"""voxfast in other programs."""
