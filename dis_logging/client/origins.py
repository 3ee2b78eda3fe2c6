"""Looks options up where they may come from, and remembers where each of them was found."""

from __future__ import annotations

from dis_logging import options
from dis_logging.client.profile import profile_file, read_profile

OPTION = "option"
DEFAULT = "default"
ECS = "ECS metadata service"


class Origins(dict[str, str]):
    """Where the value of each option came from, by its name: in words for people, and never the value."""

    def option(self, name: str, value: object) -> bool:
        """Notes and returns whether *value* was given as an option."""
        if value is not None:
            self[name] = OPTION
        return value is not None

    def environment(self, name: str, *variables: str) -> str | None:
        """Returns the first of the environment *variables* that is set and not empty, noted as the origin of *name*."""
        for variable in variables:
            value = options.from_environment(variable)
            if value is not None:
                self[name] = f"environment variable {variable}"
                return value
        return None

    def profile(self, name: str) -> str | None:
        """
        Returns what the profile file says of *name*, noted as its origin; None if that is nothing.

        Raises:
            ConfigurationError: as `read_profile` does.
        """
        value = read_profile(name)
        if value is not None:
            self[name] = f"profile file {profile_file()}"
        return value
