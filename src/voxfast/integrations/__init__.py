"""voxfast as a part of other people's programs."""
