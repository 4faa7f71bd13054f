"""An app that cannot be imported."""

import nothing_of_that_name  # type: ignore[import-not-found]  # noqa: F401
