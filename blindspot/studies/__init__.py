"""What a study is: its YAML, its plan of cached steps, and the engine that runs them. Importing it loads no torch."""
