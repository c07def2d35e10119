"""Reports as self-contained HTML files made from records; they load nothing else and need no W&B account."""
