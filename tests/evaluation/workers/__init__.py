"""Workers: who carries messages to them, and what happens where they die."""
