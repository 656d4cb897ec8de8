"""mergekit's configurations: read and checked as mergekit means them, and said in this project's words."""
