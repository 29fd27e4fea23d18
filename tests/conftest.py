"""The order of the tests, and what they start from."""

import signal


def pytest_configure():
    """Ctrl-C interrupts, also where the tests run behind a shell that has it ignored, and in all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """The browser comes late: a machine just started is many times slower, and its tests wait for many things at once.
    Ray comes last: it leaves threads and signal handlers behind, which forked processes do not survive."""
    items.sort(key=lambda item: ("ray" in item.name.split("_"), item.path.stem == "test_browser"))
