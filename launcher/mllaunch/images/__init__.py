"""Container images for runs: what asks the engine, and what the makers of images are told and asked."""
