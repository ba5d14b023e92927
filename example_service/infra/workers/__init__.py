"""What the workers of one service share."""
