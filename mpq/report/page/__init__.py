"""Reports as single HTML files, for whoever has no W&B: everything inside, nothing fetched, made from records alone."""
