"""The documentation: its pages, what writes those that are generated, and the site that is made of them."""
