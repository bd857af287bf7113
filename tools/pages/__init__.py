"""The pages that are made of records under docs/results: a module for each, records -> Markdown."""
