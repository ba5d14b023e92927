"""What the workers of one machine share: a directory, and their reports in it."""
