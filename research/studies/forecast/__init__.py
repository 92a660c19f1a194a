"""What a study will cost and what it could see, told before it runs."""
