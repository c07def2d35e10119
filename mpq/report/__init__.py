"""Reports made from records, never from models: tables, figures, pages, model cards."""
