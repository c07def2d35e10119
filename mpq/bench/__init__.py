"""How fast, how large and how growing: measurements beside the peers, on the reader's own machine."""
