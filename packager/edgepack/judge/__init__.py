"""Stages that measure a candidate against the float model."""
