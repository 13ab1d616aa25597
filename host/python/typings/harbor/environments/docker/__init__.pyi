"""Docker Compose files of Harbor: what is used here."""
