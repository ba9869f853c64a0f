"""One target in this process, driven by libFuzzer: `python -m fuzz.engine TARGET [-libfuzzer…]`.

Whatever is imported for the target is instrumented: an input that takes a new way through the
parsers is kept, and the next ones are made from it. The process ends when libFuzzer ends it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

atheris: Any = importlib.import_module("atheris")  # not on every machine, and without types

PARSERS: Final = (
    "astcredit.asterisk",
    "astcredit.storage.wire",
    "panoramisk",
    "pymysql.converters",
)
"""Of these the ways are told apart."""

with atheris.instrument_imports(include=list(PARSERS)):
    from fuzz.selftest import find_me
    from fuzz.targets import TARGETS

SELFTEST: Final = "selftest"


def main() -> None:
    """Fuzz the target that the first argument names."""
    name = sys.argv.pop(1)
    run = atheris.instrument_func(find_me) if name == SELFTEST else TARGETS[name].run
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
