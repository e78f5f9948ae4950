"""Fixtures of the boot level, for the tests here that need them."""

from tests.boot.conftest import built as built
from tests.boot.test_update import armed as armed
from tests.boot.test_update import lab as lab
from tests.boot.test_update import newer as newer
from tests.boot.test_update import office as office
