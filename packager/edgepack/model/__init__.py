"""The original model: fetch it, describe it, open it."""
