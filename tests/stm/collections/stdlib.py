"""The standard library's own tests, run against a class of ours."""

import functools
import sys
import unittest

import pytest


def adapted(base, exclusions, **attributes):
    """A subclass of a test class, with these attributes. Tests in `exclusions` (name to reason) are expected to fail,
    and it is an error if one doesn't. Names that this interpreter's tests don't have are ignored.
    """
    members = dict(attributes)
    for name, reason in exclusions.items():
        original = getattr(base, name, None)
        if original is not None:
            members[name] = _must_fail(original, reason)
    members["__module__"] = __name__
    return type(base.__name__, (base, unittest.TestCase), members)


def _must_fail(original, reason):
    @functools.wraps(original)
    def test(self):
        usual, unraisable = sys.unraisablehook, []
        sys.unraisablehook = lambda what: unraisable.append(what.exc_type)
        try:
            original(self)
        except unittest.SkipTest:
            raise
        except Exception:
            pytest.xfail(reason)
        finally:
            sys.unraisablehook = usual
        if unraisable:
            pytest.xfail(reason)
        self.fail(f"passes, so it needs no exclusion ({reason})")

    return test
