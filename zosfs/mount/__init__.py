"""Options to a living mount: session, readiness, signals, systemd, mount helpers."""
