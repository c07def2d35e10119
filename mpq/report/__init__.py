"""Tables made from records, never from models."""
