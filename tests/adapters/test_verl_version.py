"""verl absent, or another one: said at once, with what to install."""

import importlib.metadata

import pytest

from mem1.adapters.verl.version import VERSION, VerlVersionError, check_verl

try:
    FOUND = importlib.metadata.version("verl")
except importlib.metadata.PackageNotFoundError:
    FOUND = None


@pytest.mark.skipif(FOUND is not None, reason="verl is installed")
def test_without_verl_the_plugin_says_what_to_install():
    with pytest.raises(VerlVersionError, match=r"verl is not installed: run  pip install"):
        importlib.import_module("mem1.adapters.verl.plugin")


@pytest.mark.skipif(FOUND is None, reason="verl isn't installed")
def test_another_verl_is_refused_with_the_one_to_install():
    with pytest.raises(VerlVersionError, match=r"verl 0\.9\.1 is installed.*needs verl 0\.8\.0"):
        check_verl("0.8.0")


@pytest.mark.skipif(FOUND is None, reason="verl isn't installed")
def test_the_verl_of_the_tests_is_the_one_we_name():
    check_verl()
    assert FOUND == VERSION
