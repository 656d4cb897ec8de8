"""Models of the Hugging Face Hub: what an id is, what a repository lists, and what is fetched of it.

Nothing leaves this machine but for an id that somebody has written, and only to the Hub's address (``HF_ENDPOINT``).
``huggingface_hub`` fetches: its cache, its token, its offline mode. It is imported where an id is met.
"""
