"""Parameters as a person types them, read and checked."""
