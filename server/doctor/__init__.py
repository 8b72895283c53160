"""The doctor: looks at everything a talking head needs on this machine, and says what to change."""
