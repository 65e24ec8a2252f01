"""The device's disk: releases, and which of them runs."""
