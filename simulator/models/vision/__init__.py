"""Named nets for images and volumes."""
