from fleetmint_emulator import emulator  # noqa: F401
