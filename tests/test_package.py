"""What the package offers by name, though some of it is imported only when it is asked for."""

import subprocess
import sys

import pytest

import dis_logging


def test_every_public_name_is_there_and_listed() -> None:
    assert set(dis_logging.__all__) <= set(dir(dis_logging))
    for name in dis_logging.__all__:
        assert getattr(dis_logging, name)


def test_a_name_that_is_not_there_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'dis_logging' has no attribute 'DISHandlr'"):
        _ = dis_logging.DISHandlr  # type: ignore[attr-defined] # that is the point


def test_a_program_that_only_logs_imports_nothing_of_what_is_read() -> None:
    program = """if True:
        import sys
        from dis_logging import DISHandler
        print(sorted({"dis_logging.client.read_models", "dis_logging.client.streams", "asyncio"} & set(sys.modules)))
        from dis_logging import *
        print(StreamDescription.__module__, ECSCredentials.__module__)
        """
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert output.splitlines() == ["[]", "dis_logging.client.read_models dis_logging.client.metadata"]
