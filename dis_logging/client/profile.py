"""The profile file of Huawei Cloud's SDKs: ``~/.huaweicloud/credentials``, as huaweicloudsdkcore 3.1.219 reads it."""

from __future__ import annotations

from pathlib import Path

from dis_logging import options
from dis_logging.errors import ConfigurationError


def read_profile(name: str) -> str | None:
    """
    Returns one value of the section ``[basic]``: ``ak``, ``sk``, ``security_token`` or ``project_id``; None if not set.

    No file is no error.

    Raises:
        ConfigurationError: the file is there but cannot be read.
    """
    # Imported for those who have a profile file: it takes longer than all of the client besides.
    import configparser

    try:
        file = profile_file()
        if not file.is_file():
            return None
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(file.read_text("utf-8"))
    except (OSError, RuntimeError, ValueError, configparser.Error) as error:
        # The parser's text quotes the line that it stumbled over, which may hold the key.
        kind = type(error).__name__
        raise ConfigurationError(f"{name}: the profile file of Huawei's SDKs cannot be read ({kind})") from None
    return parser.get("basic", name, fallback="").strip() or None


def profile_file() -> Path:
    """
    Returns where the file is, or would be.

    That is what ``HUAWEICLOUD_SDK_CREDENTIALS_FILE`` names, else ``credentials`` in ``.huaweicloud`` of the home directory.

    Raises:
        RuntimeError: when there is no home directory.
    """
    named = options.from_environment("HUAWEICLOUD_SDK_CREDENTIALS_FILE")
    return Path(named or Path.home() / ".huaweicloud" / "credentials")
