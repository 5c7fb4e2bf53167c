"""Data sources: `base` says what one is; `memory` and `sqlite` are those that come with the library."""
