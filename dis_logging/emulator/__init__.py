"""A local DIS for development, demonstrations and tests; what it can be told to do wrong is in `faults`."""

from dis_logging.emulator.emulator import DISEmulator

__all__ = ["DISEmulator"]
