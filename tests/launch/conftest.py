"""Launch scripts in tests do as they are told there, whatever the tests were started with."""

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHON", "VENV", "OLDEST"):
        monkeypatch.delenv(name, raising=False)
