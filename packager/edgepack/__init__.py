"""The build host's half of edgepack: a Hugging Face model in, one bundle per target out."""

__version__ = "0.1.0"
