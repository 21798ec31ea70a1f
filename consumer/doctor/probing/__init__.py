"""Both sides, asked: facts come back, nothing is judged and nothing is changed. Each question has its time."""
