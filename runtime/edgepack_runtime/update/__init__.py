"""The device's side of field updates.

A program updates as the command line does: make an `updater.Updater`, and call `run.update`.
"""
