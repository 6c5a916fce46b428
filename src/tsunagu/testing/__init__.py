"""Public test support: fakes and namespace helpers, documented like any other package."""
