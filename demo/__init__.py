"""The Gradio page: reads input, calls the library, shows the result."""
