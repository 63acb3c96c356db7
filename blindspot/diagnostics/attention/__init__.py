"""Where the language model looks, and answers when it looks more sharply."""
