"""Tables made from records: rows, columns, captions and output formats."""
