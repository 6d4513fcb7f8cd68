"""What errors say, whatever names they quote."""

from convmix.config import Run, override
from convmix.errors import ConfigError, RunError


def test_an_error_is_one_line_without_control_characters() -> None:
    assert str(RunError("a\nb \x1b[2J \x9b c \u2028 d\u00e9")) == "a\\nb \\x1b[2J \\x9b c \\u2028 d\u00e9"
    try:
        override(Run(), {"a\nb": 1})
    except ConfigError as error:
        assert str(error) == "unknown setting a\\nb"
