"""What may be said of results beyond one comparison of two arms."""
