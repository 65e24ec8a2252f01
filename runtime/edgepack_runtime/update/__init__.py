"""The device's side of field updates.

A program updates just as the command line does: it makes an `updater.Updater` and calls
`run.update`.
"""
