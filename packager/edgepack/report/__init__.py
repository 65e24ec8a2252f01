"""What a person sees of a build."""
