"""Recurrent, recommender, generative and plain nets, by name."""
