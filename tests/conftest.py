"""The order of the tests."""


def pytest_collection_modifyitems(items):
    """Ray comes last: it leaves threads and signal handlers behind, which forked processes do not survive."""
    items.sort(key=lambda item: "ray" in item.name.split("_"))
