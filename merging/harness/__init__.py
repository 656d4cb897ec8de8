"""lm-evaluation-harness: its tasks on models of a folder, and its results in the tests that every score here gets."""
