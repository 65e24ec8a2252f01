"""What a build shows to people."""
