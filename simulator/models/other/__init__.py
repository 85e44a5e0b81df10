"""Named nets other than vision nets: recurrent, recommender, generative and sequence nets."""
