"""A process with more descriptors than select(2) can count still speaks to nftables."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

CROWDED = """
import os, resource, sys
from tsunagu.kernel import descriptors, firewall, netns
netns.leave_host()
before = descriptors.inherited()
descriptors.raise_limit()
if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 2000:
    sys.exit("the hard limit of descriptors is too low for this test")
if not int(sys.argv[1]):
    firewall.backend()  # an engine does so at its start
null = os.open(os.devnull, os.O_RDONLY)
while os.dup(null) < 1500:
    pass
for _ in range(3):
    firewall.apply("add table inet crowded\\n")
assert descriptors.inherited() == before
print("applied")
"""


@pytest.mark.parametrize("is_late", [0, 1], ids=["low numbers reserved", "none left: the program nft"])
def test_rules_are_applied_by_a_process_with_1500_descriptors(is_late: int) -> None:
    """libnftables ends the process (bit out of range, FD_SETSIZE) when its socket gets a number above 1023."""
    done = subprocess.run(
        [sys.executable, "-c", CROWDED, str(is_late)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "applied\n"
