"""Reports as self-contained HTML files, made from records alone: nothing is fetched, and no W&B account is needed."""
