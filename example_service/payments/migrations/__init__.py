"""The migrations, one file each; `down_revision` tells which comes before."""
